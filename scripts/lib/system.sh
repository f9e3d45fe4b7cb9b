# shellcheck shell=bash
# What the operating system must bring: ffmpeg, a voice, Python's venv module and the libraries that opencv-python
# links to although nothing here opens a window. A thing is looked for before its package is: whoever built ffmpeg
# himself needs no Debian package of it.

# capability|Debian/Ubuntu package
SYSTEM_NEEDS=(
    "command:ffmpeg|ffmpeg"
    "command:ffprobe|ffmpeg"
    "command:espeak-ng|espeak-ng"
    "library:libGL.so.1|libgl1"
    "library:libglib-2.0.so.0|libglib2.0-0"
    "library:libgthread-2.0.so.0|libglib2.0-0"
    "library:libxcb.so.1|libxcb1"
)

# What only some tests use: a browser, a Samba server and its client, promtool, FUSE, btrfs, what boots a Debian. CI
# installs them; elsewhere those tests are skipped and say what they miss.
TEST_NEEDS=(
    "command:chromium|chromium"
    "command:smbd|samba"
    "command:smbclient|smbclient"
    "command:promtool|prometheus"
    "command:fusermount3|fuse3"
    "command:mkfs.btrfs|btrfs-progs"
    "library:libfuse3.so.3|libfuse3-3"
    "command:debootstrap|debootstrap"
    "command:systemd-nspawn|systemd-container"
)

has_capability() {
    local kind=${1%%:*} name=${1#*:} directory
    case $kind in
    command) command -v "$name" >/dev/null 2>&1 ;;
    library)
        # Not `ldconfig -p | grep -q`: grep leaves at the first match, and pipefail takes ldconfig's SIGPIPE for a no.
        if [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) == *"$name "* ]]; then return 0; fi
        for directory in ${LD_LIBRARY_PATH:+${LD_LIBRARY_PATH//:/ }} /usr/lib /usr/lib64 /usr/local/lib; do
            if [[ -e $directory/$name ]]; then return 0; fi
        done
        return 1
        ;;
    esac
}

# Prints the packages that are missing, one a line, each once.
missing_system_packages() {
    local need python=$1
    {
        for need in "${SYSTEM_NEEDS[@]}"; do
            has_capability "${need%%|*}" || printf '%s\n' "${need##*|}"
        done
        # Debian splits venv's bootstrap off into a package of its own.
        "$python" -c 'import ensurepip, venv' 2>/dev/null || venv_package "$python"
    } | sort -u
}

# ensure_test_tools LOG: in CI as root, what TEST_NEEDS lists. The tests themselves fail there when something is missing.
ensure_test_tools() {
    local log=$1 need
    local -a missing=()
    if [[ -z ${CI:-} || $EUID -ne 0 ]] || ! command -v apt-get >/dev/null 2>&1; then return 0; fi
    for need in "${TEST_NEEDS[@]}"; do
        has_capability "${need%%|*}" || missing+=("${need##*|}")
    done
    if ((${#missing[@]} == 0)); then return 0; fi
    say "Installing what the tests use: ${missing[*]}"
    run_logged "$log" apt-get update -q || true
    run_logged "$log" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "${missing[@]}" || warn "apt-get could not install: ${missing[*]} (see $log)"
    hash -r
}

# python3-venv belongs to the distribution's python3; another 3.x has a package with its own number.
venv_package() {
    local version
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [[ $(readlink -f "$(command -v python3)") == "$(readlink -f "$(command -v "$1")")" ]]; then
        printf 'python3-venv\n'
    else
        printf 'python%s-venv\n' "$version"
    fi
}

# ensure_system_packages PYTHON LOG: installs what is missing when root on a machine with apt, else says what to install.
ensure_system_packages() {
    local python=$1 log=$2
    local -a missing
    mapfile -t missing < <(missing_system_packages "$python")
    if ((${#missing[@]} == 0)); then return 0; fi
    if [[ $DRY_RUN == yes ]]; then
        say "Would install system packages: ${missing[*]}"
        return 0
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        die "the system lacks: ${missing[*]}" \
            "These are Debian's names, and this system has no apt-get. Install what corresponds to them with your" \
            "package manager, then run the same command again."
    fi
    if ((EUID != 0)); then
        die "the system lacks: ${missing[*]}" \
            "Install them, then run the same command again:" \
            "  sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    say "Installing system packages: ${missing[*]}"
    if [[ $OFFLINE != yes ]]; then
        run_logged "$log" apt-get update -q || warn "apt-get update failed; trying with the package lists as they are"
    fi
    if ! run_logged "$log" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"; then
        tail_log "$log"
        die "apt-get could not install: ${missing[*]}" \
            "Check the package sources (/etc/apt) and the network, or install these packages yourself," \
            "then run the same command again."
    fi
    hash -r
    mapfile -t missing < <(missing_system_packages "$python")
    if ((${#missing[@]} > 0)); then
        die "still missing after apt-get: ${missing[*]}" "See $log."
    fi
}

has_nvidia_gpu() {
    if compgen -G '/proc/driver/nvidia/gpus/*' >/dev/null; then return 0; fi
    command -v nvidia-smi >/dev/null 2>&1 && [[ $(nvidia-smi -L 2>/dev/null) == "GPU "* ]]
}
