# One SWC file: columns are id, type, x, y, z, radius, parent. Prints one JSON object.
/^#/ { next }
{
    x[$1] = $3; y[$1] = $4; z[$1] = $5
    if ($7 > 0) {
        length_um += sqrt(($3 - x[$7]) ^ 2 + ($4 - y[$7]) ^ 2 + ($5 - z[$7]) ^ 2)
        children[$7]++
    }
}
END {
    for (id in x) if (!(id in children)) tips++
    printf "{\"length_um\": %.2f, \"tips\": %d}\n", length_um, tips
}
