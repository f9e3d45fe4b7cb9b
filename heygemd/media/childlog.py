"""What ffmpeg said, in a file of the job."""

from __future__ import annotations

from pathlib import Path

_LOG_BYTES_PER_CHILD = 1 << 20  # a damaged file can print gigabytes


class BoundedLog:
    """Appends lines to a file of the job until this child has had its share."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._left_bytes = _LOG_BYTES_PER_CHILD

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "replace") + b"\n"
        if self._left_bytes <= 0:
            return
        self._left_bytes -= len(data)
        if self._left_bytes <= 0:
            data = b"(the rest of this process' messages is left out)\n"
        try:
            self._file.write(data)
        except OSError:  # a full disk must not stop the reading of stderr: ffmpeg would block
            self._left_bytes = 0

    def close(self) -> None:
        self._file.close()
