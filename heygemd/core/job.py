"""A job: what somebody dropped, as the journal keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from heygemd.core.options import Options


class JobState(StrEnum):
    """Where a job stands. The order is the way it takes; the last three are final."""

    QUEUED = "queued"  # claimed in the journal; inputs still in the inbox
    STAGING = "staging"  # inputs are being copied and hashed
    PREPARING = "preparing"  # probe, speech, pass 1, plan
    RENDERING = "rendering"  # segments
    FINISHING = "finishing"  # join, mux, verify, contact sheet
    PUBLISHING = "publishing"  # outbox, receipt, archive (or failed/)
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class InputFile:
    """One file of a drop and its identity when claimed. `path`: relative to the inbox, POSIX, as the disk spells it."""

    path: str
    role: str  # video, audio, text, consent, manifest
    size: int
    mtime_ns: int
    device: int
    inode: int
    sha256: str | None = None  # what the manifest promises; staging compares

    @property
    def identity(self) -> tuple[str, int, int, int, int]:
        return (self.path, self.size, self.mtime_ns, self.device, self.inode)


@dataclass(frozen=True)
class Item:
    """One result: a video with a speech. A pair has one item, a batch several.

    `video`, `audio`: paths of InputFiles; an `audio` ending in .txt is a text to be spoken; `text`: given inline.
    `name`: the result's file stem, unique in its job.
    """

    name: str
    video: str
    audio: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Job:
    """Frozen; changed by `evolve`. `name` is unique among all jobs and names folders and status files."""

    id: str
    name: str
    folder: str  # of the drop, relative to the inbox ("" = its top): the unit of fairness
    items: tuple[Item, ...]
    inputs: tuple[InputFile, ...]
    options: Options = field(default_factory=Options)
    priority: int = 0
    created_seconds: float = 0.0  # Unix time of the claim
    state: JobState = JobState.QUEUED
    attempts: int = 0
    started_seconds: float | None = None
    ended_seconds: float | None = None
    error: dict[str, Any] | None = None
    batch: bool = False
    manifest: str | None = None

    def evolve(self, **changes: Any) -> Job:
        return replace(self, **changes)

    def log_context(self) -> dict[str, str]:
        return {"job": self.name, "job_id": self.id}

    def to_json(self) -> str:
        data = asdict(self)
        data["options"] = self.options.model_dump(exclude_defaults=True)
        return json.dumps(data, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Job:
        data = json.loads(text)
        data["items"] = tuple(Item(**item) for item in data["items"])
        data["inputs"] = tuple(InputFile(**item) for item in data["inputs"])
        data["options"] = Options.model_validate(data["options"])
        data["state"] = JobState(data["state"])
        return Job(**data)
