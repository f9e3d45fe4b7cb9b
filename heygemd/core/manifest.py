"""Manifest v1 and folder presets: what users may write. Strict: an unknown key or a wrong type is an error."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from heygemd.core.errors import ManifestError
from heygemd.core.options import Options

M = TypeVar("M", bound=BaseModel)
RelativePath = Annotated[str, Field(min_length=1, max_length=1024)]
_PROBLEMS_TOLD = 3


def check_relative(path: str) -> str:
    """`path` if it stays below the manifest's folder, judged by its letters alone (links are resolved by the inbox)."""
    if "\x00" in path or any(ord(c) < 32 for c in path):
        raise ValueError("has control characters")
    if "\\" in path:
        raise ValueError("use / between folders")
    pure = PurePosixPath(path)
    plain = str(pure)
    if pure.is_absolute() or plain.startswith("~") or plain[1:2] == ":":
        raise ValueError("must be relative to the manifest's folder")
    if ".." in pure.parts:
        raise ValueError("must not climb out with ..")
    if plain in (".", ""):
        raise ValueError("names no file")
    return plain


class Manifest(BaseModel):
    """A job in words. Written last, beside its files, as NAME.job.json, .yaml or .toml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    version: Annotated[Literal[1], Field(description="always 1")]
    video: Annotated[RelativePath | None, Field(description="a video or a still image")] = None
    videos: Annotated[
        list[RelativePath] | None, Field(min_length=1, description="several, each with the one audio")
    ] = None
    audio: Annotated[RelativePath | None, Field(description="a recording, or a .txt to be spoken")] = None
    audios: Annotated[
        list[RelativePath] | None, Field(min_length=1, description="several, each with the one video")
    ] = None
    text: Annotated[str | None, Field(min_length=1, description="text to be spoken in place of an audio")] = None
    consent: Annotated[
        RelativePath | None, Field(description="a file that shows the consent of the person in the video")
    ] = None
    engine: Annotated[str | None, Field(max_length=64, description="short for options.engine")] = None
    priority: Annotated[int, Field(ge=-100, le=100, description="higher goes first")] = 0
    options: dict[str, Any] = Field(default_factory=dict, description="see Options")
    sha256: Annotated[
        dict[RelativePath, Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]],
        Field(default_factory=dict, description="file → its SHA-256, checked before the render"),
    ]

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, value: Any) -> Any:
        if type(value) is not int:  # True equals 1, and so does 1.0
            raise ValueError("must be the number 1")
        return value

    @field_validator("video", "audio", "consent")
    @classmethod
    def _one(cls, value: str | None) -> str | None:
        return None if value is None else check_relative(value)

    @field_validator("videos", "audios")
    @classmethod
    def _many(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else [check_relative(v) for v in value]

    @field_validator("sha256")
    @classmethod
    def _sums(cls, value: dict[str, str]) -> dict[str, str]:
        return {check_relative(k): v.lower() for k, v in value.items()}

    @model_validator(mode="after")
    def _one_of_each(self) -> Manifest:
        if (self.video is None) == (self.videos is None):
            raise ValueError("needs either `video` or `videos`")
        if sum(x is not None for x in (self.audio, self.audios, self.text)) != 1:
            raise ValueError("needs exactly one of `audio`, `audios`, `text`")
        if self.videos and self.audios:
            raise ValueError("several videos go with one audio, or several audios with one video; not both")
        return self

    @property
    def all_videos(self) -> list[str]:
        return self.videos if self.videos is not None else [self.video or ""]

    @property
    def all_audios(self) -> list[str]:
        """Empty for a text job."""
        if self.audios is not None:
            return self.audios
        return [] if self.audio is None else [self.audio]

    @property
    def all_files(self) -> list[str]:
        return [*self.all_videos, *self.all_audios, *([] if self.consent is None else [self.consent])]

    @property
    def batch(self) -> bool:
        return self.videos is not None or self.audios is not None


class Preset(BaseModel):
    """`.heygemd.toml`: defaults for the jobs of its folder and below."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    priority: Annotated[int | None, Field(ge=-100, le=100)] = None
    engine: Annotated[str | None, Field(max_length=64)] = None
    require_consent: bool | None = None
    options: dict[str, Any] = Field(default_factory=dict)


def parse_manifest(data: Any, name: str) -> Manifest:
    """A Manifest from decoded JSON, YAML or TOML. Raises ManifestError that names `name` and what is wrong."""
    return _parse(Manifest, data, name)


def parse_preset(data: Any, name: str) -> Preset:
    """A Preset from decoded TOML. Raises ManifestError."""
    preset = _parse(Preset, data, name)
    merge_options(name, preset.options)
    return preset


def merge_options(name: str, *layers: dict[str, Any]) -> Options:
    """Options from layers of defaults, the later over the earlier. Raises ManifestError that names `name`."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    return _parse(Options, merged, name, where="options.")


def _parse(model: type[M], data: Any, name: str, where: str = "") -> M:
    if not isinstance(data, dict):
        raise ManifestError(f"{name}: must be a table of keys, not {type(data).__name__}", path=name)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        told = [_told(model, problem, where) for problem in found[:_PROBLEMS_TOLD]]
        more = f" (and {len(found) - _PROBLEMS_TOLD} more)" if len(found) > _PROBLEMS_TOLD else ""
        raise ManifestError(f"{name}: {'; '.join(told)}{more}", path=name) from None


def _told(model: type[BaseModel], problem: Mapping[str, Any], where: str) -> str:
    """One problem, its field first. Keys are the user's: they must neither break a log line nor fill it."""
    field = where + ".".join(ascii(part)[1:-1][:60] if isinstance(part, str) else str(part) for part in problem["loc"])
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), model.model_fields, n=1)
        known = ", ".join(sorted(model.model_fields))
        text = f"unknown key, did you mean {near[0]}?" if near else f"unknown key, known are {known}"
    return f"{field}: {text}" if field else text
