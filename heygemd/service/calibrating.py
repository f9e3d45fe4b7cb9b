"""Calibration passes: which are missing before an item can be planned well, and what their answers teach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.errors import CancelledError, HeygemdError
from heygemd.core.fit import SOURCE_FRAMES, Fit, Point, Shape, batches_for
from heygemd.core.job import Job
from heygemd.core.memory import HOST_KIND, Calibration, Load, Picture, host_bytes, mib, pipeline_bytes
from heygemd.core.placement import Request
from heygemd.core.plan import BATCHES, Choice
from heygemd.core.settings import MediaSettings, SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.gpu.calibration import CalibrationStore
from heygemd.service.active import ActiveItem
from heygemd.service.planning import ItemMemory, best_batch
from heygemd.service.tasks import seen_by_worker
from heygemd.work.item import ItemFolder, Prepared


@dataclass(frozen=True)
class Pass:
    """One pass: a shape, rendered in one precision on one model of device. `load`: at batch 1. `engine_bytes`: what the
    engine's formula says of the shape, by batch."""

    shape: Shape
    load: Load
    model: str
    picture: Picture
    engine_bytes: Mapping[int, int]
    threads: int = 1

    @property
    def name(self) -> str:
        """What is to be known afterwards; two passes of one name are the same question."""
        return f"{self.load.family}/{self.model}"

    def formula_bytes(self, batch: int) -> int:
        pipeline = pipeline_bytes(self.picture, batch, self.threads) if self.load.kind == "cpu" else 0
        return self.engine_bytes[batch] + pipeline

    @property
    def key(self) -> str:
        """Of its task, within an item."""
        return f"calibrate:{self.name}"

    def request(self, job: Job, item_number: int, here: Iterable[Device]) -> Request:
        """`here`: all devices; the pass runs on one of its own model. On a GPU alone: the card as a whole is read."""
        avoid = frozenset(d.name for d in here if d.kind != self.load.kind or d.model != self.model)
        return Request(
            f"{job.id}/{item_number}/{self.key}",
            job.id,
            job.folder,
            job.priority,
            job.created_seconds,
            item_number * 100_000,
            self.needs,
            self.load.kind != "cpu",
            avoid,
            self.host_bytes,
        )

    @property
    def needs(self) -> Mapping[str, tuple[int, ...]]:
        """The room that its largest batch would take, or at least the smallest one: the pass stops by itself at what
        does not fit."""
        largest, smallest = self.formula_bytes(max(self.shape.batches)), self.formula_bytes(min(self.shape.batches))
        return {self.load.kind: (max(largest, smallest), smallest)}

    @property
    def host_bytes(self) -> int:
        return 0 if self.load.kind == "cpu" else host_bytes(self.picture, max(self.shape.batches))

    def task(self, task_id: str, folder: ItemFolder, device: Device, media: MediaSettings) -> Task:
        values = {
            "shape": {**vars(self.shape), "region": list(self.shape.region), "batches": list(self.shape.batches)},
            "precision": self.load.precision,
            "media": media.model_dump(),
        }
        return Task(task_id, "calibrate", str(folder.path), seen_by_worker(device), device.threads, values)

    def fits(self, values: Mapping[str, Any]) -> dict[str, Fit]:
        """By family, from a worker's answer: of the device, and of the host's RAM beside a GPU."""
        told = self._fit(values["points"], values, lambda batch: self.formula_bytes(batch))
        found = {self.load.family: replace(told, outside_bytes=values["outside_bytes"])}
        if values["host_points"]:
            beside = replace(self.load, kind=HOST_KIND)
            found[beside.family] = self._fit(
                values["host_points"], {}, lambda batch: host_bytes(self.picture, batch)
            )  # fmt: skip
        return found

    def _fit(self, points: Sequence[Mapping[str, int]], values: Mapping[str, Any], formula: Any) -> Fit:
        return Fit.through(
            [Point(**point) for point in points],
            {batch: formula(batch) for batch in BATCHES},
            load_bytes=values.get("load_bytes", 0),
            shape=self.shape.in_words,
        )


def pass_for(prepared: Prepared, kind: str, model: str, threads: int) -> Pass | None:
    """The pass that an item would profit from on that model of device; None where its engine cannot run there."""
    precision = next((point.precision for point in prepared.memory if point.device == kind), None)
    if precision is None:
        return None
    memory, video = ItemMemory(prepared, Calibration(), threads), prepared.video
    region = prepared.summary.get("region") or (round(video.width * 0.6), round(video.height * 0.6))
    shape = Shape(
        prepared.engine,
        prepared.checkpoint,
        video.width,
        video.height,
        video.pix_fmt,
        video.bit_depth,
        (int(region[0]), int(region[1])),
        batches_for(best_batch(prepared.best_batch, kind)),
    )
    picture = replace(memory.picture, backward_frames=SOURCE_FRAMES)
    engine_bytes = {batch: prepared.predict(kind, precision, batch) for batch in BATCHES}
    return Pass(shape, memory.load(kind, precision, 1), model, picture, engine_bytes, threads)


class Calibrating:
    """Knows which passes were made and which were given up. Called from the dispatcher's thread."""

    def __init__(self, store: CalibrationStore, threads: int, log: Callable[..., None]) -> None:
        self._store = store
        self._threads = threads
        self._log = log
        self._given_up: set[str] = set()
        self._made: dict[str, Pass] = {}  # by the key of its task, while a worker has it

    def before(
        self, item: ActiveItem, offers: Callable[[Prepared], Collection[Device]], scheduler: SchedulerSettings
    ) -> tuple[Pass, ...]:
        """What to measure before this prepared item is planned; nothing where it has a plan already."""
        if scheduler.calibrate == "never" or item.folder.has_plan:
            return ()
        if item.prepared is None:
            item.prepared = item.folder.load_prepared()
        return self.missing(item.prepared, offers(item.prepared), scheduler.calibrate)

    def missing(self, prepared: Prepared, devices: Collection[Device], wanted: str) -> tuple[Pass, ...]:
        """Passes that are worth making now, on the devices that are here. `wanted`: auto (GPUs) or always."""
        found: dict[str, Pass] = {}
        for device in devices:
            if device.kind == "cpu" and (wanted != "always" or not device.model):
                continue  # a simulated card has no model
            made = pass_for(prepared, device.kind, device.model, self._threads)
            if made is None or made.name in found or made.name in self._given_up:
                continue
            if made.name not in self._store.calibration.fits and made.needs[device.kind][-1] <= device.budget_bytes:
                found[made.name] = made
        return tuple(found.values())

    def task(self, task_id: str, key: str, item: ActiveItem, device: Device, media: MediaSettings) -> Task:
        self._made[key] = next(made for made in item.passes if made.key == key)
        return self._made[key].task(task_id, item.folder, device, media)

    @property
    def running(self) -> Collection[str]:
        """Keys of the tasks that workers have."""
        return self._made.keys()

    def answered(self, key: str, device: Device, message: Message, context: Mapping[str, object]) -> None:
        """Take in the worker's answer. A pass that failed is not made again before the daemon starts anew, and never
        fails a job: the formula has to do."""
        made = self._made.pop(key)
        about = {**context, "device": device.name, "precision": made.load.precision}
        if message.type == "failed":
            error = HeygemdError.from_dict(message.values)
            if not isinstance(error, CancelledError):
                self._given_up.add(made.name)
                self._log("memory.uncalibrated", **about, error=error)
            return
        fit = self.learn(made, message.values)
        self._log(
            "memory.calibrated",
            **about,
            reason=in_words(made, fit),
            measured_bytes=max(point.peak_bytes for point in fit.points),
            duration_seconds=message.values["seconds_total"],
        )

    def learn(self, made: Pass, values: Mapping[str, Any]) -> Fit:
        """Take in what a pass has measured; the device's fit."""
        fits = made.fits(values)
        for family, fit in fits.items():
            self._store.fitted(family, made.model, fit)
        return fits[made.load.family]

    def outside_bytes(self, prepared: Prepared, choice: Choice) -> int:
        """On a GPU, what lies outside of torch's allocator as the passes have found it; 0 where they have not."""
        load = ItemMemory(prepared, self._store.calibration, self._threads).load(
            choice.kind, choice.precision, choice.batch
        )  # fmt: skip
        return max((fit.outside_bytes for fit in self._store.calibration.fits_of(load).values()), default=0)


def in_words(made: Pass, fit: Fit) -> str:
    """wav2lip float32 takes 512 MiB and 21.4 MiB for each frame of the batch (batches 1, 16, 64 of 1920x1080, …)."""
    batches = ", ".join(str(point.batch) for point in fit.points)
    fixed, each = mib(fit.fixed_bytes), fit.per_item_bytes / 2**20
    return (
        f"{made.shape.engine} {made.load.precision} takes {fixed} MiB and {each:.1f} MiB for each frame of the batch "
        f"(batches {batches} at {fit.shape}; at most {100 * fit.largest_error:.1f} % off the line)"
    )
