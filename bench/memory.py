"""Peak memory of a command and everything it starts: `python bench/memory.py -- heygemd run VIDEO AUDIO -o OUT.mp4`.

Samples the proportional set size (PSS: shared pages are counted once) of the whole process tree; prints the peak, what
it consisted of, and the time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

EVERY_SECONDS = 0.25


def tree(root: int) -> list[int]:
    """Pids of `root` and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, todo = [root], [root]
    while todo:
        parent = todo.pop()
        below = [pid for pid, above in parents.items() if above == parent]
        found += below
        todo += below
    return found


def pss_bytes(pid: int) -> tuple[int, str]:
    """Proportional set size and the name of a process; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return 0, ""
    name = b" ".join(words[:3]).decode(errors="replace")[-60:]
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0), name


def main() -> int:
    command = sys.argv[sys.argv.index("--") + 1 :]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak, peak_parts, samples = 0, {}, 0
    while process.poll() is None:
        parts = dict(sorted(((name, size) for size, name in map(pss_bytes, tree(process.pid))), key=lambda p: -p[1]))
        total = sum(parts.values())
        samples += 1
        if total > peak:
            peak, peak_parts = total, parts
        time.sleep(EVERY_SECONDS)
    print(
        json.dumps(
            {
                "command": command,
                "exit_code": process.returncode,
                "seconds": round(time.monotonic() - started, 1),
                "samples": samples,
                "peak_mib": round(peak / 2**20),
                "parts_mib": {name: round(size / 2**20) for name, size in peak_parts.items()},
            },
            indent=2,
        )
    )
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
