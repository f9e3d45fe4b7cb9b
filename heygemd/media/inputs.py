"""Files made by strangers: how they are opened, and what one of them may cost.

Every input is opened by demuxers and protocols from a short list, so that a playlist named `a.mp4` cannot open other
files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import UnreadableMediaError

DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,apng,asf,au,avi,caf,dts,dv,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,webm,mjpeg,"
    "mov,mp4,mp3,mpeg,mpegts,mpegvideo,mxf,nut,ogg,rm,tta,w64,wav,wtv,wv,yuv4mpegpipe"
)
"""Demuxers that open one file and nothing else: no concat, hls, dash, subtitles, image2 patterns, devices."""

_IMAGE_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"BM", "bmp_pipe"),
    (b"II*\0", "tiff_pipe"),
    (b"MM\0*", "tiff_pipe"),
)


@dataclass(frozen=True)
class MediaLimits:
    """What one input may cost. `threads`: decoder threads, 0 = one for each core up to 8."""

    max_pixels: int = 8192 * 8192
    max_seconds: float = 4 * 3600.0
    probe_timeout_seconds: float = 60.0
    stall_seconds: float = 300.0
    address_space_bytes: int = 4 << 30
    threads: int = 0

    @property
    def decoder_max_pixels(self) -> int:
        """For ffmpeg's -max_pixels, which counts the decoder's padding too; the exact limit is the probe's."""
        return self.max_pixels * 3 // 2 + (1 << 16)

    @property
    def decoder_threads(self) -> int:
        return self.threads or min(os.cpu_count() or 1, 8)


def image_demuxer(path: Path) -> str | None:
    """The pipe demuxer of a still image, told from its first bytes, or None.

    The name is never asked: ffmpeg's own image2 demuxer would take `%d` in it for a pattern.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise UnreadableMediaError(f"{path.name}: cannot be opened ({error.strerror})", path=str(path)) from error
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp_pipe"
    return next((demuxer for magic, demuxer in _IMAGE_MAGIC if head.startswith(magic)), None)


def input_url(path: Path) -> str:
    """`file:/absolute/path`: a leading dash, a colon or a protocol's name in the path means nothing then."""
    return f"file:{path.absolute()}"


def input_options(path: Path) -> dict[str, Any]:
    """Options for `ffmpeg.input(input_url(path), …)` and, as a list, for ffprobe."""
    options: dict[str, Any] = {"protocol_whitelist": "file,pipe"}
    demuxer = image_demuxer(path)
    if demuxer is not None:
        return options | {"f": demuxer, "format_whitelist": demuxer}
    return options | {"format_whitelist": DEMUXERS, "probesize": 10_000_000, "analyzeduration": 10_000_000}


def as_arguments(options: dict[str, Any]) -> list[str]:
    return [part for key, value in options.items() for part in (f"-{key}", str(value))]
