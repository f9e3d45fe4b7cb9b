"""What decoding gives: frames of raw planes, and the table of a clip's frames that pass 2 needs."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import UnreadableMediaError
from heygemd.media.rate import intervals_regular, timestamps_meaningless

_LONGEST_GAP_SECONDS = 10  # a longer one is a jump of the clock, and would make hours of one picture
_SUBSAMPLING = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}


@dataclass(frozen=True)
class PlaneLayout:
    """How a working pixel format lies in memory: planes Y, U, V one after the other, rows without padding."""

    shapes: tuple[tuple[int, int], ...]
    sample_bytes: int

    @staticmethod
    def of(pix_fmt: str, width: int, height: int) -> PlaneLayout:
        """For `yuv420p`, `yuv422p10le` and the like. Raises ValueError for another format."""
        try:
            horizontal, vertical = _SUBSAMPLING[pix_fmt.removeprefix("yuvj").removeprefix("yuv")[:3]]
        except KeyError:
            raise ValueError(f"{pix_fmt} is not a planar YUV working format") from None
        chroma = (-(-height // vertical), -(-width // horizontal))
        return PlaneLayout(((height, width), chroma, chroma), 2 if pix_fmt.endswith("le") else 1)

    @property
    def frame_bytes(self) -> int:
        return sum(height * width for height, width in self.shapes) * self.sample_bytes

    def planes(self, buffer: NDArray[np.uint8]) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], ...]:
        """Views of the planes in `buffer` (frame_bytes,): uint8, or uint16 beyond 8 bit."""
        views: list[NDArray[np.uint8] | NDArray[np.uint16]] = []
        start = 0
        for height, width in self.shapes:
            stop = start + height * width * self.sample_bytes
            part = buffer[start:stop]
            views.append((part if self.sample_bytes == 1 else part.view("<u2")).reshape(height, width))
            start = stop
        return tuple(views)


@dataclass(frozen=True)
class Frame:
    """One decoded picture in the working format. `buffer`: (frame_bytes,) uint8; `planes` are writable views of it.

    Nobody else holds the buffer: writing into it changes no other frame.
    """

    source_index: int
    buffer: NDArray[np.uint8]
    planes: tuple[NDArray[np.uint8] | NDArray[np.uint16], ...]

    @staticmethod
    def over(buffer: NDArray[np.uint8], layout: PlaneLayout, source_index: int) -> Frame:
        return Frame(source_index, buffer, layout.planes(buffer))

    def copy(self, layout: PlaneLayout) -> Frame:
        return Frame.over(self.buffer.copy(), layout, self.source_index)


@dataclass(frozen=True)
class FrameTable:
    """Every decoded frame of a clip, in order of display, as pass 1 saw it.

    `pts`: (n,) int64, strictly increasing, in units of `time_base`. `key`: (n,) bool. `checksum`: (n,) uint32, Adler-32
    of the decoded picture, by which pass 2 knows that it reads the same frame again after a seek.
    `exact_pts`: the file's own timestamps were complete and increasing; else they were repaired and seeking is
    impossible. `num_errors`: complaints of the decoder (a damaged file).
    """

    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    checksum: NDArray[np.uint32]
    time_base: Fraction
    exact_pts: bool = True
    num_errors: int = 0

    def __len__(self) -> int:
        return len(self.pts)

    @cached_property
    def regular(self) -> bool:
        """Whether the frames are evenly spaced."""
        return intervals_regular(self.pts, self.time_base)

    @property
    def start_seconds(self) -> float:
        """Absolute time of the first frame on the container's clock."""
        return float(self.pts[0] * self.time_base)

    def constant_rate(self, fps: Fraction) -> NDArray[np.int64]:
        """Source index for each frame of the clip at the constant rate `fps`.

        A frame covers the slot nearest to its time until the next one comes: gaps repeat, crowds drop. Evenly spaced
        sources give 0..n-1 as long as `fps` is their rate. No gap lasts longer than ten seconds.
        """
        count = len(self.pts)
        if count < 2 or timestamps_meaningless(self.pts, self.time_base):
            return np.arange(count, dtype=np.int64)
        steps = np.minimum(np.diff(self.pts), int(_LONGEST_GAP_SECONDS / self.time_base))
        times = [0, *np.cumsum(steps).tolist()]
        if self.regular and abs(times[-1] * self.time_base * fps - (count - 1)) < Fraction(1, 2):
            return np.arange(count, dtype=np.int64)
        # exact: slot = floor(time * time_base * fps + 1/2), in Python integers
        step = self.time_base * fps
        slots = np.array([(2 * t * step.numerator + step.denominator) // (2 * step.denominator) for t in times])
        return np.searchsorted(slots, np.arange(int(slots[-1]) + 1), side="right").astype(np.int64) - 1

    def save(self, path: Path) -> None:
        """Write as .npz without pickle; the caller renames when it must be durable."""
        with path.open("wb") as file:
            np.savez(
                file,
                pts=self.pts,
                key=self.key,
                checksum=self.checksum,
                time_base=np.array([self.time_base.numerator, self.time_base.denominator], dtype=np.int64),
                exact_pts=np.array(self.exact_pts),
                num_errors=np.array(self.num_errors, dtype=np.int64),
            )

    @staticmethod
    def load(path: Path) -> FrameTable:
        """Raises UnreadableMediaError when it is not a table that `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as data:
                return FrameTable(
                    pts=data["pts"],
                    key=data["key"],
                    checksum=data["checksum"],
                    time_base=Fraction(*(int(part) for part in data["time_base"])),
                    exact_pts=bool(data["exact_pts"]),
                    num_errors=int(data["num_errors"]),
                )
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UnreadableMediaError(f"{path.name}: not a frame table ({error})", path=str(path)) from error


def working_layout(video: VideoInfo) -> PlaneLayout:
    return PlaneLayout.of(video.pix_fmt, video.width, video.height)
