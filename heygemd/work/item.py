"""The work folder of one item: what each stage leaves for the next, all of it replaceable and none of it pickled.

ffmpeg.log      what ffmpeg said, all stages
speech.wav      only for text jobs
*.f32           sound at 16 kHz (media.audio.hear), while it is prepared
frames.npz      time stamps and key frames of the source (media.decode.FrameTable)
analysis.npz    pass 1 (engine arrays)          motion.npz   one row for each output frame (engine arrays)
item.json       Prepared: written last by `prepare`; there = prepared
plan.json       core.plan.Plan, written by the daemon
segments/NNNN.mp4   finished segments           segments/NNNN.json   what each cost, written before it
result/         the video, the contact sheet and result.json (written last): there = finished
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import AudioInfo, Phone, VideoInfo
from heygemd.core.coding import Coding
from heygemd.core.options import Options
from heygemd.core.plan import Plan
from heygemd.files import publish_file, temp_name, write_json
from heygemd.media.frames import FrameTable


@dataclass(frozen=True)
class MemoryPoint:
    """Predicted peak bytes of one worker that renders this item so."""

    device: str
    precision: str
    batch: int
    num_bytes: int


@dataclass(frozen=True)
class Prepared:
    """All that is known of an item before it is rendered."""

    video_path: str
    audio_path: str
    video: VideoInfo
    audio: AudioInfo
    options: Options
    engine: str
    engine_reason: str
    checkpoint: str | None
    num_frames: int
    speech_seconds: float
    phones: tuple[Phone, ...] | None
    language: str | None
    memory: tuple[MemoryPoint, ...]
    summary: Mapping[str, Any]
    seconds: Mapping[str, float]
    coding: Coding = field(default_factory=Coding)
    best_batch: Mapping[str, int] = field(default_factory=dict)
    """By device kind, where the engine knows it: beyond it only memory grows."""

    def to_dict(self) -> dict[str, Any]:
        data = {key: getattr(self, key) for key in self.__dataclass_fields__}
        data |= {
            "video": self.video.to_dict(),
            "audio": self.audio.to_dict(),
            "options": self.options.model_dump(exclude_defaults=True),
            "phones": None if self.phones is None else [asdict(phone) for phone in self.phones],
            "memory": [asdict(point) for point in self.memory],
            "summary": dict(self.summary),
            "seconds": dict(self.seconds),
            "coding": self.coding.to_dict(),
            "best_batch": dict(self.best_batch),
        }
        return data

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Prepared:
        phones = data["phones"]
        return Prepared(
            **(
                data
                | {
                    "video": VideoInfo.from_dict(data["video"]),
                    "audio": AudioInfo.from_dict(data["audio"]),
                    "options": Options.model_validate(data["options"]),
                    "phones": None if phones is None else tuple(Phone(**phone) for phone in phones),
                    "memory": tuple(MemoryPoint(**point) for point in data["memory"]),
                    "coding": Coding.from_dict(data.get("coding", {})),
                }
            )
        )

    def predict(self, device: str, precision: str, batch: int) -> int:
        """Predicted peak bytes. Raises KeyError for a combination that the engine does not offer."""
        for point in self.memory:
            if (point.device, point.precision, point.batch) == (device, precision, batch):
                return point.num_bytes
        raise KeyError((device, precision, batch))

    @property
    def fps(self) -> Fraction:
        return self.video.fps


@dataclass(frozen=True)
class ItemFolder:
    """Names of the files above, and how they are read and written."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "ffmpeg.log"

    @property
    def speech(self) -> Path:
        return self.path / "speech.wav"

    @property
    def speech_samples(self) -> Path:
        return self.path / "speech.f32"

    @property
    def own_samples(self) -> Path:
        """Of the clip's own sound."""
        return self.path / "own.f32"

    def drop_samples(self) -> None:
        self.speech_samples.unlink(missing_ok=True)
        self.own_samples.unlink(missing_ok=True)

    @property
    def frames(self) -> Path:
        return self.path / "frames.npz"

    @property
    def result(self) -> Path:
        return self.path / "result"

    @property
    def result_file(self) -> Path:
        return self.result / "result.json"

    def segment(self, number: int) -> Path:
        return self.path / "segments" / f"{number:04d}.mp4"

    def save_segment_stats(self, number: int, stats: Mapping[str, Any]) -> None:
        """Before the segment gets its name, so that no crash leaves a segment that nobody can account for."""
        write_json(self.segment(number).with_suffix(".json"), dict(stats), durable=False)

    def load_segment_stats(self, number: int) -> dict[str, Any] | None:
        """Of a finished segment; None while it is not finished, or where a crash of the machine lost them."""
        if not self.segment(number).exists():
            return None
        try:
            data: dict[str, Any] = json.loads(self.segment(number).with_suffix(".json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return data

    def make(self) -> None:
        for folder in (self.path, self.path / "segments", self.result):
            folder.mkdir(parents=True, exist_ok=True)

    def save_frames(self, table: FrameTable) -> None:
        temp = temp_name(self.frames)
        try:
            table.save(temp)
            publish_file(temp, self.frames, replace=True)
        finally:
            temp.unlink(missing_ok=True)

    def save_arrays(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        save_npz(self.path / f"{name}.npz", arrays)

    def load_arrays(self, name: str) -> dict[str, NDArray[Any]]:
        return load_npz(self.path / f"{name}.npz")

    def save_prepared(self, prepared: Prepared) -> None:
        write_json(self.path / "item.json", prepared.to_dict())

    def load_prepared(self) -> Prepared:
        return Prepared.from_dict(json.loads((self.path / "item.json").read_text()))

    @property
    def is_prepared(self) -> bool:
        return (self.path / "item.json").exists()

    def save_plan(self, plan: Plan) -> None:
        write_json(self.path / "plan.json", plan.to_dict())

    @property
    def has_plan(self) -> bool:
        return (self.path / "plan.json").exists()

    def load_plan(self) -> Plan | None:
        """None while there is no plan yet."""
        try:
            return Plan.from_dict(json.loads((self.path / "plan.json").read_text()))
        except FileNotFoundError:
            return None

    def load_result(self) -> dict[str, Any] | None:
        """What `finish` wrote, or None while it has not finished."""
        try:
            data: dict[str, Any] = json.loads(self.result_file.read_text())
        except FileNotFoundError:
            return None
        return data


def save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays at once and durably. Objects are refused: they would need pickle to read."""
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"array {name!r} holds objects")
    temp = temp_name(path)
    try:
        with temp.open("xb") as file:
            np.savez(file, allow_pickle=False, **dict(arrays))
        publish_file(temp, path, replace=True)
    finally:
        temp.unlink(missing_ok=True)


def load_npz(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}
