"""One daemon for each state folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from heygemd.core.errors import UsageError
from heygemd.files import explained


@contextlib.contextmanager
def daemon_lock(path: Path) -> Iterator[None]:
    """Hold the state folder's lock. Raises UsageError that names the process which has it."""
    with explained(str(path)):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _pid_in(fd)
            raise UsageError(
                f"another heygemd (process {pid}) works with {path.parent}" if pid else f"{path} is locked",
                remedy="Stop it first, or give this one a state folder of its own (--state DIR).",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def daemon_pid(path: Path) -> int | None:
    """The process that holds the lock, or None when no daemon runs with this state folder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(fd)
    finally:
        os.close(fd)
    return None


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
