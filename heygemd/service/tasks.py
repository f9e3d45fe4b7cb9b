"""The three kinds of task, as the worker reads them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from heygemd.core.capacity import Device
from heygemd.core.ceiling import Ceiling
from heygemd.core.coding import IN_SOFTWARE, Card, Coding
from heygemd.core.options import Options
from heygemd.core.plan import Choice, Plan, Segment
from heygemd.core.provenance import stronger_mark
from heygemd.core.settings import LimitSettings, MediaSettings, ProvenanceSettings, SchedulerSettings
from heygemd.core.task import Task
from heygemd.service.active import ActiveItem
from heygemd.service.door import StagedItem
from heygemd.work.item import ItemFolder

HOST_BYTES = 1_000 * 2**20
"""Reserved for a task that prepares or finishes: ffmpeg, the analysis and the interpreter, measured at 1080p. A worker
that finds after the probe that preparing takes more asks for it (work.afford)."""


@dataclass(frozen=True)
class TaskSettings:
    """The part of the configuration that tasks carry with them or are chosen by."""

    scheduler: SchedulerSettings
    limits: LimitSettings
    media: MediaSettings
    default_engine: str
    checkpoint_dir: Path
    checkpoint: Path | None = None
    face_detector: str = "cascade"
    face_detector_file: Path | None = None
    landmarks: str = "auto"
    landmarks_file: Path | None = None
    precision: str = "auto"
    cpu_only: tuple[str, ...] = ()
    provenance: ProvenanceSettings = field(default_factory=ProvenanceSettings)
    max_active_seconds_per_folder: float = 0.0
    max_work_bytes: int = 0
    min_free_work_bytes: int = 0


def prepare_task(
    task_id: str,
    folder: ItemFolder,
    staged: StagedItem,
    options: Options,
    device: Device,
    kinds: tuple[str, ...],
    settings: TaskSettings,
    cards: tuple[Card, ...] = (),
    ceiling: Ceiling | None = None,
) -> Task:
    # Decided once for all segments: a reload in the middle of a job changes none of them.
    options = options.model_copy(update={"mark": stronger_mark(settings.provenance.mark, options.mark)})
    values = {
        "video": str(staged.video),
        "audio": _text(staged.audio),
        "text_file": _text(staged.text_file),
        "text": staged.text,
        "options": options.model_dump(exclude_defaults=True),
        "limits": settings.limits.model_dump(),
        "default_engine": settings.default_engine,
        "checkpoint_dir": str(settings.checkpoint_dir),
        "checkpoint": _text(settings.checkpoint),
        "face_detector": settings.face_detector,
        "face_detector_file": _text(settings.face_detector_file),
        "landmarks": settings.landmarks,
        "landmarks_file": _text(settings.landmarks_file),
        "precision": settings.precision,
        "device_kinds": list(kinds),
        "cpu_only": list(settings.cpu_only),
        "cards": [asdict(card) for card in cards],
        "ceiling": None if ceiling is None else ceiling.to_dict(),
        "media": settings.media.model_dump(),
        "provenance": settings.provenance.model_dump(),
    }
    return Task(task_id, "prepare", str(folder.path), seen_by_worker(device), device.threads, values)


def render_task(
    task_id: str,
    folder: ItemFolder,
    choice: Choice,
    segment: Segment,
    device: Device,
    settings: TaskSettings,
    coding: Coding = IN_SOFTWARE,
) -> Task:
    values = {
        "segment": asdict(segment),
        "coding": coding.to_dict(),
        "batch": choice.batch,
        "precision": choice.precision,
        "media": settings.media.model_dump(),
    }
    return Task(task_id, "render", str(folder.path), seen_by_worker(device), device.threads, values)


def finish_task(task_id: str, folder: ItemFolder, plan: Plan, device: Device, settings: TaskSettings) -> Task:
    values = {
        "plan": plan.to_dict(),
        "media": settings.media.model_dump(),
        "provenance": settings.provenance.model_dump(),
    }
    return Task(task_id, "finish", str(folder.path), seen_by_worker(device), device.threads, values)


def task_for(
    task_id: str,
    key: str,
    item: ActiveItem,
    options: Options,
    device: Device,
    choice: Choice | None,
    kinds: tuple[str, ...],
    settings: TaskSettings,
    cards: tuple[Card, ...] = (),
    ceiling: Ceiling | None = None,
) -> Task:
    """The task that `key` (prepare, render:N, finish) of an item means on that device. `choice`: only for a render."""
    if key == "prepare":
        assert item.staged is not None  # noqa: S101 - it is offered only then
        return prepare_task(task_id, item.folder, item.staged, options, device, kinds, settings, cards, ceiling)
    assert item.plan is not None  # noqa: S101 - it is offered only then
    if choice is None:
        return finish_task(task_id, item.folder, item.plan, device, settings)
    segment = item.plan.segment(int(key.removeprefix("render:")))
    return render_task(task_id, item.folder, choice, segment, device, settings, item.plan.coding)


def seen_by_worker(device: Device) -> str:
    """The device's name in the worker: one with a uuid is the only GPU that its workers see."""
    if device.kind == "cpu":
        return "cpu"
    return "cuda:0" if device.uuid else device.name


def card_of(device: Device) -> Card:
    """A GPU, for the programs that use its encoder."""
    return Card(int(device.name.partition(":")[2] or 0), device.uuid)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
