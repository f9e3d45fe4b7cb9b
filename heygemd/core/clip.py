"""What is known of a video and of a recording, after probing and before decoding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple


class Box(NamedTuple):
    """A rectangle in source pixels: x0, y0 inclusive, x1, y1 exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    def clamped(self, width: int, height: int) -> Box:
        """The part inside a frame of `width` x `height`."""
        return Box(max(0, self.x0), max(0, self.y0), min(width, self.x1), min(height, self.y1))


@dataclass(frozen=True)
class ColourTags:
    """ffprobe's names, or None where the source says nothing. `range`: "tv" (limited) or "pc" (full)."""

    primaries: str | None = None
    transfer: str | None = None
    matrix: str | None = None
    range: str | None = None
    chroma_location: str | None = None


@dataclass(frozen=True)
class VideoInfo:
    """The picture of a clip as the pipeline decodes it: after rotation, at constant rate.

    `pix_fmt` is the working format: always planar YUV, 8 to 12 bit (yuv420p, yuv422p10le, yuv444p …).
    `fps` is the constant output rate. `num_frames` counts *decoded source frames* (which may be spaced unevenly);
    it is an estimate until pass 1 has counted them. A still image has `still=True` and one frame.
    """

    width: int
    height: int
    fps: Fraction
    num_frames: int
    duration_seconds: float
    pix_fmt: str
    bit_depth: int = 8
    sample_aspect: Fraction = Fraction(1, 1)
    colour: ColourTags = ColourTags()
    rotation_degrees: int = 0
    interlaced: bool = False
    variable_rate: bool = False
    still: bool = False
    codec: str = ""
    source_pix_fmt: str = ""
    time_base: Fraction = Fraction(1, 90000)
    stream_index: int = 0
    has_audio: bool = False
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; fractions as "num/den"."""
        data = {k: getattr(self, k) for k in self.__dataclass_fields__}
        for key in ("fps", "sample_aspect", "time_base"):
            value = data[key]
            data[key] = f"{value.numerator}/{value.denominator}"
        data["colour"] = {k: getattr(self.colour, k) for k in ColourTags.__dataclass_fields__}
        data["notes"] = list(self.notes)
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> VideoInfo:
        data = dict(data)
        for key in ("fps", "sample_aspect", "time_base"):
            data[key] = Fraction(data[key])
        data["colour"] = ColourTags(**data["colour"])
        data["notes"] = tuple(data["notes"])
        return VideoInfo(**data)


@dataclass(frozen=True)
class AudioInfo:
    """The sound of a recording: what the decoded stream holds, not what the header promises."""

    sample_rate: int
    channels: int
    duration_seconds: float
    codec: str = ""
    stream_index: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in self.__dataclass_fields__} | {"notes": list(self.notes)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> AudioInfo:
        return AudioInfo(**(data | {"notes": tuple(data["notes"])}))


@dataclass(frozen=True)
class Phone:
    """One phone of known timing, for text jobs. `symbol`: the speech source's name for it (espeak-ng mnemonic)."""

    symbol: str
    start_seconds: float
    end_seconds: float
