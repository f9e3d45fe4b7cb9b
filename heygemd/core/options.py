"""The options of a job: what a manifest, a folder preset or `--option k=v` may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from heygemd.core.clip import Box

QUALITY_PRESETS: dict[str, int] = {"draft": 28, "standard": 20, "high": 16, "best": 12}


class Options(BaseModel):
    """Every option with its sane default. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    engine: Annotated[str, Field(description="auto, or the name of an engine", max_length=64)] = "auto"
    face: Annotated[
        str,
        Field(
            description="which face speaks: largest, leftmost, rightmost, or a fixed box x0,y0,x1,y1 in source pixels"
        ),
    ] = "largest"
    extend: Annotated[
        Literal["pingpong", "loop", "freeze"], Field(description="what the picture does when the speech is longer")
    ] = "pingpong"
    tail: Annotated[
        Literal["trim", "keep"], Field(description="what happens to the picture left over when the speech is shorter")
    ] = "trim"
    silence: Annotated[
        Literal["rest", "follow"], Field(description="in pauses: the mouth rests, or follows the source video")
    ] = "rest"
    liveliness: Annotated[
        Literal["on", "off"], Field(description="rewrite: the person in a still image blinks and breathes")
    ] = "on"
    interior: Annotated[
        Literal["auto", "own", "painted"],
        Field(description="rewrite: whether the mouth's inside is taken from the person's own frames or painted"),
    ] = "auto"
    lips: Annotated[
        Literal["auto", "own", "resting"],
        Field(description="rewrite: each frame's own lips are bent, or those of a frame at rest put in their place"),
    ] = "auto"
    sync_offset_seconds: Annotated[
        float, Field(ge=-2.0, le=2.0, description="moves the mouth against the sound; positive = the mouth comes later")
    ] = 0.0
    quality: Annotated[
        str, Field(description="a CRF from 0 to 51, or draft, standard, high, best, lossless", max_length=16)
    ] = "high"
    resolution_limit: Annotated[
        int | None, Field(ge=64, le=16384, description="scale down so that the longer side is at most this many pixels")
    ] = None
    notify: Annotated[
        str | None, Field(description="webhook that gets the receipt when the job ends", max_length=2000)
    ] = None
    language: Annotated[
        str | None,
        Field(
            description="language of a text job, as espeak-ng names it (en-us, cmn)", pattern=r"^[A-Za-z0-9-]{1,40}$"
        ),
    ] = None
    voice: Annotated[
        str | None, Field(description="voice or variant of a text job", pattern=r"^[A-Za-z0-9+_-]{1,40}$")
    ] = None
    mark: Annotated[
        Literal["off", "en", "zh", "both"] | None,
        Field(description="words in the picture's corner that say AI-generated; the operator's mark cannot be put off"),
    ] = None
    reference: Annotated[bool, Field(description="wav2lip: do exactly what the published code does")] = False

    @field_validator("face")
    @classmethod
    def _face(cls, value: str) -> str:
        if value in ("largest", "leftmost", "rightmost"):
            return value
        try:
            x0, y0, x1, y1 = (int(part) for part in value.split(","))
        except ValueError:
            raise ValueError("must be largest, leftmost, rightmost or four whole numbers x0,y0,x1,y1") from None
        if not (0 <= x0 < x1 <= 65536 and 0 <= y0 < y1 <= 65536):
            raise ValueError("a box needs 0 <= x0 < x1 and 0 <= y0 < y1")
        return value

    @field_validator("quality", mode="before")
    @classmethod
    def _quality(cls, value: Any) -> str:
        text = str(value)
        if text == "lossless" or text in QUALITY_PRESETS:
            return text
        if text.isascii() and text.isdigit() and int(text) <= 51:
            return text
        raise ValueError("must be a CRF from 0 to 51, or one of draft, standard, high, best, lossless")

    @property
    def face_box(self) -> Box | None:
        """The fixed box in source pixels, or None when the face is to be found."""
        if self.face in ("largest", "leftmost", "rightmost"):
            return None
        return Box(*(int(part) for part in self.face.split(",")))

    @property
    def lossless(self) -> bool:
        return self.quality == "lossless"

    @property
    def crf(self) -> int:
        """Constant rate factor for x264/x265; 0 when lossless."""
        if self.lossless:
            return 0
        return QUALITY_PRESETS[self.quality] if self.quality in QUALITY_PRESETS else int(self.quality)
