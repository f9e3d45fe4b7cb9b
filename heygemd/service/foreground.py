"""`heygemd run` and `heygemd plan`: one job in this terminal, by the daemon's own dispatcher and workers."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from heygemd.config import Settings
from heygemd.core.coding import SOFTWARE, Card
from heygemd.core.errors import CannotFitError, HeygemdError, TryLaterError, UsageError
from heygemd.core.job import InputFile, Item, Job
from heygemd.core.memory import Calibration, mib
from heygemd.core.options import Options
from heygemd.core.placement import Device
from heygemd.core.plan import Plan
from heygemd.files import explained, publish_file, temp_name
from heygemd.gpu.calibration import CalibrationStore
from heygemd.gpu.devices import cpu_device, devices
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.door import ClaimKey, Delivery, ItemOutcome, StagedItem
from heygemd.service.estimates import estimate_time
from heygemd.service.measure import fit_row
from heygemd.service.planning import ItemMemory, ceiling_of, cpu_threads, plan_item
from heygemd.service.setup import make_calibration, make_executor, task_settings
from heygemd.service.tasks import card_of, prepare_task
from heygemd.work.item import ItemFolder, Prepared


@dataclass(frozen=True)
class Progress:
    """`fraction`: 0..1 of the whole job."""

    stage: str
    fraction: float
    eta_seconds: float | None
    detail: str = ""


@dataclass
class _MemoryJournal:
    """A journal for one job that nobody resumes."""

    attempts: dict[tuple[str, int], int] = field(default_factory=dict)

    def update(self, job: Job) -> None: ...

    def finish(self, job: Job, except_paths: Collection[str] = ()) -> None: ...

    def still_needed(self, job_id: str) -> frozenset[ClaimKey]:
        return frozenset()

    def set_plan(self, job_id: str, item: str, segments: Sequence[Mapping[str, Any]]) -> None: ...

    def segment_stats(self, job_id: str, item: str) -> Mapping[int, dict[str, Any]]:
        return {}

    def segment_done(self, job_id: str, item: str, number: int, info: Mapping[str, Any]) -> None: ...

    def count_attempt(self, job_id: str, item: str, number: int) -> int:
        self.attempts[item, number] = self.attempts.get((item, number), 0) + 1
        return self.attempts[item, number]


@dataclass
class _FileDoor:
    """Two files in, one file out. The inputs are read where they lie."""

    staged: StagedItem
    output: Path
    outcome: ItemOutcome | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)

    def stage(self, job: Job) -> Sequence[StagedItem]:
        return [self.staged]

    def deliver(
        self,
        job: Job,
        outcomes: Sequence[ItemOutcome],
        error: HeygemdError | None,
        receipt: Mapping[str, Any],
        still_needed: Collection[ClaimKey],
    ) -> Delivery:
        (self.outcome,) = outcomes
        self.receipt = receipt
        if self.outcome.video is not None:
            temp = temp_name(self.output)
            try:
                with explained(f"writing {self.output}"):
                    shutil.move(self.outcome.video, temp)
                    publish_file(temp, self.output, replace=True)
            finally:
                temp.unlink(missing_ok=True)
        return Delivery(str(self.output))

    def show(self, job: Job, view: Mapping[str, Any]) -> None: ...


def render_one(
    settings: Settings,
    *,
    video: Path,
    audio: Path | None,
    text: str | None,
    output: Path,
    options: Options,
    checkpoint: Path | None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    log: Callable[..., None] = lambda *_args, **_fields: None,
) -> dict[str, Any]:
    """Render one pair to `output` and return its receipt. `audio` may be a .txt. Raises HeygemdError."""
    output = output.absolute()
    staged = _staged(video, audio, text)
    for path in (staged.video, staged.audio, staged.text_file):
        if path is not None and output.exists() and output.samefile(path):
            raise UsageError(f"{output.name} is an input of the job", remedy="Give another name with -o.")
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}", remedy="Make it, or give another place with -o.")
    work = Path(tempfile.mkdtemp(prefix=".heygemd-run-", dir=output.parent))
    door = _FileDoor(staged, output)
    job = _job(staged, options)
    dispatcher = Dispatcher(
        journal=_MemoryJournal(),
        executor=make_executor(settings, log),
        door=door,
        devices=devices(settings.scheduler),
        host=cpu_device(settings.scheduler),
        settings=replace(task_settings(settings), checkpoint=checkpoint),
        work=work,
        log=log,
        calibration=make_calibration(settings.state.absolute(), readonly=True),
    )
    try:
        dispatcher.submit(job)
        while not dispatcher.idle:
            dispatcher.step()
            for view in dispatcher.views().values():
                on_progress(_progress(view))
            if dispatcher.pauses.reason is not None:
                _give_up(dispatcher.pauses.reason)
    finally:
        dispatcher.close()
        shutil.rmtree(work)
    assert door.outcome is not None  # noqa: S101 - an idle dispatcher has delivered its only job
    if door.outcome.error is not None:
        raise door.outcome.error
    return dict(door.receipt)


def plan_one(
    settings: Settings,
    *,
    video: Path,
    audio: Path | None,
    text: str | None,
    options: Options,
    gpu_mib: Sequence[int] | None,
    checkpoint: Path | None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> dict[str, Any]:
    """What `run` would do, without doing it. `gpu_mib`: plan for cards of these sizes in place of this machine's."""
    staged = _staged(video, audio, text)
    host = cpu_device(settings.scheduler)
    if gpu_mib is None:
        targets = devices(settings.scheduler)
    else:
        share = settings.scheduler.gpu_memory_fraction
        targets = [
            Device(f"cuda:{n}", "cuda", mib * 2**20, int(mib * 2**20 * share), slots=2) for n, mib in enumerate(gpu_mib)
        ]
    if settings.scheduler.cpu_fallback and not any(d.kind == "cpu" for d in targets):
        targets = [*targets, host]
    with tempfile.TemporaryDirectory(prefix="heygemd-plan-") as work:
        folder = ItemFolder(Path(work) / "item")
        executor = make_executor(settings, lambda *_args, **_fields: None)
        kinds = tuple(sorted({d.kind for d in targets}))
        task_options = replace(task_settings(settings), checkpoint=checkpoint)
        cards: tuple[Card, ...] = ()
        if gpu_mib is None:
            cards = tuple(card_of(device) for device in targets if device.kind == "cuda")
        else:  # there is nothing to try an encoder on
            task_options = replace(
                task_options, media=settings.media.model_copy(update={"encoder": SOFTWARE, "decoder": SOFTWARE})
            )
        store = make_calibration(settings.state.absolute(), readonly=True)
        known = store.calibration
        ceiling = ceiling_of(targets, host, settings.scheduler, known)
        try:
            task = prepare_task("plan", folder, staged, options, host, kinds, task_options, cards, ceiling)
            executor.start(task, host)
            while executor.running():
                for message in executor.poll(0.2):
                    if message.type == "failed":
                        error = HeygemdError.from_dict(message.values)
                        if isinstance(error, CannotFitError):
                            return _refused(targets, error)
                        raise error
                    if message.type == "progress":
                        done = message.values["done"] / max(1, message.values["total"])
                        on_progress(Progress(message.values["stage"], done, None))
        finally:
            executor.close()
        prepared = folder.load_prepared()
        if not any(d.kind == point.device for d in targets for point in prepared.memory):
            targets = [*targets, host]  # an engine that knows no GPU renders there
        report: dict[str, Any] = {
            "engine": prepared.engine,
            "engine_reason": prepared.engine_reason,
            "frames": prepared.num_frames,
            "speech_seconds": round(prepared.speech_seconds, 3),
            "video": prepared.video.to_dict(),
        }
        try:
            plan = plan_item(prepared, folder, targets, settings.scheduler, known)
        except CannotFitError as error:
            return report | _refused(targets, error)
        return report | {
            "devices": [asdict(device) for device in targets],
            "segments": [asdict(segment) for segment in plan.segments],
            "batch": plan.batch,
            "precision": plan.precision,
            "device_kind": plan.device_kind,
            "device_reason": _why_cpu(plan, prepared, targets),
            **plan.coding.to_dict(),
            "predicted_mib": mib(plan.predicted_bytes),
            "memory": _memory_of(plan, prepared, targets, known),
            "calibration": _calibration_of(plan, prepared, known),
            **_time_of(plan, prepared, targets, host, store),
        }


def _refused(targets: Sequence[Device], error: CannotFitError) -> dict[str, Any]:
    devices = [asdict(device) for device in targets]
    told = {"refused": True, "reason": error.message, "remedy": error.remedy, "details": error.details}
    return {"devices": devices, **told}


def _why_cpu(plan: Plan, prepared: Prepared, targets: Sequence[Device]) -> str | None:
    """In words, where there are GPUs and the CPU renders."""
    if plan.device_kind != "cpu" or not any(device.kind == "cuda" for device in targets):
        return None
    knows = any(point.device == "cuda" for point in prepared.memory)
    return "no GPU is large enough" if knows else f"engines.cpu_only keeps {prepared.engine} there"


def _memory_of(plan: Plan, prepared: Prepared, targets: Sequence[Device], known: Calibration) -> list[dict[str, Any]]:
    """Every way that fits some device: predicted, reserved, and whether the formula or measurements say so."""
    memory = ItemMemory(prepared, known, cpu_threads(targets))
    rows = []
    for choice in plan.choices:
        load = memory.load(choice.kind, choice.precision, choice.batch)
        formula = memory.formula_bytes(choice.kind, choice.precision, choice.batch)
        correction, source = known.find(load)
        rows.append(
            {
                "device_kind": choice.kind,
                "precision": choice.precision,
                "batch": choice.batch,
                "formula_mib": mib(formula),
                "calibrated_mib": mib(known.base_bytes(load, formula)) if known.fits_of(load) else None,
                "predicted_mib": mib(choice.predicted_bytes),
                "reserved_mib": mib(choice.reserved_bytes),
                "host_mib": mib(choice.host_bytes),
                "source": source,
                "measurements": correction.count,
            }
        )
    return rows


def _calibration_of(plan: Plan, prepared: Prepared, known: Calibration) -> list[dict[str, Any]]:
    """The passes behind the prediction, one for each model of device."""
    load = ItemMemory(prepared, known).load(plan.device_kind, plan.precision, plan.batch)
    return [{"model": model, **fit_row(fit)} for model, fit in sorted(known.fits_of(load).items())]


def _time_of(
    plan: Plan, prepared: Prepared, targets: Sequence[Device], host: Device, store: CalibrationStore
) -> dict[str, Any]:
    memory = ItemMemory(prepared, store.calibration, cpu_threads(targets))
    time = estimate_time(prepared, plan, memory, targets, host, store.speeds)
    return {"estimate_seconds": time.seconds, "estimate_basis": time.basis, "estimate_measurements": time.renders}


def _staged(video: Path, audio: Path | None, text: str | None) -> StagedItem:
    for path in (video, audio):
        if path is not None and not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise UsageError(f"{path} {what}", remedy="Check the spelling.", path=str(path))
    if (audio is None) == (text is None):
        raise UsageError("give either a recording or --text", remedy="heygemd run VIDEO AUDIO -o OUT.mp4")
    is_text = audio is not None and audio.suffix.lower() == ".txt"
    item = Item(name=video.stem, video=str(video), audio=None if audio is None else str(audio), text=text)
    source = None if audio is None else audio.absolute()
    return StagedItem(item, video.absolute(), None if is_text else source, source if is_text else None, text)


def _job(staged: StagedItem, options: Options) -> Job:
    inputs = []
    for path, role in ((staged.video, "video"), (staged.audio, "audio"), (staged.text_file, "text")):
        if path is not None:
            info = path.stat()
            inputs.append(InputFile(path.name, role, info.st_size, info.st_mtime_ns, info.st_dev, info.st_ino))
    name = staged.item.name
    return Job("run", name, "", (staged.item,), tuple(inputs), options, created_seconds=time.time())


def _progress(view: Mapping[str, Any]) -> Progress:
    stage = str(view.get("stage") or view["state"])
    return Progress(
        stage, float(view.get("percent") or 0.0) / 100, view.get("eta_seconds"), str(view.get("reason", ""))
    )


def _give_up(reason: str) -> None:
    """A daemon waits for a full disk to empty; a person at a terminal wants to know now."""
    raise TryLaterError(reason, remedy="Free space, then run the command again.")
