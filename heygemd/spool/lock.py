"""One daemon for each state folder; and what it has to say when it may not be able to write anything else.

The lock's file is `pid` and `notice`, a line each, padded to a size that is allocated once: it can be overwritten in
place where a full disk lets no file be made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from heygemd.core.errors import UsageError
from heygemd.files import explained

_BYTES = 2048


class Lock:
    """The lock while it is held."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._notice: str | None = None
        self._write("")

    def tell(self, notice: str | None) -> None:
        """Leave a line for `heygemd status`; None takes it away. It only informs: the log says the same."""
        if notice != self._notice:
            self._notice = notice
            with contextlib.suppress(OSError):
                self._write(notice or "")

    def _write(self, notice: str) -> None:
        line = " ".join(notice.split()).encode()[: _BYTES - 40].decode(errors="ignore")
        os.pwrite(self._fd, f"{os.getpid()}\n{line}\n".encode().ljust(_BYTES), 0)


@contextlib.contextmanager
def daemon_lock(path: Path) -> Iterator[Lock]:
    """Hold the state folder's lock. Raises UsageError that names the process which has it."""
    with explained(str(path)):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _another(path, _pid_in(fd)) from None
        with explained(str(path)):
            lock = Lock(fd)
        yield lock
        lock.tell(None)
    finally:
        os.close(fd)


def refuse_a_second(path: Path) -> None:
    """Raise UsageError where a daemon holds the lock; whatever else is wrong with it is found when it is taken."""
    pid = None
    with contextlib.suppress(OSError):
        pid = daemon_pid(path)
    if pid is not None:
        raise _another(path, pid)


def _another(path: Path, pid: int | None) -> UsageError:
    return UsageError(
        f"another heygemd (process {pid}) works with {path.parent}" if pid else f"{path} is locked",
        remedy="Stop it first, or give this one a state folder of its own (--state DIR).",
    )


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


def daemon_notice(path: Path) -> str | None:
    """Why the daemon that holds the lock starts nothing new; None where it does, or where none runs."""
    if daemon_pid(path) is None:
        return None
    lines = path.read_bytes()[:_BYTES].decode(errors="replace").splitlines()
    return (lines[1].strip() or None) if len(lines) > 1 else None


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).decode(errors="replace").partition("\n")[0].strip()
    return int(text) if text.isdecimal() else None
