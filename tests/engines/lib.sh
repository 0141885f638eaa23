# shellcheck shell=bash
# What the scripts of this folder share. Each names its engine and then reads this file:
#
#     engine=dask; . "$(dirname "$0")/lib.sh"
#
# All lies in $BPP_ENGINES (default: bpp-flow-engines in the temporary folder): `venv` with the Python packages, and a
# folder per engine with `env` (NAME=value lines for who uses the engine; there while it is up), `log` and `state`.
# Whatever an engine starts carries BPP_ENGINE=its folder in its environment, and so is found again when it ends.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
BPP_ENGINES=${BPP_ENGINES:-${TMPDIR:-/tmp}/bpp-flow-engines}
mkdir -p "$BPP_ENGINES"
BPP_ENGINES=$(cd "$BPP_ENGINES" && pwd -P)
export BPP_ENGINES
home=$BPP_ENGINES/${engine:?}
venv=$BPP_ENGINES/venv
mkdir -p "$home/log" "$home/state"
# How variables begin by which the engine's processes are known; jobs of a batch system have others.
marks=("BPP_ENGINE=$home\$")

# One `up` or `down` of an engine at a time; what they start does not hold the lock.
exec 8>"$home/lock"
flock 8

say() { printf '%s: %s\n' "$engine" "$*" >&2; }

fail() {
    say "$*"
    tail -n 5 "$home"/log/*.log >&2 2>/dev/null || true
    exit 1
}

# The start time of a process, in the kernel's ticks: with its id it names a process for good.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# start PART COMMAND…: a process of the engine, in a session of its own, with its output in log/PART.log.
start() {
    local part=$1
    shift
    BPP_ENGINE=$home setsid "$@" >"$home/log/$part.log" 2>&1 </dev/null 8>&- &
    printf '%s %s\n' "$!" "$(born "$!")" >"$home/state/$part.pid"
}

# alive PART…: whether each of them still runs.
alive() {
    local part pid time
    for part; do
        read -r pid time 2>/dev/null <"$home/state/$part.pid" || return 1
        [ -n "$time" ] && [ "$(born "$pid")" = "$time" ] || return 1
        ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || return 1
    done
}

# The processes of sessions that `start` began and of the environments that it gave.
ours() {
    local file part pid _
    for file in "$home"/state/*.pid; do
        part=$(basename "$file" .pid)
        if alive "$part"; then
            read -r pid _ <"$file"
            ps -o pid= -s "$pid" || true
        fi
    done
    { grep -lz "${marks[@]/#/-e^}" /proc/[0-9]*/environ 2>/dev/null || true; } | cut -d/ -f3
}

# end [SECONDS]: the parts of the engine are asked to end, and after SECONDS (5) whatever is left of it is killed.
end() {
    local left until=$((SECONDS + ${1:-5})) file pid _
    left=$(ours | sort -un)
    for file in "$home"/state/*.pid; do
        if alive "$(basename "$file" .pid)"; then
            read -r pid _ <"$file"
            kill -TERM "$pid" 2>/dev/null || true
        fi
    done
    while [ -n "$(still "$left")" ] && [ "$SECONDS" -lt "$until" ]; do sleep 0.05; done
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        left=$(still "$left $(ours)")
        [ -n "$left" ] || break
        # shellcheck disable=SC2086
        kill -KILL $left 2>/dev/null || true
        sleep 0.05
    done
    rm -rf "$home/state" "$home/env"
}

# still PIDS: those of them that run.
still() {
    local pid
    for pid in $1; do
        grep -q '^State:.[^Z]' "/proc/$pid/status" 2>/dev/null && echo "$pid"
    done
    true
}

# await SECONDS WHAT COMMAND…: until the command succeeds.
await() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || fail "no $what"
        sleep 0.1
    done
}

# ports N: that many free ports of this machine.
ports() {
    python3 -c 'import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))' "$1"
}

# needs_own_network: for engines that listen on every address and cannot be told otherwise. CI is nobody's machine.
needs_own_network() {
    [ -n "${CI:-}" ] || [ -z "$(ip -o route show default 2>/dev/null)" ] ||
        fail "listens on every address of the machine: start it, the test and $engine-down under tests/engines/alone"
}

# tell NAME=VALUE…: what users of the engine put into their environment. Written last: the engine is up.
tell() {
    printf '%s\n' "$@" >"$home/env.new"
    mv "$home/env.new" "$home/env"
    say "up ($(tr '\n' ' ' <"$home/env"))"
}

# installed NAME…: fails unless tests/engines/install has been at work.
installed() { "$here/install" --check "$@" || exit 1; }
