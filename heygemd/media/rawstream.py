"""One running decoder: raw frames on its stdout, matched one to one with what ffmpeg says of them on stderr."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.coding import Card
from heygemd.core.errors import FfmpegError, UnreadableMediaError
from heygemd.core.heartbeat import beat
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child, passthrough_options
from heygemd.media.inputs import MediaLimits, input_options, input_url

# showinfo prints a frame's line in pieces, and decoder threads may complain between them
_STAMP = re.compile(r"\] n: *\d+ pts: *(?P<pts>\S+) .*?iskey:(?P<key>[01]) type:")
_CHECKSUM = re.compile(r"checksum:([0-9A-F]{8}) plane_checksum")
_LINE_SECONDS = 60.0
_LAST_WORDS_SECONDS = 5.0


class FrameLine(NamedTuple):
    """What the showinfo filter says of a frame: `pts` in the filter's time base or None, and the picture's Adler-32."""

    pts: int | None
    key: bool
    checksum: int


class RawStream:
    """One running decoder: raw frames from stdout, each with its line from the showinfo filter on stderr."""

    def __init__(
        self,
        argv: list[str],
        frame_bytes: int,
        name: str,
        log: Path | None,
        limits: MediaLimits,
        card: Card | None = None,
    ) -> None:
        """`card`: that the decoder runs on. CUDA reserves more addresses than any limit on them would allow."""
        self._frame_bytes = frame_bytes
        self._name = name
        self._lines: queue.SimpleQueue[FrameLine] = queue.SimpleQueue()
        self._begun = False
        self._stamp: tuple[int | None, bool] | None = None
        self.child = Child(
            argv,
            log=log,
            on_info=self._on_info,
            stall_seconds=limits.stall_seconds,
            address_space_bytes=limits.address_space_bytes if card is None else None,
            environment=None if card is None else card.environment,
        )

    def next(self) -> tuple[NDArray[np.uint8], FrameLine] | None:
        """The next frame in a buffer of its own, or None at the end."""
        buffer: NDArray[np.uint8] = np.empty(self._frame_bytes, np.uint8)
        try:
            count = self.child.read_into(buffer.data)
        except UnreadableMediaError as error:
            raise UnreadableMediaError(f"{self._name}: {error.message}") from error
        beat()  # frames before the wanted ones are no progress to anybody
        if count < self._frame_bytes:
            self._raise_if_killed()
            return None
        try:
            # ffmpeg prints the line before it writes the frame; only our own reader can be late
            return buffer, self._lines.get(timeout=_LINE_SECONDS)
        except queue.Empty:
            raise FfmpegError(f"{self._name}: ffmpeg gave a frame without saying which") from None

    def _raise_if_killed(self) -> None:
        """A decoder that somebody killed says nothing of the file: it must not pass for its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.child.wait(_LAST_WORDS_SECONDS) == -signal.SIGKILL:
                raise self.child.failure(f"{self._name}: the decoder ended early", UnreadableMediaError)

    def _on_info(self, text: str) -> None:
        if not self._begun:
            # what stands before is the input's description, which its maker may have written
            self._begun = text.startswith("[Parsed_showinfo_") and "config in time_base" in text
            return
        stamp = _STAMP.search(text)
        if stamp is not None:
            pts = None if stamp["pts"] == "NOPTS" else int(stamp["pts"])
            self._stamp = pts, stamp["key"] == "1"
        checksum = _CHECKSUM.search(text)
        if checksum is not None and self._stamp is not None:
            self._lines.put(FrameLine(*self._stamp, int(checksum[1], 16)))
            self._stamp = None


def raw_command(
    path: Path,
    video: VideoInfo,
    filters: Sequence[str],
    pix_fmt: str,
    limits: MediaLimits,
    *,
    seek_seconds: Fraction | None = None,
    max_frames: int | None = None,
    threads: int | None = None,
    card: Card | None = None,
) -> list[str]:
    """argv of a decoder of `video`'s stream into raw frames; `filters` must have `showinfo` among them.

    `card`: let its decoder do it, where it can (`card_takes`); the frames then come in the layout of software's.
    """
    options: dict[str, Any] = input_options(path) | {
        "max_pixels": limits.decoder_max_pixels,
        "threads": threads or limits.decoder_threads,
        "copyts": None,
    }
    if card is not None:
        options |= {"hwaccel": "cuda", "hwaccel_device": card.number, "threads": 1}
        filters = [f"format={video.source_pix_fmt}", *filters]  # the card gives NV12; checksums are of planes
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
        "map_metadata": -1,
        # the input's own clock: at the frame rate's, frames of a variable rate would share a tick
        "enc_time_base": -1,
        **passthrough_options(),
    }
    if max_frames is not None:
        output["vframes"] = max_frames
    argv: list[str] = ffmpeg.output(source, "pipe:1", **output).global_args(*GLOBAL_ARGUMENTS).compile()
    return argv
