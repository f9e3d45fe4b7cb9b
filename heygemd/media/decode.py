"""Decodes a clip twice: small and fast for the analysis, then exactly, any range of frames, in the working format.

What is read in pass 2 is checked frame by frame against pass 1 (timestamp and checksum of the decoded picture), so
a container that seeks badly costs time but never gives a wrong frame.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.coding import Card
from heygemd.core.errors import FfmpegError, HeygemdError, LimitError, UnreadableMediaError
from heygemd.media.frames import Frame, FrameTable, working_layout
from heygemd.media.inputs import MediaLimits
from heygemd.media.pixels import before_filters, raw_format, working_filters
from heygemd.media.rawstream import FrameLine, RawStream, raw_command

_CHUNK_BYTES = 128 << 20
_LARGEST_SKIP_FRAMES = 250  # beyond it, opening the file anew is cheaper than decoding on


@dataclass(frozen=True)
class AnalysisImage:
    """One source frame for pass 1. `pts` is in the table's time base, or None where the file says nothing.

    `image`: (h, w, 3) uint8 BGR; its coordinates times `scale` are working pixels.
    """

    index: int
    pts: int | None
    image: NDArray[np.uint8]
    scale: float


class AnalysisFrames:
    """Pass 1: iterate once over all frames of the clip, small, in order; then `table` is there.

    Missing or non-increasing timestamps are repaired: such a frame gets the previous one's plus the usual step.
    """

    def __init__(
        self,
        path: Path,
        video: VideoInfo,
        *,
        longest_side: int = 1280,
        log: Path | None = None,
        limits: MediaLimits | None = None,
    ) -> None:
        self._path = path
        self._video = video
        self._log = log
        self._limits = limits or MediaLimits()
        factor = min(1.0, longest_side / max(video.width, video.height))
        self.width = max(2, round(video.width * factor))
        self.height = max(2, round(video.height * factor))
        self.scale = max(video.width / self.width, video.height / self.height)
        self._table: FrameTable | None = None

    @property
    def table(self) -> FrameTable:
        """The frames seen. Raises RuntimeError before the iteration has ended."""
        if self._table is None:
            raise RuntimeError("the frame table is known only after all frames were read")
        return self._table

    def __iter__(self) -> Iterator[AnalysisImage]:
        video, name = self._video, self._path.name
        filters = [
            *before_filters(video),
            "showinfo",
            f"scale=w={self.width}:h={self.height}:flags=area+bitexact",
            "format=bgr24",
        ]
        max_frames = 1 if video.still else None
        argv = raw_command(self._path, video, filters, "bgr24", self._limits, max_frames=max_frames)
        stream = RawStream(argv, self.width * self.height * 3, name, self._log, self._limits)
        most_frames = int(self._limits.max_seconds * 1.05 * max(float(video.fps), 30.0)) + 250
        lines: list[FrameLine] = []
        with stream.child as child:
            while (got := stream.next()) is not None:
                buffer, line = got
                if len(lines) >= most_frames:
                    raise LimitError(
                        f"{name}: more than {most_frames} frames, the limit for {self._limits.max_seconds:.0f} s",
                        path=str(self._path),
                        case="longer",
                        limit_seconds=self._limits.max_seconds,
                    )
                image = buffer.reshape(self.height, self.width, 3)
                lines.append(line)
                yield AnalysisImage(len(lines) - 1, line.pts, image, self.scale)
            status = child.wait(self._limits.stall_seconds)
            if not lines:
                raise child.failure(f"{name}: no frame can be decoded", UnreadableMediaError, self._path)
            if status < 0:
                raise child.failure(f"{name}: ffmpeg was killed by signal {-status}", FfmpegError, self._path)
            self._table = _table(lines, video, child.num_errors + (status != 0))


def analysis_frames(
    path: Path,
    video: VideoInfo,
    *,
    longest_side: int = 1280,
    log: Path | None = None,
    limits: MediaLimits | None = None,
) -> AnalysisFrames:
    """Pass 1 over `path`. Raises (while iterating) UnreadableMediaError, LimitError, FfmpegError."""
    return AnalysisFrames(path, video, longest_side=longest_side, log=log, limits=limits)


def _table(lines: list[FrameLine], video: VideoInfo, num_errors: int) -> FrameTable:
    known = [line.pts for line in lines]
    present = [pts for pts in known if pts is not None]
    steps = np.diff(np.array(present, dtype=np.int64))
    steps = steps[steps > 0]
    usual = int(np.median(steps)) if len(steps) else max(1, round(1 / (video.fps * video.time_base)))
    exact = len(present) == len(known)
    pts: list[int] = []
    for value in known:
        if value is None or (pts and value <= pts[-1]):
            exact = False
            value = pts[-1] + usual if pts else 0
        pts.append(value)
    return FrameTable(
        pts=np.array(pts, dtype=np.int64),
        key=np.array([line.key for line in lines], dtype=np.bool_),
        checksum=np.array([line.checksum for line in lines], dtype=np.uint32),
        time_base=video.time_base,
        exact_pts=exact,
        num_errors=num_errors,
    )


class FrameReader:
    """Pass 2: any frames of the clip by source index, in the working format. Not thread-safe; holds nothing open
    between calls.

    `video` is the (possibly scaled) working picture, `table` what pass 1 saw of the same file. `card`: whose decoder to
    use, as long as what it gives is bit for bit what pass 1 saw; from the first frame that is not, software decodes.
    """

    def __init__(
        self,
        path: Path,
        video: VideoInfo,
        table: FrameTable,
        *,
        chunk_bytes: int = _CHUNK_BYTES,
        log: Path | None = None,
        limits: MediaLimits | None = None,
        card: Card | None = None,
    ) -> None:
        self._path = path
        self._video = video
        self._table = table
        self._log = log
        self._limits = limits or MediaLimits()
        self._keys = np.flatnonzero(table.key)
        self._way = 0
        # One decoder thread then: with several, what is made of broken data depends on the weather.
        self._damaged = table.num_errors > 0
        self._card = None if self._damaged else card
        self.layout = working_layout(video)
        self._chunk_frames = max(1, chunk_bytes // self.layout.frame_bytes)

    @property
    def on_card(self) -> bool:
        """Whether the card's decoder is in use, and has not failed yet."""
        return self._card is not None

    def read(self, first: int, stop: int) -> Generator[Frame, None, None]:
        """Source frames first..stop-1. Raises UnreadableMediaError when the file no longer gives what pass 1 saw."""
        if not 0 <= first <= stop <= len(self._table):
            raise ValueError(f"frames {first}..{stop} of {len(self._table)}")
        position, way = first, self._way
        while position < stop:
            begun_at = position
            ways = self._ways(position)
            way = min(way, len(ways) - 1)
            last = way == len(ways) - 1
            with closing(self._attempt(ways[way], position, stop, last=last)) as frames:
                for frame in frames:
                    position += 1
                    yield frame
            if position < stop and self._card is not None:
                self._card = None
                continue
            if position < stop and last:
                raise self._lost(position)
            if position > begun_at and self._damaged:
                way = 0
            elif position < stop:
                way += 1
                if not self._damaged:  # this file seeks badly; later calls start with what is left
                    self._way = way

    def sequence(self, source_indices: Sequence[int] | NDArray[np.int64]) -> Iterator[Frame]:
        """One frame for each index, in the order given; every frame may be written to.

        Forward runs are streamed. Backward runs are decoded forward in chunks of at most `chunk_bytes` and given out
        in reverse. Repeats are copies.
        """
        indices = np.asarray(source_indices, dtype=np.int64)
        for run in _runs(indices):
            if run[-1] >= run[0]:
                yield from self._forward(run)
            else:
                yield from self._backward(run)

    def _forward(self, run: NDArray[np.int64]) -> Iterator[Frame]:
        wanted, counts = np.unique(run, return_counts=True)
        with closing(self.read(int(wanted[0]), int(wanted[-1]) + 1)) as frames:
            for index, count in zip(wanted.tolist(), counts.tolist(), strict=True):
                frame = next(frame for frame in frames if frame.source_index == index)
                for _ in range(count - 1):
                    yield frame.copy(self.layout)
                yield frame

    def _backward(self, run: NDArray[np.int64]) -> Iterator[Frame]:
        wanted, counts = np.unique(run, return_counts=True)
        repeats = dict(zip(wanted.tolist(), counts.tolist(), strict=True))
        stop = int(wanted[-1]) + 1
        while stop > int(wanted[0]):
            first = max(int(wanted[0]), stop - self._chunk_frames)
            kept = [frame for frame in self.read(first, stop) if frame.source_index in repeats]
            while kept:
                frame = kept.pop()
                for _ in range(repeats[frame.source_index] - 1):
                    yield frame.copy(self.layout)
                yield frame
            stop = first

    def _ways(self, position: int) -> list[int]:
        """Frames to start decoding at, most hopeful first; 0 is the start of the file and always the last."""
        if not self._table.exact_pts:
            return [0]
        # The deinterlacer looks one frame back, so it must have seen the frame before.
        keys = self._keys[self._keys <= position - (2 if self._video.interlaced else 0)]
        return [*(int(key) for key in keys[::-1][:2] if key > 0 and self._table.pts[key] > 0), 0]

    def _attempt(self, start: int, position: int, stop: int, *, last: bool) -> Generator[Frame, None, None]:
        """Frames position..stop-1, decoding from frame `start`; ends early at the first one that is not pass 1's."""
        table, video = self._table, self._video
        lenient = last and self._damaged
        filters = before_filters(video)
        skip = position
        if table.exact_pts and not video.still and not lenient:
            filters.append(f"select=between(pts\\,{table.pts[position]}\\,{table.pts[stop - 1]})")
            skip = 0
        argv = raw_command(
            self._path,
            video,
            [*filters, "showinfo", *working_filters(video)],
            raw_format(video),
            self._limits,
            seek_seconds=int(table.pts[start]) * table.time_base if start else None,
            max_frames=None if lenient else stop - position + skip,
            threads=1 if self._damaged else None,
            card=self._card,
        )
        stream = RawStream(argv, self.layout.frame_bytes, self._path.name, self._log, self._limits, self._card)
        with stream.child:
            if lenient:
                yield from self._by_time(stream, position, stop)
                return
            index = position - skip
            while index < stop and (got := stream.next()) is not None:
                buffer, line = got
                if table.exact_pts and line.pts != int(table.pts[index]):
                    return
                if line.checksum != int(table.checksum[index]):
                    return
                if index >= position:
                    yield Frame.over(buffer, self.layout, index)
                index += 1

    def _by_time(self, stream: RawStream, position: int, stop: int) -> Iterator[Frame]:
        """Frames position..stop-1 of a damaged file, which may decode differently from run to run: for each the last
        picture that is not later, whatever it looks like. `stream` begins at the start of the file."""
        table = self._table
        picture: NDArray[np.uint8] | None = None
        got = stream.next()
        count = 0
        for index in range(position, stop):
            while got is not None:
                stamp = got[1].pts if table.exact_pts else None
                if (count > index) if stamp is None else (stamp > int(table.pts[index])):
                    break
                picture, count = got[0], count + 1
                got = stream.next()
            if picture is None:
                picture = got[0] if got is not None else None
            if picture is None:
                return
            yield Frame.over(picture.copy(), self.layout, index)

    def _lost(self, position: int) -> HeygemdError:
        return UnreadableMediaError(
            f"{self._path.name}: frame {position} is not what it was in the first pass; did the file change?",
            path=str(self._path),
            case="changed",
        )


def _runs(indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Cuts a list of indices into monotone pieces without large skips."""
    start, direction = 0, 0
    for place in range(1, len(indices) + 1):
        if place == len(indices):
            yield indices[start:]
            return
        step = int(indices[place]) - int(indices[place - 1])
        sign = (step > 0) - (step < 0)
        if sign and ((direction and sign != direction) or abs(step) > _LARGEST_SKIP_FRAMES):
            yield indices[start:place]
            start, direction = place, 0
        elif sign:
            direction = sign
