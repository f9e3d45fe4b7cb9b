#!/usr/bin/env bash
# heygemd from a bare Debian or Ubuntu to a running program. Read docs/install.md, or: ./install.sh --help
set -euo pipefail
umask 022

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/say.sh
source "$HERE/scripts/lib/say.sh"
# shellcheck source=scripts/lib/system.sh
source "$HERE/scripts/lib/system.sh"
# shellcheck source=scripts/lib/python.sh
source "$HERE/scripts/lib/python.sh"
# shellcheck source=scripts/lib/samba.sh
source "$HERE/scripts/lib/samba.sh"
# shellcheck source=scripts/lib/release.sh
source "$HERE/scripts/lib/release.sh"
# shellcheck source=scripts/lib/service.sh
source "$HERE/scripts/lib/service.sh"

readonly VENV=$HERE/.venv

usage() {
    cat <<'TEXT'
Usage: ./install.sh [OPTIONS] [COMMAND [ARGUMENTS]]

  demo [ARGUMENTS]   set everything up, then render a sample made on the spot (arguments go to `heygemd demo`)
  test [ARGUMENTS]   set everything up, then run the tests (arguments go to pytest)
  dev                set up .venv for work on the code
  install            as root: install or upgrade the systemd service (what root gets without a command)
  uninstall          as root: remove the service; users' files, configuration and state stay

Options:
  --wheelhouse DIR   also take packages from the wheels in DIR
  --offline          take packages from the wheelhouse and pip's find-links only, never from an index
  --torch BUILD      auto (the default: cuda with an NVIDIA GPU, else cpu), cpu or cuda
  --all              test: first the checks that CI runs too (ruff, mypy, import rules)
  --root DIR         install: the share (default: /srv/heygemd)
  --share-group GRP  install: the group whose members use the share (default: heygemd)
  --with-web         install: what the web page needs (remembered for upgrades); then enable heygemd-web
  --with-samba       install: a ready Samba share [heygemd] for that group (remembered for upgrades)
  --dry-run          say what would be done, do nothing
  -h, --help         this text

Root installs missing system packages with apt-get; anyone else is told what to install.
Everything can be run again: what is in place stays as it is.
TEXT
}

needs_value() {
    if (($# < 2)); then usage_error "$1 needs a value"; fi
}

parse_arguments() {
    COMMAND='' WHEELHOUSE='' OFFLINE=no TORCH=auto DRY_RUN=no ALL_CHECKS=no ROOT='' SHARE_GROUP=''
    WITH_SAMBA=no WITH_WEB=no
    PASSED=()
    while (($# > 0)); do
        case $1 in
        --wheelhouse)
            needs_value "$@"
            WHEELHOUSE=$2
            shift
            ;;
        --wheelhouse=*) WHEELHOUSE=${1#*=} ;;
        --offline) OFFLINE=yes ;;
        --torch)
            needs_value "$@"
            TORCH=$2
            shift
            ;;
        --torch=*) TORCH=${1#*=} ;;
        --root | --share-group)
            # demo and test have options of their own by these names.
            case $COMMAND in
            '' | install | service)
                needs_value "$@"
                if [[ $1 == --root ]]; then ROOT=$2; else SHARE_GROUP=$2; fi
                shift
                ;;
            *) PASSED+=("$1") ;;
            esac
            ;;
        --with-samba | --with-web)
            case $COMMAND in
            '' | install | service) if [[ $1 == --with-web ]]; then WITH_WEB=yes; else WITH_SAMBA=yes; fi ;;
            *) PASSED+=("$1") ;;
            esac
            ;;
        --dry-run) DRY_RUN=yes ;;
        --all) ALL_CHECKS=yes ;;
        --)
            shift
            PASSED+=("$@")
            break
            ;;
        -h | --help)
            if [[ -n $COMMAND ]]; then PASSED+=("$1"); else
                usage
                exit 0
            fi
            ;;
        *)
            if [[ -n $COMMAND ]]; then
                PASSED+=("$1")
            elif [[ $1 == -* ]]; then
                usage_error "no such option: $1"
            else
                COMMAND=$1
            fi
            ;;
        esac
        shift
    done
    case $TORCH in auto | cpu | cuda) ;; *) usage_error "--torch $TORCH: not auto, cpu or cuda" ;; esac
}

# set_up EXTRAS: system packages and the environment in the checkout, one installation at a time.
set_up() {
    local log=$VENV/install.log
    choose_python
    use_wheelhouse
    if [[ $DRY_RUN == yes ]]; then
        ensure_system_packages "$PYTHON" /dev/null
        ensure_environment "$VENV" "$1" /dev/null
        return 0
    fi
    exec {lock}<"$HERE"
    flock --nonblock "$lock" || {
        say "Another installation in this folder is running; waiting for it"
        flock "$lock"
    }
    mkdir -p "$VENV"
    : >"$log"
    ensure_system_packages "$PYTHON" "$log"
    ensure_environment "$VENV" "$1" "$log"
    exec {lock}<&-
}

run_checks() {
    local failed=()
    cd "$HERE"
    "$VENV/bin/ruff" check || failed+=("ruff check")
    "$VENV/bin/ruff" format --check || failed+=("ruff format")
    "$VENV/bin/mypy" || failed+=("mypy")
    "$VENV/bin/lint-imports" --config .importlinter || failed+=("lint-imports")
    if ((${#failed[@]} > 0)); then
        warn "failed: ${failed[*]} (the tests run all the same; the exit code will tell)"
        return 1
    fi
}

run_tests() {
    local workers rc checks_rc=0 tests_rc=0 boot_rc=0
    if [[ $ALL_CHECKS == yes || -n ${CI:-} ]]; then run_checks || checks_rc=$?; fi
    # A worker holds torch (half a gigabyte) and wants a core for itself: no more than four, one thread each.
    workers=$(nproc)
    if ((workers > 4)); then workers=4; fi
    cd "$HERE"
    # loadfile: a module's tests share the media that they make.
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$VENV/bin/python" -m pytest -n "$workers" --dist loadfile "$@" || tests_rc=$?
    # The whole suite in CI: what boots a machine of its own comes last and alone, with both cores.
    if [[ -n ${CI:-} && $# -eq 0 ]]; then run_boot_test || boot_rc=$?; fi
    for rc in "$tests_rc" "$checks_rc" "$boot_rc"; do
        if ((rc != 0)); then return "$rc"; fi
    done
}

# tests/system/boot.py, its transcript on stdout. HEYGEMD_TEST_BOOT=0 leaves it out, and says so.
run_boot_test() {
    local rc=0
    if [[ ${HEYGEMD_TEST_BOOT:-} == 0 ]]; then
        warn "THE BOOT TEST WAS NOT RUN: HEYGEMD_TEST_BOOT=0"
        return 0
    fi
    say "The boot test: an administrator's day on a booted Debian (some minutes)"
    "$VENV/bin/python" -u tests/system/boot.py || rc=$?
    if ((rc == 77)); then
        warn "THE BOOT TEST WAS NOT RUN: containers cannot be made here (its reason stands above)"
        return 0
    fi
    return "$rc"
}

main() {
    parse_arguments "$@"
    if [[ -z $COMMAND ]]; then
        if ((EUID != 0)) && [[ $DRY_RUN == no ]]; then
            usage_error "which command? (without one, root installs the service)"
        fi
        COMMAND=install
    fi
    case $COMMAND in
    demo | test) ;;
    *) if ((${#PASSED[@]} > 0)); then usage_error "$COMMAND takes no arguments: ${PASSED[*]}"; fi ;;
    esac
    case $COMMAND in
    demo)
        set_up ""
        if [[ $DRY_RUN == no ]]; then cd "$HERE" && exec "$VENV/bin/heygemd" demo "${PASSED[@]}"; fi
        ;;
    test)
        set_up dev
        if [[ $DRY_RUN == no ]]; then
            ensure_test_tools "$VENV/install.log"
            run_tests "${PASSED[@]}"
        fi
        ;;
    dev)
        set_up dev
        if [[ $DRY_RUN == no ]]; then say "Ready: $VENV/bin/heygemd --help, or first: . .venv/bin/activate"; fi
        ;;
    install | service) install_service ;;
    uninstall) uninstall_service ;;
    *) usage_error "no such command: $COMMAND" ;;
    esac
}

main "$@"
