"""Decodes a clip twice: small and fast for the analysis, then exactly, any range of frames, in the working format.

What is read in pass 2 is checked frame by frame against pass 1 (timestamp and checksum of the decoded picture), so
a container that seeks badly costs time but never gives a wrong frame.
"""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import FfmpegError, HeygemdError, LimitError, UnreadableMediaError
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child, MediaLimits, input_options, input_url, passthrough_options
from heygemd.media.frames import Frame, FrameTable, working_layout
from heygemd.media.pixels import before_filters, raw_format, working_filters

_LINE = re.compile(
    r"^\[Parsed_showinfo_\d+ @ \w+\] \[info\] n: *\d+ pts: *(?P<pts>\S+) .* iskey:(?P<key>[01]) .*?"
    r"checksum:(?P<sum>[0-9A-F]{8}) "
)
_LINE_SECONDS = 60.0
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


class _Line(NamedTuple):
    pts: int | None
    key: bool
    checksum: int


class _Stream:
    """One running decoder: raw frames from stdout, each with its line from the showinfo filter on stderr."""

    def __init__(self, argv: list[str], frame_bytes: int, name: str, log: Path | None, limits: MediaLimits) -> None:
        self._frame_bytes = frame_bytes
        self._name = name
        self._lines: queue.SimpleQueue[_Line] = queue.SimpleQueue()
        self.child = Child(
            argv,
            log=log,
            on_info=self._on_info,
            stall_seconds=limits.stall_seconds,
            address_space_bytes=limits.address_space_bytes,
        )

    def next(self) -> tuple[NDArray[np.uint8], _Line] | None:
        """The next frame in a buffer of its own, or None at the end."""
        buffer: NDArray[np.uint8] = np.empty(self._frame_bytes, np.uint8)
        try:
            count = self.child.read_into(buffer.data)
        except UnreadableMediaError as error:
            raise UnreadableMediaError(f"{self._name}: {error.message}") from error
        if count < self._frame_bytes:
            return None
        try:
            # ffmpeg prints the line before it writes the frame; only our own reader can be late
            return buffer, self._lines.get(timeout=_LINE_SECONDS)
        except queue.Empty:
            raise FfmpegError(f"{self._name}: ffmpeg gave a frame without saying which") from None

    def _on_info(self, text: str) -> None:
        found = _LINE.match(text)
        if found is not None:
            pts = None if found["pts"] == "NOPTS" else int(found["pts"])
            self._lines.put(_Line(pts, found["key"] == "1", int(found["sum"], 16)))


def _command(
    path: Path,
    video: VideoInfo,
    filters: Sequence[str],
    pix_fmt: str,
    limits: MediaLimits,
    *,
    seek_seconds: Fraction | None = None,
    max_frames: int | None = None,
) -> list[str]:
    options: dict[str, Any] = input_options(path) | {
        "max_pixels": limits.max_pixels,
        "threads": limits.decoder_threads,
        "copyts": None,
    }
    if seek_seconds is not None:
        # Absolute time, and no trimming by ffmpeg: frames are chosen by their exact pts. Rounded up: the demuxers
        # search at or before the given time, in units of their own.
        microseconds = -(-seek_seconds.numerator * 1_000_000 // seek_seconds.denominator)
        options |= {"ss": f"{microseconds}us", "seek_timestamp": 1, "noaccurate_seek": None}
    source = ffmpeg.input(input_url(path), **options)[str(video.stream_index)]
    output: dict[str, Any] = {
        "format": "rawvideo",
        "vf": ",".join(filters),
        "pix_fmt": pix_fmt,
        **passthrough_options(),
    }
    if max_frames is not None:
        output["vframes"] = max_frames
    argv: list[str] = ffmpeg.output(source, "pipe:1", **output).global_args(*GLOBAL_ARGUMENTS).compile()
    return argv


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
        argv = _command(self._path, video, filters, "bgr24", self._limits, max_frames=max_frames)
        stream = _Stream(argv, self.width * self.height * 3, name, self._log, self._limits)
        most_frames = int(self._limits.max_seconds * 1.05 * max(float(video.fps), 30.0)) + 250
        lines: list[_Line] = []
        with stream.child as child:
            while (got := stream.next()) is not None:
                buffer, line = got
                if len(lines) >= most_frames:
                    raise LimitError(
                        f"{name}: more than {most_frames} frames, the limit for {self._limits.max_seconds:.0f} s",
                        path=str(self._path),
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


def _table(lines: list[_Line], video: VideoInfo, num_errors: int) -> FrameTable:
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

    `video` is the (possibly scaled) working picture, `table` what pass 1 saw of the same file.
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
    ) -> None:
        self._path = path
        self._video = video
        self._table = table
        self._log = log
        self._limits = limits or MediaLimits()
        self._keys = np.flatnonzero(table.key)
        self._way = 0
        self.layout = working_layout(video)
        self._chunk_frames = max(1, chunk_bytes // self.layout.frame_bytes)

    def read(self, first: int, stop: int) -> Iterator[Frame]:
        """Source frames first..stop-1. Raises UnreadableMediaError when the file no longer gives what pass 1 saw."""
        if not 0 <= first <= stop <= len(self._table):
            raise ValueError(f"frames {first}..{stop} of {len(self._table)}")
        position = first
        while position < stop:
            ways = self._ways(position)
            way = min(self._way, len(ways) - 1)
            for frame in self._attempt(ways[way], position, stop, last=way == len(ways) - 1):
                position += 1
                yield frame
            if position < stop:
                if way == len(ways) - 1:
                    raise self._lost(position)
                # This file seeks badly; later calls start with what is left.
                self._way = way + 1

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
        frames = self.read(int(wanted[0]), int(wanted[-1]) + 1)
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

    def _attempt(self, start: int, position: int, stop: int, *, last: bool) -> Iterator[Frame]:
        """Frames position..stop-1, decoding from frame `start`; ends early at the first one that is not pass 1's."""
        table, video = self._table, self._video
        filters = before_filters(video)
        skip = position
        if table.exact_pts and not video.still:
            filters.append(f"select=between(pts\\,{table.pts[position]}\\,{table.pts[stop - 1]})")
            skip = 0
        argv = _command(
            self._path,
            video,
            [*filters, "showinfo", *working_filters(video)],
            raw_format(video),
            self._limits,
            seek_seconds=int(table.pts[start]) * table.time_base if start else None,
            max_frames=stop - position + skip,
        )
        # A damaged file may decode differently from run to run; at the last resort the place in the row decides.
        lenient = last and table.num_errors > 0
        stream = _Stream(argv, self.layout.frame_bytes, self._path.name, self._log, self._limits)
        with stream.child:
            index = position - skip
            while index < stop and (got := stream.next()) is not None:
                buffer, line = got
                same = line.checksum == int(table.checksum[index])
                if table.exact_pts and line.pts != int(table.pts[index]):
                    return
                if not same and not lenient:
                    return
                if index >= position:
                    yield Frame.over(buffer, self.layout, index)
                index += 1
            if index < stop and any("No space left" in text for text in stream.child.tail):
                raise stream.child.failure(f"{self._path.name}: cannot be read", FfmpegError, self._path)

    def _lost(self, position: int) -> HeygemdError:
        return UnreadableMediaError(
            f"{self._path.name}: frame {position} is not what it was in the first pass; did the file change?",
            path=str(self._path),
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
