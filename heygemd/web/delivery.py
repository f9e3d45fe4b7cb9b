"""Bytes to browsers: one file with ranges, many as a zip that is made while it is sent. Nothing is read whole."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from heygemd.core.errors import UnsafePathError
from heygemd.spool.beneath import open_beneath
from heygemd.spool.names import fold, unique_name
from heygemd.web.refusal import Refused

_READ_BYTES = 1 << 20

# What a browser may take it for. Everything else is a download: no page or script of a stranger runs under our address.
MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".txt": "text/plain",
    ".zip": "application/zip",
}
UNKNOWN_TYPE = "application/octet-stream"


def open_held(root: Path, relative: str) -> BinaryIO:
    """A plain file below `root`, reached through no link. Raises Refused (404)."""
    try:
        return open_beneath(root, relative)
    except (FileNotFoundError, NotADirectoryError, PermissionError, UnsafePathError):
        raise Refused(404, "no_file") from None


class HeldFileResponse(FileResponse):
    """An open file, with ranges and validators: what is sent is what was checked, whatever becomes of its name."""

    def __init__(self, file: BinaryIO, name: str, *, download: bool) -> None:
        media_type = MEDIA_TYPES.get(Path(name).suffix.lower(), UNKNOWN_TYPE)
        shown = not download and media_type != UNKNOWN_TYPE
        super().__init__(
            f"/proc/self/fd/{file.fileno()}",
            stat_result=os.fstat(file.fileno()),
            filename=name,
            media_type=media_type,
            content_disposition_type="inline" if shown else "attachment",
            headers={"Cache-Control": "private, no-cache", "Content-Security-Policy": "default-src 'none'; sandbox"},
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


class _Outlet:
    """A file that zipfile writes to and cannot seek in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def zipped(files: Iterable[tuple[str, Path, str]]) -> Iterator[bytes]:
    """A zip of (name in it, folder, path below it), stored: videos do not get smaller. Files that are gone are left
    out."""
    outlet = _Outlet()
    taken: set[str] = set()
    with zipfile.ZipFile(outlet, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for name, root, relative in files:
            try:
                file = open_held(root, relative)
            except Refused:
                continue
            stem, dot, suffix = name.rpartition(".")
            member = f"{unique_name(stem or name, taken)}{dot}{suffix if stem else ''}"
            taken.add(fold(member.rpartition(".")[0] or member))
            with file:
                modified = time.localtime(os.fstat(file.fileno()).st_mtime)[:6]
                entry = zipfile.ZipInfo(member, max(modified, (1980, 1, 1, 0, 0, 0)))
                with archive.open(entry, "w", force_zip64=True) as out:
                    while chunk := file.read(_READ_BYTES):
                        out.write(chunk)
                        yield outlet.take()
            yield outlet.take()
    yield outlet.take()
