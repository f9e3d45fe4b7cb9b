"""Fetching a known file: resumed where it broke off, bounded by the size it must have, believed only by its hash."""

from __future__ import annotations

import contextlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from heygemd.core.errors import CheckpointError, TryLaterError
from heygemd.files import explained, publish_file, sha256_of
from heygemd.work.checkpoints import KnownFile, Progress

CHUNK_BYTES = 1 << 18
MAX_BYTES = 8 << 30
TIMEOUT_SECONDS = 30.0
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _BrokeOffError(Exception):
    """The connection ended early; what came is kept."""


def fetch(
    entry: KnownFile,
    folder: Path,
    *,
    accept_licence: Callable[[KnownFile], bool],
    url: str | None = None,
    progress: Progress | None = None,
    attempts: int = 5,
    pause_seconds: float = 2.0,
) -> Path:
    """Download `entry` into `folder` and return its path. An intact copy that is there already is not fetched again.

    `accept_licence` is asked once, before the first byte. A part of an earlier attempt is continued. Raises
    CheckpointError when there is no address, the licence is refused, or the server sends something else; TryLaterError
    when the connection breaks off `attempts` times (the part stays).
    """
    address = url or entry.url
    target = folder / entry.name
    if target.is_file() and sha256_of(target) == entry.sha256:
        return target
    if target.exists():
        raise CheckpointError(
            f"{target} exists and is not {entry.name}", remedy="Remove or rename it, then fetch again."
        )
    if not address:
        raise CheckpointError(
            f"{entry.name} has no address that heygemd could fetch it from",
            remedy=f"{entry.source} Then: heygemd checkpoints import FILE, or fetch --url ADDRESS.",
        )
    if urlsplit(address).scheme not in ("http", "https"):
        raise CheckpointError(f"{address} is not an http or https address", remedy="Give --url https://…")
    if not accept_licence(entry):
        raise CheckpointError(f"the licence of {entry.name} was not accepted", remedy="Nothing was downloaded.")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{entry.name}.part"
    with explained(str(folder)):
        _fill(address, entry, part, progress, attempts, pause_seconds)
        publish_file(part, target)
    return target


def _fill(
    address: str, entry: KnownFile, part: Path, progress: Progress | None, attempts: int, pause_seconds: float
) -> None:
    """Until `part` is complete and its hash is right. A wrong hash after a resume may be the old part's fault."""
    for number in range(2):
        resumed = part.exists()
        _transfer(address, entry, part, progress, attempts, pause_seconds)
        if sha256_of(part) == entry.sha256:
            return
        size = part.stat().st_size
        part.unlink()
        if not resumed or number:
            raise CheckpointError(f"{address} sent {size} bytes that are not {entry.name}: the sha256 differs")


def _transfer(
    address: str, entry: KnownFile, part: Path, progress: Progress | None, attempts: int, pause_seconds: float
) -> None:
    why = ""
    for number in range(attempts):
        if number:
            time.sleep(pause_seconds)
        try:
            _request(address, entry, part, progress)
        except _BrokeOffError as error:
            why = str(error)
        else:
            return
    done = part.stat().st_size if part.exists() else 0
    raise TryLaterError(
        f"the download of {entry.name} broke off {attempts} times, {done} bytes are here: {why}",
        remedy="Run the same command again: it goes on where it stopped.",
    )


def _request(address: str, entry: KnownFile, part: Path, progress: Progress | None) -> None:
    """One connection: append what the server sends. Raises CheckpointError, _BrokeOffError."""
    have = part.stat().st_size if part.exists() else 0
    if have and have == entry.num_bytes:
        return
    headers = {"User-Agent": "heygemd", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 (http and https only, checked by fetch)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 (as above)
            _receive(answer, have, entry, part, progress)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            if error.code == 416 and have:  # nothing after what is here: complete, or another file's part
                if entry.num_bytes is None:
                    return
                part.unlink()
                raise _BrokeOffError("the server has fewer bytes than are here; starting again") from error
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _BrokeOffError(f"the server answers {error.code} {error.reason}") from error
            raise CheckpointError(f"{address} answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _BrokeOffError(str(getattr(error, "reason", None) or error or type(error).__name__)) from error


def _receive(
    answer: http.client.HTTPResponse, have: int, entry: KnownFile, part: Path, progress: Progress | None
) -> None:
    kind = answer.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise CheckpointError(
            f"{answer.url} is a web page, not {entry.name}",
            remedy=f"Download it with a browser, then: heygemd checkpoints import FILE. {entry.source}",
        )
    start, total = _extent(answer, have)
    wanted = entry.num_bytes
    if wanted is not None and total is not None and total != wanted:
        raise CheckpointError(f"{answer.url} has {total} bytes; {entry.name} has {wanted}: it is another file")
    limit = wanted if wanted is not None else (total or MAX_BYTES)
    done = start
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        while chunk := answer.read(min(CHUNK_BYTES, limit - done + 1)):
            if not done and chunk.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
                raise CheckpointError(f"{answer.url} is a web page, not {entry.name}")
            done += len(chunk)
            if done > limit:
                raise CheckpointError(f"{answer.url} sends more than the {limit} bytes of {entry.name}")
            file.write(chunk)
            if progress is not None:
                progress(done, wanted or total)
    expected = wanted if wanted is not None else total
    if expected is not None and done < expected:
        raise _BrokeOffError(f"the connection ended at {done} of {expected} bytes")


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the sent bytes begin, and how long the whole file is as the server says it."""
    length = answer.headers.get("Content-Length", "")
    if answer.status != 206:
        return 0, int(length) if length.isdigit() else None
    match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise CheckpointError(f"{answer.url} sent another part of the file than was asked for")
    return have, int(match[2]) if match[2].isdigit() else None
