"""The daemon's last log lines for the operators' page: from `log.file` where there is one, else from the journal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TAIL_BYTES = 2_000_000
_TIMEOUT_SECONDS = 5.0
LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Line:
    """`job`: name of the job it is about, or empty."""

    time: str
    level: str
    job: str
    message: str


def last_lines(log_file: str, count: int, *, job: str = "", level: str = "debug") -> list[Line] | None:
    """The newest last. `job`: only lines whose job's name holds it. None where there is no log to be read."""
    raw = _of_file(Path(log_file)) if log_file else _of_journal(count if not job else 10 * count)
    if raw is None:
        return None
    least = LEVELS.index(level)
    wanted = job.casefold()
    found = [
        line
        for line in _parsed(raw)
        if LEVELS.index(line.level) >= least and (not wanted or wanted in line.job.casefold())
    ]
    return found[-count:]


def _of_file(path: Path) -> list[str] | None:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    return lines


def _of_journal(count: int) -> list[str] | None:
    if shutil.which("journalctl") is None:
        return None
    command = ["journalctl", "-t", "heygemd", "-o", "cat", "--no-pager", "-q", "-n", str(count)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 and done.stdout else None


def _parsed(lines: Iterable[str]) -> Iterator[Line]:
    for text in lines:
        try:
            values: dict[str, Any] = json.loads(text)
        except ValueError:
            continue  # a line that was cut by the tail, or the service manager's own
        if not isinstance(values, dict):
            continue
        level = str(values.get("log.level", "info"))
        yield Line(
            str(values.get("@timestamp", "")).replace("T", " ").removesuffix("Z"),
            level if level in LEVELS else "error",
            str(values.get("heygemd.job.name") or ""),
            str(values.get("message", "")),
        )
