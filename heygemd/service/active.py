"""Jobs in memory while they are worked on: what is done, what runs, what may start. No threads, no effects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heygemd.core.errors import HeygemdError
from heygemd.core.job import Item, Job, JobState
from heygemd.core.plan import Plan, Segment
from heygemd.service.door import StagedItem
from heygemd.work.item import ItemFolder, Prepared

_WEIGHTS = {"prepare": 0.25, "render": 0.65, "finish": 0.10}


@dataclass
class ActiveItem:
    """One item on its way. `progress`: 0..1 of each stage, for people."""

    number: int
    item: Item
    folder: ItemFolder
    staged: StagedItem | None = None
    prepared: Prepared | None = None
    plan: Plan | None = None
    done_segments: set[int] = field(default_factory=set)
    result: dict[str, Any] | None = None
    error: HeygemdError | None = None
    attempts: dict[str, int] = field(default_factory=dict)  # by task id
    not_before_seconds: dict[str, float] = field(default_factory=dict)  # by task id
    progress: dict[str, float] = field(default_factory=dict)  # by task id
    segment_stats: dict[int, dict[str, Any]] = field(default_factory=dict)
    estimated_with: tuple[Any, ...] = ()  # what the plan's bytes were last computed from
    passes: tuple[Any, ...] = ()  # service.calibrating.Pass, to be made before it can be planned well

    prepare_bytes: int = 0  # of RAM, where the probe has found that preparing takes more than usual
    unprepared: bool = False  # somebody has looked, and there is nothing new before a worker says so

    @property
    def over(self) -> bool:
        return self.result is not None or self.error is not None

    @property
    def is_prepared(self) -> bool:
        """Asked many times a second, of every result of a batch."""
        if not self.unprepared:
            self.unprepared = not self.folder.is_prepared
        return not self.unprepared

    @property
    def fraction(self) -> float:
        """0..1 of the way, by stage weights and frames."""
        if self.over:
            return 1.0
        if self.prepared is None or self.plan is None:
            return _WEIGHTS["prepare"] * max((v for k, v in self.progress.items() if "prepare" in k), default=0.0)
        frames = max(1, self.prepared.num_frames)
        rendered = sum(s.num_frames * self._segment_fraction(s) for s in self.plan.segments) / frames
        finishing = max((v for k, v in self.progress.items() if "finish" in k), default=0.0)
        return _WEIGHTS["prepare"] + _WEIGHTS["render"] * rendered + _WEIGHTS["finish"] * finishing

    def _segment_fraction(self, segment: Segment) -> float:
        if segment.number in self.done_segments:
            return 1.0
        return self.progress.get(f"render:{segment.number}", 0.0)


@dataclass
class ActiveJob:
    """A job between its claim and its end."""

    job: Job
    items: list[ActiveItem]
    work: Path
    error: HeygemdError | None = None  # of the job as a whole: refused at the door, cancelled, not to be staged
    cancelled: bool = False
    busy: bool = False  # a pool thread stages or delivers it
    busy_since_seconds: float = 0.0
    not_before_seconds: float = 0.0
    attempts: int = 0
    shown_seconds: float = 0.0
    shown: tuple[Any, ...] = ()
    stage_text: str = ""
    waits_for: str = ""  # room, in words; told once
    lacks: str = ""  # memory that no device offers now, in words

    @staticmethod
    def of(job: Job, work: Path) -> ActiveJob:
        items = [ActiveItem(n, item, ItemFolder(work / "items" / f"{n:03d}")) for n, item in enumerate(job.items)]
        error = None if job.error is None else HeygemdError.from_dict(job.error)
        return ActiveJob(job, items, work, error)

    @property
    def video_seconds(self) -> float:
        """Of all its results, as far as they are known yet."""
        return sum(item.prepared.num_frames / float(item.prepared.fps) for item in self.items if item.prepared)

    @property
    def fraction(self) -> float:
        if self.job.state in (JobState.QUEUED, JobState.STAGING) or not self.items:
            return 0.0
        return sum(item.fraction for item in self.items) / len(self.items)

    def eta_seconds(self, now_seconds: float) -> float | None:
        """From the speed so far; None while there is too little to tell."""
        started, fraction = self.job.started_seconds, self.fraction
        if started is None or fraction < 0.03:
            return None
        return max(0.0, (now_seconds - started) * (1 - fraction) / fraction)

    def open_segments(self) -> Iterator[tuple[ActiveItem, Segment]]:
        for item in self.items:
            if item.plan is not None and not item.over:
                for segment in item.plan.segments:
                    if segment.number not in item.done_segments:
                        yield item, segment

    def state_now(self) -> JobState:
        """What the items' progress amounts to, between staging and publishing."""
        open_items = [item for item in self.items if not item.over]
        if any(item.plan is None for item in open_items):
            return JobState.PREPARING
        if any(self._has_open_segment(item) for item in open_items):
            return JobState.RENDERING
        return JobState.FINISHING

    @staticmethod
    def _has_open_segment(item: ActiveItem) -> bool:
        return item.plan is not None and len(item.done_segments) < len(item.plan.segments)
