#!/usr/bin/env python3
"""The README's promise on a bare machine: clone, ./install.sh demo, ./install.sh test; nothing else installed before.

    python tests/system/bare_root.py                    demo, demo again, test
    python tests/system/bare_root.py dev "test -k spool" any install.sh command lines, in order, in one fresh root

Prints what they print, and the time of each. Exit code 1 at the first that fails. Tests what is committed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

import debian_root

PACKAGES = ("python3", "git", "ca-certificates")
FOLDER = "/srv/heygemd"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=["demo", "demo", "test"], help="install.sh command lines")
    parser.add_argument("--suite", default="bookworm", help="Debian release (default: bookworm)")
    parser.add_argument("--cache", type=Path, help="where the made root is kept (default: the user's cache folder)")
    parser.add_argument("--keep", action="store_true", help="leave the used root, for a look")
    parser.add_argument("--then", metavar="COMMAND", help="a shell command run in the checkout at the end")
    options = parser.parse_args(arguments)

    carried = debian_root.carried_settings()
    lines = [["./install.sh", *shlex.split(command)] for command in options.commands]
    if options.then:
        lines.append(["sh", "-c", options.then])
    times: list[tuple[str, float, int]] = []
    with debian_root.fresh_root(options.suite, PACKAGES, options.cache, keep=options.keep) as root:
        debian_root.clone_checkout(root, FOLDER)
        _tell(f"fresh root: {root}")
        for line in lines:
            _tell(f"$ {shlex.join(line)}")
            started = time.monotonic()
            code = debian_root.enter(root, line, carried=carried, folder=FOLDER).returncode
            times.append((shlex.join(line), time.monotonic() - started, code))
            if code != 0:
                break
    for line_text, seconds, code in times:
        _tell(f"{seconds:7.1f} s  exit {code}  {line_text}")
    return 0 if all(code == 0 for _, _, code in times) else 1


def _tell(text: str) -> None:
    sys.stdout.write(f"[bare root] {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
