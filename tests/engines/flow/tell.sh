if [ "$1" = s0900 ]; then
    echo "nothing is told of $1" >&2
    exit 3
fi
echo "$1 has $2 $UNIT"
