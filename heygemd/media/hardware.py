"""Whether a card's encoder and decoder (NVENC, NVDEC) work here: found out by trying them, never by their names.

That ffmpeg lists them says nothing: Debian's does without a card, many data-centre cards have no encoder, drivers limit
how many run at once. What a trial found holds for the life of the process, for each card, size and codec.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from heygemd.core.clip import VideoInfo
from heygemd.core.coding import Card
from heygemd.core.errors import FfmpegError, HeygemdError, UnreadableMediaError
from heygemd.media.encode import SegmentEncoder
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child
from heygemd.media.frames import Frame, working_layout
from heygemd.media.inputs import MediaLimits, input_options, input_url

_FRAMES = 8
_TIMEOUT_SECONDS = 60.0
_CHECKSUM = re.compile(r"checksum:([0-9A-F]{8}) plane_checksum")
_CARD_DECODES = "yuv420p"
"""The source format that comes from the card without a change of any value: 8 bits, 4:2:0."""
SAMPLE = VideoInfo(256, 256, Fraction(25), _FRAMES, _FRAMES / 25, "yuv420p", 8)
"""A picture that every such encoder takes."""


@dataclass(frozen=True)
class Trial:
    """`reason`: one line for people, either way."""

    ok: bool
    reason: str


def try_encoder(card: Card, video: VideoInfo = SAMPLE) -> Trial:
    """Encode a few grey frames of that size on the card, with the settings of every segment."""
    return _try_encoder(card, video.width, video.height)


@lru_cache(maxsize=64)
def _try_encoder(card: Card, width: int, height: int) -> Trial:
    video = VideoInfo(width, height, SAMPLE.fps, _FRAMES, SAMPLE.duration_seconds, SAMPLE.pix_fmt, SAMPLE.bit_depth)
    layout = working_layout(video)
    with tempfile.TemporaryDirectory(prefix="heygemd-trial-") as folder:
        try:
            with SegmentEncoder(Path(folder) / "trial.mp4", video, card=card) as encoder:
                for index in range(_FRAMES):
                    encoder.write(Frame.over(np.full(layout.frame_bytes, 128, np.uint8), layout, index))
        except HeygemdError as error:
            return Trial(False, f"{card.name} cannot encode {width}x{height}: {_reason(error)}")
    return Trial(True, f"a trial of {card.name} at {width}x{height} passed")


def forget() -> None:
    """What was tried; for tests that change the programs."""
    _try_encoder.cache_clear()
    _decoders.clear()


def card_takes(video: VideoInfo) -> str | None:
    """Why the card's decoder is not for this source; None where it may be tried."""
    if video.still or video.interlaced:
        return "stills and interlaced sources are decoded in software"
    if video.source_pix_fmt != _CARD_DECODES:
        return f"{video.source_pix_fmt} is decoded in software"
    return None


def try_decoder(path: Path, video: VideoInfo, card: Card) -> Trial:
    """Decode the first frames on the card and in software, and compare them bit for bit."""
    key = (card, video.codec, video.width, video.height)
    if key not in _decoders:
        _decoders[key] = _try_decoder(path, video, card)
    return _decoders[key]


_decoders: dict[tuple[Any, ...], Trial] = {}


def _try_decoder(path: Path, video: VideoInfo, card: Card) -> Trial:
    what = f"{card.name} cannot decode {video.codec}"
    try:
        theirs = _checksums(path, video, card)
        ours = _checksums(path, video, None)
    except HeygemdError as error:
        return Trial(False, f"{what}: {_reason(error)}")
    if not theirs or theirs != ours:
        return Trial(False, f"{what} bit for bit as software does")
    return Trial(True, f"a trial of {card.name} with {video.codec} passed")


def _checksums(path: Path, video: VideoInfo, card: Card | None) -> list[str]:
    """Of the first frames' planes. Raises FfmpegError, also where the card would leave the work to software."""
    limits = MediaLimits()
    options: dict[str, Any] = input_options(path) | {"max_pixels": limits.decoder_max_pixels, "threads": 1}
    filters = [f"format={video.source_pix_fmt}", "showinfo"]
    if card is not None:
        options |= {"hwaccel": "cuda", "hwaccel_device": card.number, "hwaccel_output_format": "cuda"}
        filters = ["hwdownload", "format=nv12", *filters]  # fails on frames that are not the card's
    source = ffmpeg.input(input_url(path), **options)[str(video.stream_index)]
    output = ffmpeg.output(source, "-", format="null", vf=",".join(filters), vframes=_FRAMES)
    lines: list[str] = []
    with Child(
        output.global_args(*GLOBAL_ARGUMENTS).compile(),
        on_info=lines.append,
        address_space_bytes=limits.address_space_bytes if card is None else None,
        environment=None if card is None else card.environment,
    ) as child:
        child.read_all(1 << 20, _TIMEOUT_SECONDS)
        if child.wait() != 0:
            raise child.failure("it failed", FfmpegError if card else UnreadableMediaError, path)
    return [found[1] for line in lines if (found := _CHECKSUM.search(line))]


def _reason(error: HeygemdError) -> str:
    """What ffmpeg said, without what we put before it."""
    return str(error.details.get("reason", error.message))
