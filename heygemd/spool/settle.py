"""When a file counts as complete: the same over several scans, and quiet for a time by our own clock.

A file's mtime is only compared with itself: the clock of a share may be hours off, and copying tools set old times.
Quiet time starts at the last change that we saw, so a preallocated file that is filled later stays unsettled, and a
slow copy is never taken for complete because it was discovered long ago.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from heygemd.spool.listing import Seen


@dataclass(slots=True)
class _Track:
    signature: tuple[int, int, int, int]
    changed: float
    scans: int


class Settle:
    """Remembers every file between scans. `now`: seconds of a monotonic clock."""

    def __init__(self, scans: int, seconds: float) -> None:
        self.require(scans, seconds)
        self._tracks: dict[str, _Track] = {}
        self._now = 0.0

    def require(self, scans: int, seconds: float) -> None:
        self._scans = scans
        self._seconds = seconds

    def observe(self, files: Mapping[str, Seen], unseen_folders: Collection[str], now: float) -> None:
        """Take in one scan. Files below `unseen_folders` could not be looked at: what is known of them stays."""
        self._now = now
        old = self._tracks
        new: dict[str, _Track] = {}
        for path, seen in files.items():
            track = old.get(path)
            if track is None or track.signature != seen.signature:
                new[path] = _Track(seen.signature, now, 1)
            else:
                track.scans += 1
                new[path] = track
        if unseen_folders:
            for path, track in old.items():
                if path not in new and any(path == f or path.startswith(f + "/") for f in unseen_folders):
                    new[path] = track
        self._tracks = new

    def quiet_seconds(self, path: str) -> float:
        """How long the file has not changed, as far as we saw."""
        return self._now - self._tracks[path].changed

    def settled(self, path: str) -> bool:
        track = self._tracks[path]
        return track.scans >= self._scans and self._now - track.changed >= self._seconds

    def missing_for(self, path: str) -> str:
        """What a file still lacks, in words."""
        track = self._tracks[path]
        if track.scans < self._scans:
            return f"seen {track.scans} of {self._scans} times unchanged"
        return f"unchanged for {self._now - track.changed:.0f} of {self._seconds:.0f} s"
