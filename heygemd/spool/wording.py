"""Manifests and presets of the inbox, read once for each state of the file."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import HeygemdError, LimitError, UnsafePathError
from heygemd.core.manifest import Manifest, Preset, parse_manifest, parse_preset
from heygemd.spool.beneath import open_beneath
from heygemd.spool.documents import decode
from heygemd.spool.listing import Seen
from heygemd.spool.names import shown


@dataclass(frozen=True)
class Words:
    """A manifest as read: `manifest`, or `error` and what can be told of it all the same."""

    manifest: Manifest | None
    error: HeygemdError | None
    names: tuple[str, ...]  # files it names, relative to its folder, as far as they can be told


class Wording:
    """Reads manifests and presets; remembers the outcome until the file changes. Raises OSError when it cannot read."""

    def __init__(self, inbox: Path, max_bytes: int) -> None:
        self._inbox = inbox
        self._max_bytes = max_bytes
        self._manifests: dict[str, tuple[tuple[int, int, int, int], Words]] = {}
        self._presets: dict[str, tuple[tuple[int, int, int, int], Preset | HeygemdError]] = {}

    def manifest(self, seen: Seen) -> Words:
        known = self._manifests.get(seen.path)
        if known is None or known[0] != seen.signature:
            known = self._manifests[seen.path] = (seen.signature, self._read_manifest(seen))
        return known[1]

    def preset(self, seen: Seen) -> Preset | HeygemdError:
        known = self._presets.get(seen.path)
        if known is None or known[0] != seen.signature:
            known = self._presets[seen.path] = (seen.signature, self._read_preset(seen))
        return known[1]

    def forget_all_but(self, manifests: set[str], presets: set[str]) -> None:
        """Let go of files that are no longer there."""
        for path in self._manifests.keys() - manifests:
            del self._manifests[path]
        for path in self._presets.keys() - presets:
            del self._presets[path]

    def _read_manifest(self, seen: Seen) -> Words:
        names: tuple[str, ...] = ()
        try:
            tree = self._read(seen)
            names = _names_in(tree)
            manifest = parse_manifest(tree, shown(seen.path))
        except HeygemdError as error:
            return Words(None, error, names)
        return Words(manifest, None, tuple(dict.fromkeys(manifest.all_files)))

    def _read_preset(self, seen: Seen) -> Preset | HeygemdError:
        try:
            return parse_preset(self._read(seen), shown(seen.path))
        except HeygemdError as error:
            return error

    def _read(self, seen: Seen) -> Any:
        name = shown(seen.path)
        if seen.links > 1:
            raise UnsafePathError(f"{name} has another name (hard link); copy it instead", path=seen.path)
        if seen.size > self._max_bytes:
            raise LimitError(
                f"{name}: {seen.size:,} bytes, at most {self._max_bytes:,} are read",
                path=seen.path,
                case="file_too_large",
                size_bytes=seen.size,
                limit_bytes=self._max_bytes,
            )
        with open_beneath(self._inbox, seen.path) as file:
            found = os.fstat(file.fileno())
            data = file.read(self._max_bytes + 1)
        if (found.st_size, found.st_mtime_ns, found.st_ino) != (seen.size, seen.mtime_ns, seen.inode):
            raise OSError(errno.EAGAIN, "changed while it was read", name)  # the next scan tries again
        return decode(data, seen.name.rpartition(".")[2].lower(), name, self._max_bytes)


def _names_in(tree: Any) -> tuple[str, ...]:
    """The files that a broken manifest seems to name, so that they can go to failed/ with it."""
    if not isinstance(tree, dict):
        return ()
    found: list[str] = []
    for key in ("video", "videos", "audio", "audios", "consent"):
        value = tree.get(key)
        found += [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    return tuple(dict.fromkeys(found[:1000]))
