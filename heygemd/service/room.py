"""Room for a job's work files: what it will need, whether it can ever have it, whether there is as much now."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.errors import DiskFullError, LimitError
from heygemd.work.item import Prepared

_BYTES_PER_PIXEL = 0.03
"""Of an encoded frame at CRF 16, generous: talking heads took 0.01 to 0.02 from 480p to 4K."""
_LOSSLESS_BYTES_PER_PIXEL = 0.6
_SOUND_BYTES_PER_SECOND = 200_000
_COPIES = 2
"""The segments, and the video that they are joined to."""


@dataclass(frozen=True)
class WorkRoom:
    """The work folder and what may lie there. `quota_bytes`: 0 = as much as the disk holds above `reserve_bytes`."""

    work: Path
    quota_bytes: int = 0
    reserve_bytes: int = 0

    def require(self, what: str, needed_bytes: int) -> None:
        """Raises LimitError where it could never fit, DiskFullError where it does not fit now."""
        found = os.statvfs(self.work)
        most = found.f_blocks * found.f_frsize - self.reserve_bytes
        if self.quota_bytes:
            most = min(most, self.quota_bytes)
        if needed_bytes > most:
            raise LimitError(
                f"{what}: needs about {needed_bytes:,} bytes of work space, there are {most:,} in all",
                remedy="Shorten the input, set `resolution_limit`, or give the daemon a larger state disk.",
                case="work_room",
                needed_bytes=needed_bytes,
                offered_bytes=most,
            )
        free = found.f_bavail * found.f_frsize - self.reserve_bytes
        if needed_bytes > free:
            raise DiskFullError(
                f"{what}: needs about {needed_bytes:,} bytes in {self.work}, {max(0, free):,} are free",
                case="no_room",
                needed_bytes=needed_bytes,
                free_bytes=max(0, free),
            )
        if self.quota_bytes and needed_bytes + (used := used_bytes(self.work)) > self.quota_bytes:
            raise DiskFullError(
                f"{what}: needs about {needed_bytes:,} bytes in {self.work}; {used:,} of the "
                f"{self.quota_bytes:,} of service.max_work_bytes are used",
                case="no_room",
                needed_bytes=needed_bytes,
                free_bytes=max(0, self.quota_bytes - used),
            )


def render_bytes(prepared: Prepared) -> int:
    """What the segments and the result of an item will take, about; rather too much than too little."""
    video = prepared.video
    each = _LOSSLESS_BYTES_PER_PIXEL if prepared.options.lossless else _BYTES_PER_PIXEL
    picture = int(prepared.num_frames * video.width * video.height * each)
    return _COPIES * picture + int(prepared.speech_seconds * _SOUND_BYTES_PER_SECOND)


def used_bytes(folder: Path) -> int:
    """What all files below `folder` take on the disk. Files that vanish meanwhile do not count."""
    total = 0
    todo = [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        todo.append(Path(entry.path))
        except FileNotFoundError:
            continue
    return total
