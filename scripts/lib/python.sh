# shellcheck shell=bash
# The Python environment: interpreter, venv, torch's right build, everything else, and the stamp that makes the
# second run cost nothing.

readonly PYTORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

# choose_python: sets PYTHON to an interpreter that the tested set supports ($PYTHON if given).
choose_python() {
    local candidate
    local -a candidates=(python3 python3.11 python3.13 python3.12)
    if [[ -n ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if supported_python "$candidate"; then
            PYTHON=$(command -v "$candidate")
            return 0
        fi
    done
    die "no Python 3.11, 3.12 or 3.13 found (tried: ${candidates[*]})" \
        "On Debian or Ubuntu: sudo apt-get install python3 python3-venv" \
        "or name one: PYTHON=/path/to/python3.11 ./install.sh …"
}

supported_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# environment_stamp VENV EXTRAS: what an environment was made from; the same text means nothing to do.
environment_stamp() {
    local venv=$1 extras=$2
    printf 'extras=%s torch=%s machine=%s source=%s python=%s inputs=%s\n' \
        "$extras" "$TORCH" "$(uname -m)" "$HERE" \
        "$("$venv/bin/python" -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || printf none)" \
        "$(cat "$HERE/pyproject.toml" "$HERE/constraints.txt" | sha256sum | cut -c1-16)"
}

# ensure_environment VENV EXTRAS LOG: VENV holds heygemd (editable) with these extras ("" or "dev").
ensure_environment() {
    local venv=$1 extras=$2 log=$3 stamp
    stamp=$venv/.heygemd-stamp
    # An environment made for development also serves the demo.
    if [[ -f $stamp ]] && { [[ $(<"$stamp") == "$(environment_stamp "$venv" "$extras")" ]] ||
        [[ $(<"$stamp") == "$(environment_stamp "$venv" dev)" ]]; }; then
        return 0
    fi
    if [[ $DRY_RUN == yes ]]; then
        say "Would make the environment $venv with heygemd${extras:+[$extras]} and torch ($(torch_wanted) build)"
        return 0
    fi
    make_venv "$venv" "$log"
    rm -f "$stamp"
    install_torch "$venv" "$log"
    say "Installing heygemd and the packages it needs (a minute or two)"
    if ! pip_install "$venv" "$log" -e "$HERE${extras:+[$extras]}"; then
        tail_log "$log"
        die "pip could not install heygemd's dependencies" \
            "Is a package index reachable? pip's settings (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf) are honoured;" \
            "without a network: ./install.sh --wheelhouse DIR --offline … (docs/install.md)."
    fi
    environment_stamp "$venv" "$extras" >"$stamp"
}

make_venv() {
    local venv=$1 log=$2
    # A venv dies with the interpreter it was made from (an upgraded or removed Python).
    if [[ -d $venv ]] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return 0; fi
    if [[ ! -f $venv/pyvenv.cfg && -n $(find "$venv" -mindepth 1 ! -name install.log) ]]; then
        die "$venv is there and is no Python environment" "Move it away, then run the same command again."
    fi
    find "$venv" -mindepth 1 -maxdepth 1 ! -name install.log -exec rm -rf {} +
    say "Making the Python environment $venv ($("$PYTHON" --version))"
    if ! run_logged "$log" "$PYTHON" -m venv "$venv"; then
        tail_log "$log"
        die "could not make a Python environment in $venv" \
            "On Debian or Ubuntu: sudo apt-get install $(venv_package "$PYTHON")"
    fi
}

# pip_install VENV LOG ARGUMENT…: with the tested set as constraints, from wherever pip is configured to look.
pip_install() {
    local venv=$1 log=$2
    shift 2
    # No byte code now: in a checkout the first import makes what is used, a small part of what is installed. The
    # service, which may not write there, gets all of it from both cores (install_release).
    run_logged "$log" "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
        --no-compile -c "$HERE/constraints.txt" "${PIP_SOURCES[@]}" "$@"
}

# use_wheelhouse: PIP_SOURCES from --wheelhouse and --offline.
use_wheelhouse() {
    PIP_SOURCES=()
    if [[ -n $WHEELHOUSE ]]; then
        if [[ ! -d $WHEELHOUSE ]]; then
            DIE_CODE=2 die "--wheelhouse $WHEELHOUSE: no such folder"
        fi
        WHEELHOUSE=$(cd "$WHEELHOUSE" && pwd)
        PIP_SOURCES+=(--find-links "$WHEELHOUSE")
    fi
    if [[ $OFFLINE == yes ]]; then PIP_SOURCES+=(--no-index); fi
}

torch_wanted() {
    if [[ $TORCH != auto ]]; then
        printf '%s' "$TORCH"
    elif has_nvidia_gpu; then
        printf 'cuda'
    else
        printf 'cpu'
    fi
}

# install_torch VENV LOG: a build without CUDA where there is no NVIDIA GPU. PyPI's wheels for x86-64 Linux carry
# gigabytes of CUDA libraries, so where the build comes from is decided here and not left to pip's preference.
install_torch() {
    local venv=$1 log=$2 want pinned
    want=$(torch_wanted)
    pinned=$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' "$HERE/constraints.txt")
    if [[ $("$venv/bin/python" "$HERE/scripts/torch_build.py" installed "$pinned") == "$want" ]]; then return 0; fi
    say "Installing $pinned, ${want^^} build"
    if [[ $want == cuda ]]; then
        # The rest of the installation would take it anyway; asked for by name it is told apart in the log.
        if pip_install "$venv" "$log" "$pinned"; then
            if [[ $("$venv/bin/python" "$HERE/scripts/torch_build.py" installed "$pinned") == cuda ]]; then return 0; fi
            if [[ $TORCH == auto ]]; then
                warn "an NVIDIA GPU is there, but pip's sources offer a CPU build of torch: rendering will use the CPU"
                return 0
            fi
        fi
        die "pip's sources offer no CUDA build of $pinned" "Name one: PIP_EXTRA_INDEX_URL=… ./install.sh --torch cuda …"
    fi
    if [[ -n $WHEELHOUSE ]] && torch_from_here "$venv" "$log" "$pinned" --no-index; then return 0; fi
    if [[ $OFFLINE != yes && -z ${PIP_NO_INDEX:-} ]] &&
        "$venv/bin/python" "$HERE/scripts/torch_build.py" answers "$PYTORCH_CPU_INDEX/torch/"; then
        if pip_install "$venv" "$log" --no-deps --index-url "$PYTORCH_CPU_INDEX" "$pinned"; then return 0; fi
        note "PyTorch's CPU index had no $pinned for this Python; looking where pip is configured to look"
    fi
    if torch_from_here "$venv" "$log" "$pinned" --no-index; then return 0; fi
    if [[ $OFFLINE != yes ]] && pip_reads_metadata_alone "$venv" "$log" &&
        torch_from_here "$venv" "$log" "$pinned"; then
        return 0
    fi
    die "found no build of $pinned without CUDA for $("$venv/bin/python" --version) on $(uname -m)" \
        "This machine has no NVIDIA GPU, and the CUDA build would bring gigabytes that it cannot use. One of:" \
        "  - let $PYTORCH_CPU_INDEX be reached from here (a mirror of it: PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL)" \
        "  - put the CPU wheel into a folder: ./install.sh --wheelhouse FOLDER …" \
        "  - take the CUDA build all the same: ./install.sh --torch cuda …" \
        "What pip answered is in $log"
}

# torch_from_here VENV LOG REQUIREMENT [PIP_OPTION…]: installs what pip would choose, if that is a build without CUDA.
torch_from_here() {
    local venv=$1 log=$2 requirement=$3 report url
    shift 3
    report=$venv/torch-report.json
    rm -f "$report"
    run_logged "$log" "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --quiet --dry-run \
        --ignore-installed --no-deps --report "$report" -c "$HERE/constraints.txt" \
        "${PIP_SOURCES[@]}" "$@" "$requirement" || return 1
    url=$("$venv/bin/python" "$HERE/scripts/torch_build.py" without-cuda "$report") || return 1
    note "from $(basename "${url%%#*}")"
    pip_install "$venv" "$log" --no-deps "$@" "$url"
}

# Before 23.3, pip fetched a whole wheel to learn what it requires: 800 MB of CUDA build, to be refused.
pip_reads_metadata_alone() {
    local venv=$1 log=$2
    if "$venv/bin/python" -c 'import pip, sys; sys.exit([int(n) for n in pip.__version__.split(".")[:2]] < [23, 3])'; then
        return 0
    fi
    run_logged "$log" "$venv/bin/python" -m pip install --no-input --disable-pip-version-check \
        "${PIP_SOURCES[@]}" --upgrade 'pip>=24'
}
