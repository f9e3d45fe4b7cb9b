# shellcheck shell=bash
# What the installer tells people, and how it stops.

say() { printf '%s\n' "==> $*"; }
note() { printf '%s\n' "    $*"; }
warn() { printf '%s\n' "warning: $*" >&2; }

# die WHAT [REMEDY…]: the first line says what is wrong, the others what to do. Exits with $DIE_CODE or 1.
die() {
    printf '%s\n' "error: $1" >&2
    shift
    local line
    for line in "$@"; do printf '%s\n' "       $line" >&2; done
    exit "${DIE_CODE:-1}"
}

usage_error() {
    DIE_CODE=2 die "$1" "See ./install.sh --help"
}

# run_logged LOG COMMAND…: output goes to LOG; a line every 20 seconds shows that it is still alive.
# Returns the command's exit code. Its last lines are the caller's to show (tail_log).
run_logged() {
    local log=$1 pid waited=0 rc=0
    shift
    printf '\n+ %s\n' "$*" >>"$log"
    "$@" >>"$log" 2>&1 </dev/null &
    pid=$!
    # Without this, Ctrl-C would leave the command running behind the prompt.
    trap 'kill "$pid" 2>/dev/null || true; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.5
        waited=$((waited + 1))
        if ((waited % 40 == 0)); then note "… still working ($((waited / 2)) s; details in $log)"; fi
    done
    wait "$pid" || rc=$?
    trap - INT TERM
    return "$rc"
}

tail_log() {
    printf '%s\n' "---- the last lines of $1" >&2
    tail -n 25 "$1" | sed 's/^/     /' >&2
    printf '%s\n' "----" >&2
}
