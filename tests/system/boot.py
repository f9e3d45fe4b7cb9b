#!/usr/bin/env python3
"""An administrator's day on a booted Debian: install, use, read the journal, stop, reload, wedge, web page, reboot,
upgrade, uninstall.

    python tests/system/boot.py            everything, in minutes; a transcript on stdout
    python tests/system/boot.py --keep     leaves the root for a look

Needs root, debootstrap and systemd-nspawn. Tests what is committed. Exit code 0: every step passed; 1: one failed, or
a tool is missing in CI; 77: containers cannot be made here (outside CI: or a tool is missing). Each step has a time
limit, and so has the whole; whatever ends it, no container, process or mount stays.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import boot_service
import boot_upgrades
import debian_root
from boot_day import FOLDER, Day
from nspawn import CannotBootError, Machine, machine_of, require_containers

PACKAGES = ("python3", "git", "ca-certificates", "systemd", "systemd-sysv", "dbus", "jq", "acl")
STEPS: tuple[Callable[[Day], str], ...] = (*boot_service.STEPS, *boot_upgrades.STEPS)
CANNOT = 77
# Many times what they take: only what hangs is ended.
TOTAL_SECONDS = 2400.0
ROOT_SECONDS = 900.0
STEP_SECONDS = 900.0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="bookworm", help="Debian release (default: bookworm)")
    parser.add_argument("--cache", type=Path, help="where the made root is kept (default: the user's cache folder)")
    parser.add_argument("--keep", action="store_true", help="leave the used root, for a look")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    started = time.monotonic()
    try:
        require_containers()
        code = _test(options, started + TOTAL_SECONDS)
    except CannotBootError as error:
        _tell(f"SKIPPED, containers cannot be made here: {error}")
        return CANNOT
    except debian_root.ToolMissingError as error:
        _tell(f"{'FAILED' if os.environ.get('CI') else 'SKIPPED'}: {error}")
        return 1 if os.environ.get("CI") else CANNOT
    except (debian_root.CannotMakeRootError, AssertionError) as error:
        _tell(f"FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("interrupted; everything is put away")
        return 130
    _tell(f"{time.monotonic() - started:.0f} s in all")
    return code


def _test(options: argparse.Namespace, ends: float) -> int:
    with ExitStack() as stack:
        started = time.monotonic()
        with _limit("making a Debian root", ROOT_SECONDS):
            root = stack.enter_context(
                debian_root.fresh_root(options.suite, PACKAGES, options.cache, keep=options.keep)
            )
            debian_root.clone_checkout(root, FOLDER)
        _tell(f"Debian {options.suite} in {root} ({time.monotonic() - started:.1f} s)")
        with _limit("booting", STEP_SECONDS):
            machine = stack.enter_context(machine_of(root, debian_root.carried_settings()))
            _tell(f"booted ({machine.start():.1f} s)")
        return _run_steps(machine, ends)


def _run_steps(machine: Machine, ends: float) -> int:
    day = Day(machine)
    for number, step in enumerate(STEPS, 1):
        name = f"{number:02} {step.__name__.replace('_', ' ')}"
        started = time.monotonic()
        try:
            with _limit(name, min(STEP_SECONDS, ends - started)):
                result = step(day)
        except (AssertionError, LookupError, ValueError, OSError, subprocess.SubprocessError) as error:
            _tell(f"FAILED {name} after {time.monotonic() - started:.0f} s: {error!r}\n{error}")
            _show_what_is_known(machine)
            _tell(f"{number - 1} passed, 1 failed, {len(STEPS) - number} not run")
            return 1
        _tell(f"ok {name} ({time.monotonic() - started:.1f} s): {result}")
    _tell(f"{len(STEPS)} passed, 0 failed")
    return 0


def _show_what_is_known(machine: Machine) -> None:
    for command in (
        "systemctl --no-pager list-units --all 'heygemd*' '*mbd*'",
        "systemctl --no-pager --failed",
        "journalctl --no-pager -u heygemd -n 60 -o cat | cut -c 1-300",
        "journalctl --no-pager -u heygemd-web -n 30 -o cat | cut -c 1-300",
        "tail -n 30 /var/log/heygemd-install.log",
        "df -h /; cat /proc/loadavg; tail -n 5 /proc/meminfo",
    ):
        try:
            with _limit(command, 60):
                said = machine.run(command, check=False).stdout
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            said = str(error)
        sys.stdout.write(f"---- {command}\n{said}\n")
    sys.stdout.write(f"---- the console\n{machine.console_tail()}\n")
    sys.stdout.flush()


@contextmanager
def _limit(what: str, seconds: float) -> Iterator[None]:
    """Raises AssertionError in the midst of what takes longer."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{what}: not over within {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _tell(text: str) -> None:
    sys.stdout.write(f"[boot test] {text}\n")
    sys.stdout.flush()


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    # Once: what follows is putting away, and it is bounded.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
