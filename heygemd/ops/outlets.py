"""What log lines are written to: streams, the journal, a file of its own."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

FILE_BYTES = 20_000_000
FILES_KEPT = 5


def write_line(stream: TextIO, text: str) -> None:
    """In UTF-8, whatever the locale says: JSON is nothing else. Raises OSError, ValueError."""
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text + "\n")
    else:
        stream.flush()
        buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    stream.flush()


class _QuietRotatingFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """A full disk must not fill stderr with tracebacks; the same line went there already."""


def open_file(path: Path) -> RotatingFileHandler:
    """A log file that begins anew at FILE_BYTES. Raises OSError."""
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _QuietRotatingFile(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def is_journal(stream: TextIO) -> bool:
    """Whether `stream` is the journal's socket: systemd tells its device and inode in $JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file at all (a test's buffer), or closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
