"""What must lie on a node before it can render a segment, and how it is laid out there. Files only; no Ray.

A file is known by its SHA-256. On a node it lies once below blobs/, under the name that it has here (messages and
formats speak of it), and work folders of items are made of links to blobs. An item's folder is named after all that
is in it, so the same item finds its warm renderer again and another state of it never meets old files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import NodeLostError
from heygemd.core.task import Task
from heygemd.files import copy_hashed, fsync_directory, remove_tree, sha256_of, temp_name

PREPARED = "item.json"
_STAYS = frozenset({PREPARED, "plan.json", "ffmpeg.log", "speech.wav"})
"""Files of an item's folder that rendering does not read, and item.json, which travels with its paths rewritten."""
_MEDIA = ("video_path", "checkpoint")
"""Fields of item.json that name files which rendering reads."""
_IN_USE_SECONDS = 3600.0


@dataclass(frozen=True)
class Blob:
    """One file. `role`: the field of item.json that names it, or its name in the item's folder."""

    role: str
    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Cargo:
    """Everything that a node needs for one item. `prepared`: item.json as it is here."""

    prepared: dict[str, Any]
    blobs: tuple[Blob, ...]
    sources: Mapping[str, str]  # sha256 → path on this machine

    @property
    def key(self) -> str:
        """The same for the same content."""
        text = json.dumps([self.prepared, sorted((b.role, b.sha256) for b in self.blobs)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """What the node is told."""
        return {"key": self.key, "prepared": self.prepared, "blobs": [asdict(blob) for blob in self.blobs]}


class Sums:
    """SHA-256 of files, remembered while size and time stay the same. Not thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, str]] = {}

    def of(self, path: Path) -> tuple[str, int]:
        """(sha256, size)."""
        found = path.stat()
        known = self._known.get(str(path))
        if known is not None and known[:2] == (found.st_size, found.st_mtime_ns):
            return known[2], found.st_size
        digest = sha256_of(path)
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[str(path)] = found.st_size, found.st_mtime_ns, digest
        return digest, found.st_size


def cargo_of(task: Task, sums: Sums) -> Cargo | None:
    """None for a task without a prepared item: there is nothing to bring. Raises OSError."""
    folder = Path(task.folder)
    try:
        prepared: dict[str, Any] = json.loads((folder / PREPARED).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    paths = {field: Path(prepared[field]) for field in _MEDIA if prepared.get(field)}
    paths |= {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in _STAYS and not path.name.startswith(".")
    }
    blobs, sources = [], {}
    for role, path in paths.items():
        digest, size = sums.of(path)
        blobs.append(Blob(role, path.name, digest, size))
        sources[digest] = str(path)
    return Cargo(prepared, tuple(blobs), sources)


class NodeStore:
    """The folder of one node. Its methods may run side by side: every name appears at once and whole."""

    def __init__(self, folder: Path, cache_bytes: int) -> None:
        self.folder = folder
        self._cache_bytes = cache_bytes
        for part in ("blobs", "items", "parts"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def missing(self, blobs: Sequence[Blob]) -> list[Blob]:
        """Those that are not here yet."""
        gone = []
        for blob in {blob.sha256: blob for blob in blobs}.values():
            path = self._blob(blob)
            if path.is_file() and path.stat().st_size == blob.size_bytes:
                os.utime(path.parent)
            else:
                gone.append(blob)
        return gone

    def take(self, blob: Blob, source: Path) -> None:
        """Copy a file of the share. Raises OSError, and NodeLostError where it is not what was promised."""
        part = self._part(f"{blob.sha256}-{os.urandom(4).hex()}")
        with source.open("rb") as file:
            self._keep(blob, part, copy_hashed(file, part))

    def write(self, transfer: str, offset: int, data: bytes) -> None:
        """One piece of a file that comes over Ray, in any order. `transfer`: one name for all pieces of a file."""
        fd = os.open(self._part(transfer), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def close(self, transfer: str, blob: Blob) -> None:
        """All pieces are there: check and keep. Raises NodeLostError where it is not what was promised."""
        part = self._part(transfer)
        part.touch()  # an empty file has no piece
        self._keep(blob, part, sha256_of(part))

    def unpack(self, key: str, prepared: Mapping[str, Any], blobs: Sequence[Blob]) -> str:
        """The item's work folder here, made of blobs that are here."""
        self._make_room()
        final = self.folder / "items" / key
        if not final.exists():
            temp = self.folder / "items" / f".{key}-{os.urandom(4).hex()}"
            (temp / "segments").mkdir(parents=True)
            here = dict(prepared)
            for blob in blobs:
                if blob.role in _MEDIA:
                    here[blob.role] = str(self._blob(blob))
                else:
                    (temp / blob.role).hardlink_to(self._blob(blob))
            (temp / PREPARED).write_text(json.dumps(here))
            try:
                temp.rename(final)
            except OSError:  # another task of the item was quicker
                remove_tree(temp)
                if not final.exists():
                    raise
        os.utime(final)
        return str(final)

    def where(self, role: str, blobs: Sequence[Blob]) -> str | None:
        """The path here of the file in that role; None where the item has none."""
        return next((str(self._blob(blob)) for blob in blobs if blob.role == role), None)

    def part_named(self, name: str) -> Path:
        """Where a finished segment waits to be fetched. Raises ValueError for a name that leads elsewhere."""
        return self._part(name)

    def remove(self) -> None:
        remove_tree(self.folder)

    def _keep(self, blob: Blob, part: Path, digest: str) -> None:
        if digest != blob.sha256:
            part.unlink()
            raise NodeLostError(f"{blob.name} arrived damaged: its SHA-256 is {digest}, not {blob.sha256}")
        target = self._blob(blob)
        target.parent.mkdir(exist_ok=True)
        part.replace(target)
        fsync_directory(target.parent)

    def _blob(self, blob: Blob) -> Path:
        if not blob.name or Path(blob.name).name != blob.name:
            raise ValueError(f"{blob.name!r} is no file name")
        return self.folder / "blobs" / blob.sha256 / blob.name

    def _part(self, name: str) -> Path:
        if not name or Path(name).name != name or name.startswith("."):
            raise ValueError(f"{name!r} is no file name")
        return self.folder / "parts" / name

    def _make_room(self) -> None:
        """Let the oldest items and blobs go where all are larger than allowed; what may be in use stays."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for used_seconds, size, path in entries:
            if total <= self._cache_bytes or time.time() - used_seconds < _IN_USE_SECONDS:
                return
            shutil.rmtree(path, ignore_errors=True)
            total -= size

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        for kind in ("items", "blobs"):
            for path in (self.folder / kind).iterdir():
                # Links count for nothing: their blob does. Segments leave an item's folder at once.
                size = sum(file.stat().st_size for file in path.iterdir()) if kind == "blobs" else 0
                yield path.stat().st_mtime, size, path


def receive(temp_beside: Path, digest: str, wanted: str) -> None:
    """Compare what has arrived here. Raises NodeLostError, and removes the file."""
    if digest != wanted:
        temp_beside.unlink(missing_ok=True)
        raise NodeLostError(f"a segment arrived damaged: its SHA-256 is {digest}, not {wanted}")


def temp_for(target: Path) -> Path:
    """A hidden name beside `target`, whose folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return temp_name(target)
