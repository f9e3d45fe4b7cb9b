"""`heygemd calibrate`: calibration passes without a job, by the daemon's own worker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from heygemd.config import Settings
from heygemd.core.capacity import Device
from heygemd.core.clip import VideoInfo
from heygemd.core.errors import CannotFitError, HeygemdError
from heygemd.core.fit import SOURCE_FRAMES, Fit, Shape, batches_for
from heygemd.core.memory import Load, Picture, size_class
from heygemd.core.options import Options
from heygemd.core.plan import BATCHES
from heygemd.engines.base import MemoryQuery
from heygemd.gpu.devices import cpu_device, devices
from heygemd.service.calibrating import Calibrating, Pass, in_words
from heygemd.service.planning import best_batch
from heygemd.service.setup import make_calibration, make_executor
from heygemd.spool.layout import Layout
from heygemd.spool.lock import daemon_lock
from heygemd.work.choose import (
    EngineChoice,
    best_batch_of,
    checkpoint_id,
    choose_engine,
    device_kinds_of,
    precisions_of,
)
from heygemd.work.item import ItemFolder
from heygemd.work.local import LocalExecutor

_RATE = Fraction(25)


@dataclass(frozen=True)
class Wanted:
    """What to measure. `engine`: auto, or a name; `region`: pixels of the largest face region."""

    engine: str
    checkpoint: Path | None
    width: int
    height: int
    region: tuple[int, int]


def calibrate_here(
    settings: Settings,
    wanted: Wanted,
    *,
    on_progress: Callable[[str, float], None] = lambda _what, _fraction: None,
) -> dict[str, Any]:
    """Measure on every model of device that is configured, and keep it in the state folder. Raises UsageError while a
    daemon works with that folder (it measures by itself), and HeygemdError where nothing could be measured."""
    layout = Layout(settings.root.absolute(), settings.state.absolute())
    layout.state.mkdir(parents=True, exist_ok=True)
    choice = choose_engine(wanted.engine, settings.engines.default, settings.checkpoint_dir, wanted.checkpoint)
    targets = _targets(settings, choice)
    with daemon_lock(layout.lock), tempfile.TemporaryDirectory(prefix="heygemd-calibrate-", dir=layout.state) as work:
        store = make_calibration(layout.state)
        executor = make_executor(settings, lambda *_args, **_fields: None)
        try:
            rows = []
            for device in targets:
                made = pass_of(choice, wanted, device, settings.engines.precision)
                values = _run(made, executor, device, settings, ItemFolder(Path(work)), on_progress)
                fit = Calibrating(store, device.threads, lambda *_args, **_fields: None).learn(made, values)
                rows.append(_row(made, device, fit, values))
        finally:
            executor.close()
            store.close()
    return {"engine": choice.engine.name, "engine_reason": choice.reason, "passes": rows, "path": str(store.path)}


def pass_of(choice: EngineChoice, wanted: Wanted, device: Device, precision: str = "auto") -> Pass:
    """The pass for an engine on that device. `precision`: as in the settings."""
    engine = choice.engine
    precision = precisions_of(engine, device.kind, Options(), precision)[0]
    video = VideoInfo(wanted.width, wanted.height, _RATE, SOURCE_FRAMES, SOURCE_FRAMES / 25, "yuv420p")
    analysis, _ = engine.stand_in(video, wanted.region, 1)
    variant = str(analysis.summary.get("variant", ""))
    picture = Picture(wanted.width, wanted.height, backward_frames=SOURCE_FRAMES)
    shape = Shape(
        engine.name,
        None if choice.checkpoint is None else str(choice.checkpoint),
        wanted.width,
        wanted.height,
        "yuv420p",
        8,
        wanted.region,
        batches_for(best_batch(best_batch_of(engine), device.kind)),
    )
    pixels = wanted.region[0] * wanted.region[1]
    formula = {
        batch: engine.memory_bytes(
            MemoryQuery(device.kind, precision, batch, wanted.width, wanted.height, variant, pixels)
        )
        for batch in BATCHES
    }
    named = variant if choice.checkpoint is None else f"{variant}@{checkpoint_id(choice.checkpoint)}"
    load = Load(engine.name, named, device.kind, precision, size_class(picture), 1)
    return Pass(shape, load, device.model, picture, formula, device.threads)


def _targets(settings: Settings, choice: EngineChoice) -> list[Device]:
    """One device of each model that the engine can render on; the host where it knows no GPU."""
    runs_on = device_kinds_of(choice.engine, ("cpu", "cuda"), settings.engines.cpu_only)
    found = [device for device in devices(settings.scheduler) if device.model and device.kind in runs_on]
    found = found or [cpu_device(settings.scheduler)]
    return list({(device.kind, device.model): device for device in reversed(found)}.values())


def _run(
    made: Pass,
    executor: LocalExecutor,
    device: Device,
    settings: Settings,
    folder: ItemFolder,
    on_progress: Callable[[str, float], None],
) -> dict[str, Any]:
    """The worker's answer. Raises what the worker said."""
    if made.needs[device.kind][-1] > device.budget_bytes:
        raise CannotFitError(
            f"{made.shape.in_words} does not fit {device.name} even at its smallest",
            remedy="Give a smaller --size.",
            needed_bytes=made.needs[device.kind][-1],
            offered_bytes=device.budget_bytes,
        )
    executor.start(made.task("calibrate", folder, device, settings.media), device)
    while True:
        for message in executor.poll(0.2):
            if message.type == "failed":
                raise HeygemdError.from_dict(message.values)
            if message.type == "done":
                return message.values
            if message.type == "progress":
                done = message.values["done"] / max(1, message.values["total"])
                on_progress(f"{device.name}: {message.values['stage']}", done)


def _row(made: Pass, device: Device, fit: Fit, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "device": device.name,
        "device_kind": device.kind,
        "model": made.model,
        "precision": made.load.precision,
        "words": in_words(made, fit),
        "seconds": values["seconds_total"],
        "stopped_at_batch": values["stopped_at"],
        **fit_row(fit),
    }


def fit_row(fit: Fit) -> dict[str, Any]:
    """JSON-ready, in MiB."""
    return {
        "shape": fit.shape,
        "fixed_mib": round(fit.fixed_bytes / 2**20, 1),
        "per_frame_mib": round(fit.per_item_bytes / 2**20, 2),
        "loading_mib": round(fit.load_bytes / 2**20, 1),
        "outside_allocator_mib": round(fit.outside_bytes / 2**20, 1),
        "largest_error": round(fit.largest_error, 4),
        "points": [
            {
                "batch": point.batch,
                "peak_mib": round(point.peak_bytes / 2**20, 1),
                "formula_mib": round(fit.formula_bytes[point.batch] / 2**20, 1),
                "allocated_mib": round(point.allocated_bytes / 2**20, 1),
                "cached_mib": round(point.cached_bytes / 2**20, 1),
                "device_mib": round(point.device_bytes / 2**20, 1),
            }
            for point in fit.points
        ],
    }
