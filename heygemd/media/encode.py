"""Encodes raw frames into segments: the one and only encode of the picture (mux.py joins them by copying).

NVENC's settings: https://docs.nvidia.com/video-technologies/video-codec-sdk/ and `ffmpeg -h encoder=h264_nvenc`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import ffmpeg

from heygemd.core.clip import VideoInfo
from heygemd.core.coding import Card
from heygemd.core.errors import EncoderUnavailableError, FfmpegError
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child
from heygemd.media.frames import Frame, working_layout

_LAST_WORDS_SECONDS = 5.0
_CLOSE_SECONDS = 1800.0  # the encoder's lookahead and, for x265, hundreds of queued frames
REORDER_FRAMES = 2
"""Depth of reordering of what we encode: x264 and x265 with one level of B-pyramid."""

_PRESETS = {"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"}
_NVENC_PRESETS = {"ultrafast": "p1", "superfast": "p2", "veryfast": "p4", "faster": "p4", "fast": "p5", "medium": "p6"}
"""x264's presets as NVENC's p1 (fastest) … p7. That they are about as good at the same number is nobody's measurement:
no card with an encoder was there."""

_CHROMA_LOCATIONS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
"""By their numbers in H.264's and HEVC's `chroma_sample_loc_type`."""


def track_timescale(fps: Fraction) -> tuple[int, int]:
    """(ticks a second, ticks a frame): a clock in which every frame's time is a whole number."""
    factor = -(-12800 // fps.numerator)
    return fps.numerator * factor, fps.denominator * factor


def _codec_options(video: VideoInfo, *, crf: int, preset: str, lossless: bool, threads: int) -> dict[str, Any]:
    if preset not in _PRESETS:
        raise ValueError(f"unknown encoder preset {preset!r}")
    options: dict[str, Any] = {"preset": preset, "threads": threads}
    # Told to the encoder itself: ffmpeg 5 cannot tag frames with it, and ffmpeg 7 does not take it as an option.
    chroma = f":chromaloc={_CHROMA_LOCATIONS.index(place)}" if (place := video.colour.chroma_location) else ""
    if video.bit_depth == 8:
        # Closed GOPs and constant settings: segments share one parameter set and can be joined without encoding.
        parameters = f"open-gop=0:b-pyramid=normal:bframes={REORDER_FRAMES + 1}{chroma}"
        options |= {"vcodec": "libx264", "x264-params": parameters}
        return options | ({"qp": 0} if lossless else {"crf": crf})
    parameters = f"open-gop=0:b-pyramid=1:bframes=3:log-level=error:repeat-headers=0{chroma}"
    if threads:
        parameters += f":pools={threads}"
    if lossless:
        parameters += ":lossless=1"
    options |= {"vcodec": "libx265", "tag:v": "hvc1", "x265-params": parameters}
    return options if lossless else options | {"crf": crf}


def nvenc_options(card: Card, *, crf: int, preset: str) -> dict[str, Any]:
    """Constant quality without a bit rate; closed GOPs that begin with an IDR frame, so that segments can be joined.

    B-frames are never references: not every card knows it, and the reordering stays within REORDER_FRAMES.
    """
    return {
        "vcodec": "h264_nvenc",
        "gpu": card.number,
        "preset": _NVENC_PRESETS.get(preset, "p7"),
        "tune": "hq",
        "profile:v": "high",
        "rc": "vbr",
        "cq": max(1, crf),  # 0 is "automatic"
        "b:v": 0,
        "bf": 2,
        "b_ref_mode": "disabled",
        "g": 250,
        "forced-idr": 1,
    }


def nvenc_takes(video: VideoInfo, *, lossless: bool) -> str | None:
    """Why the card's encoder is not for this picture; None where it may be tried."""
    if lossless:
        return "lossless results are encoded in software"
    if video.pix_fmt != "yuv420p":
        return f"{video.pix_fmt} is encoded in software; the card's encoder is used for yuv420p alone"
    return None


def _tagging(video: VideoInfo) -> str:
    """The filters that give every frame the source's tags. As options of the output, ffmpeg 7 takes no primaries and no
    transfer for raw pictures, and ffmpeg 5 does not know all names that its own probe prints."""
    tags, aspect = video.colour, video.sample_aspect
    named = {
        "range": tags.range,
        "color_primaries": tags.primaries,
        "color_trc": tags.transfer,
        "colorspace": tags.matrix,
    }
    colour = ":".join(f"{key}={value}" for key, value in named.items() if value is not None)
    shape = f"setsar=sar={aspect.numerator}/{aspect.denominator}:max=65535"
    return f"setparams={colour},{shape}" if colour else shape


class SegmentEncoder:
    """Encodes frames piped in to a video-only MP4 at `path`. A context manager: leaving by an exception kills ffmpeg
    and removes the file; `close` (or leaving normally) finishes it. The caller gives a temporary name and renames.

    The planes are encoded as they are: no conversion of size, format or range. `card`: encode there, where
    `nvenc_takes` the picture. Raises FfmpegError (EncoderUnavailableError of a card), DiskFullError.
    """

    def __init__(
        self,
        path: Path,
        video: VideoInfo,
        *,
        crf: int = 16,
        preset: str = "veryfast",
        lossless: bool = False,
        threads: int = 0,
        log: Path | None = None,
        card: Card | None = None,
    ) -> None:
        if card is not None and nvenc_takes(video, lossless=lossless) is not None:
            raise ValueError(f"{video.pix_fmt}, lossless={lossless}: not for the card's encoder")
        self.path = path
        self._failure = FfmpegError if card is None else EncoderUnavailableError
        self.num_frames = 0
        self._frame_bytes = working_layout(video).frame_bytes
        ticks, _ = track_timescale(video.fps)
        source = ffmpeg.input(
            "pipe:0",
            format="rawvideo",
            pixel_format=video.pix_fmt,
            video_size=(video.width, video.height),
            framerate=str(video.fps),
            protocol_whitelist="file,pipe",
        )
        output = ffmpeg.output(
            source["v:0"],
            f"file:{path.absolute()}",
            format="mp4",
            pix_fmt=video.pix_fmt,
            vf=_tagging(video),
            video_track_timescale=ticks,
            map_metadata=-1,
            fflags="+bitexact",
            **(
                _codec_options(video, crf=crf, preset=preset, lossless=lossless, threads=threads)
                if card is None
                else nvenc_options(card, crf=crf, preset=preset)
            ),
        )
        # -nostdin would not hurt, but here standard input is the picture
        arguments = [part for part in GLOBAL_ARGUMENTS if part != "-nostdin"]
        self._child: Child | None = Child(
            output.global_args(*arguments).overwrite_output().compile(),
            stdin=True,
            stdout=False,
            log=log,
            environment=None if card is None else card.environment,
        )

    def __enter__(self) -> SegmentEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        if self._child is None:
            raise ValueError("the segment is closed")
        if frame.buffer.nbytes != self._frame_bytes:
            raise ValueError(f"a frame of {frame.buffer.nbytes} bytes, expected {self._frame_bytes}")
        try:
            self._child.write(frame.buffer.data)
        except BrokenPipeError:
            self._fail(self._child, "the encoder ended early")
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file. Raises when the encoder failed."""
        child = self._child
        if child is None:
            return
        try:
            child.close_stdin()
            status = child.wait(_CLOSE_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._fail(child, "the encoder did not finish")
        if status != 0:
            self._fail(child, f"the encoder failed with status {status}")
        self._child = None
        child.kill()

    def abort(self) -> None:
        """Stop and remove what was written."""
        if self._child is not None:
            self._child.kill()
            self._child = None
            self.path.unlink(missing_ok=True)

    def _fail(self, child: Child, what: str) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LAST_WORDS_SECONDS)  # its end tells why; a closed pipe comes a moment before it
        child.kill()
        self._child = None
        self.path.unlink(missing_ok=True)
        raise child.failure(f"{self.path.name}: {what}", self._failure, self.path)


def encoder_threads() -> int:
    """Threads for one encoder when nobody says: all cores up to 8; more gives x264 nothing at these sizes."""
    return min(os.cpu_count() or 1, 8)
