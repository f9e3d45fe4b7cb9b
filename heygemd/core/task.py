"""What the daemon asks a worker to do, and what the worker answers. All of it is JSON: it crosses a pipe."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

DEVICE_FAILED_EXIT = 70
"""With which a worker ends whose GPU or driver has failed beneath it: CUDA gives nothing more to that process."""

TaskKind = Literal["hello", "prepare", "calibrate", "render", "finish"]


@dataclass(frozen=True)
class Task:
    """One piece of work for one worker. `folder`: the item's work folder; the kind's own values are in `values`;
    `reserved_bytes`: what the caller holds for it on the device."""

    id: str
    kind: TaskKind
    folder: str
    device: str = "cpu"
    threads: int = 1
    values: dict[str, Any] = field(default_factory=dict)
    reserved_bytes: int = 0

    def to_line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=True)

    @staticmethod
    def from_line(line: str) -> Task:
        return Task(**json.loads(line))


MessageType = Literal["ready", "heartbeat", "progress", "done", "failed"]


@dataclass(frozen=True)
class Message:
    """From a worker. `done`: `values` is the result; `failed`: it is HeygemdError.to_dict(); `progress`: stage,
    done, total (frames)."""

    type: MessageType
    task_id: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=True)

    @staticmethod
    def from_line(line: str) -> Message:
        return Message(**json.loads(line))
