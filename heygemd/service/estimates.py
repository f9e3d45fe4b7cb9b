"""What measured peaks, failures and times teach, and telling people about it; and from times the time of the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.memory import HOST_KIND, host_bytes, size_class
from heygemd.core.plan import Choice, Plan
from heygemd.core.speed import SpeedKey, Speeds
from heygemd.gpu.calibration import CalibrationStore
from heygemd.service.planning import ItemMemory
from heygemd.work.item import Prepared

_SHORT_FRAMES = 25


class Estimates:
    """Feeds the calibration. `threads`: of the CPU workers. `log` gets the events."""

    def __init__(self, store: CalibrationStore, threads: int, log: Callable[..., None]) -> None:
        self._store = store
        self._threads = threads
        self._log = log

    def learn(
        self, prepared: Prepared, choice: Choice, device: Device, values: Mapping[str, Any], context: Mapping[str, Any]
    ) -> None:
        """From one segment's answer: its measured peaks, and how long it took."""
        memory = ItemMemory(prepared, self._store.calibration, self._threads)
        num_frames = int(values["num_frames"])
        key = speed_key("render", memory, device, choice.precision)
        self._store.timed(key, float(values["seconds_total"]), num_frames)
        peak, on_gpu = int(values["peak_bytes"]), values.get("device_peak_bytes")
        load = memory.load(choice.kind, choice.precision, choice.batch)
        if choice.kind != "cpu":
            beside = memory.load(HOST_KIND, choice.precision, choice.batch)
            self._store.learn(beside, host_bytes(memory.picture, choice.batch), peak)
            if on_gpu is None:
                return
            peak = int(on_gpu)
        if num_frames < _SHORT_FRAMES and peak < choice.predicted_bytes:
            return  # it has not filled its queues: it may raise the estimate, not lower it
        formula = memory.formula_bytes(choice.kind, choice.precision, choice.batch)
        correction, telling = self._store.learn(load, formula, peak)
        if telling:
            base = "of what its calibration says" if self._store.calibration.fits_of(load) else "of the formula"
            self._tell(choice, peak, f"{load.key} takes {correction.ratio:.2f} {base}", context)

    def finished(self, prepared: Prepared, device: Device, seconds: float) -> None:
        """How long joining and verifying took."""
        memory = ItemMemory(prepared, self._store.calibration, self._threads)
        self._store.timed(speed_key("finish", memory, device, "-"), seconds, prepared.num_frames)

    def raise_after_oom(
        self, prepared: Prepared, choice: Choice, reserved_bytes: int, context: Mapping[str, Any]
    ) -> None:
        """The segment did not fit into what was reserved for it."""
        memory = ItemMemory(prepared, self._store.calibration, self._threads)
        load = memory.load(choice.kind, choice.precision, choice.batch)
        formula = memory.formula_bytes(choice.kind, choice.precision, choice.batch)
        correction = self._store.raise_after_oom(load, formula, choice.reserved_bytes)
        reason = f"out of memory: {load.key} counts as {correction.ratio:.2f} of what was thought now"
        self._tell(choice, reserved_bytes, reason, context)

    def _tell(self, choice: Choice, measured_bytes: int, reason: str, context: Mapping[str, Any]) -> None:
        self._log(
            "memory.corrected",
            **context,
            predicted_bytes=choice.predicted_bytes,
            measured_bytes=measured_bytes,
            batch=choice.batch,
            precision=choice.precision,
            reason=reason,
        )


def speed_key(what: str, memory: ItemMemory, device: Device, precision: str) -> SpeedKey:
    """Under which a time is kept. Simulated cards are as fast as the CPU that they are."""
    size = size_class(memory.picture)
    model = device.model if device.kind != "cpu" else f"cpu x{device.threads}"
    variant = memory.variant if what == "render" else ""
    return SpeedKey(what, memory.engine if what == "render" else "", variant, model or device.kind, precision, size)


@dataclass(frozen=True)
class TimeEstimate:
    """`basis`: "measured" here at this size, "other sizes" (measured here, but not at this one) or "guess": nothing of
    the kind was ever rendered here, and pass 1's own speed has to do. `renders`: measurements behind it."""

    seconds: float
    basis: str
    renders: int = 0


def estimate_time(
    prepared: Prepared, plan: Plan, memory: ItemMemory, devices: Sequence[Device], host: Device, speeds: Speeds
) -> TimeEstimate:
    """Of a job that has the machine to itself: preparing as it was measured just now, the segments side by side in the
    slots that fit, then joining."""
    prepare = sum(prepared.seconds.values())
    per_source = prepared.seconds.get("analyse", 0.0) / (prepared.video.num_frames + _START_FRAMES)
    usable = [d for d in devices if d.kind == plan.device_kind]
    rates = [speeds.seconds_a_frame(speed_key("render", memory, device, plan.precision)) for device in usable]
    known = [rate for rate in rates if rate is not None]
    each = sum(rate[0] for rate in known) / len(known) if known else _RENDER_OF_ANALYSE * per_source
    lanes = sum(_lanes(device, plan) for device in usable) or 1
    longest = max(segment.num_frames for segment in plan.segments)
    frames = max(longest, prepared.num_frames / min(lanes, len(plan.segments)))
    joining = speeds.seconds_a_frame(speed_key("finish", memory, host, "-"))
    finish = _LEAST_FINISH_SECONDS + (joining[0] if joining else _FINISH_OF_ANALYSE * per_source) * prepared.num_frames
    counts = [rate[1] for rate in known]
    basis = "guess" if not known else "measured" if min(counts) else "other sizes"
    return TimeEstimate(round(_START_SECONDS + prepare + each * frames + finish, 1), basis, min(counts, default=0))


def _lanes(device: Device, plan: Plan) -> int:
    """Segments that the device takes side by side."""
    least = plan.of_kind(device.kind)[-1].reserved_bytes
    return max(0, min(device.slots, device.budget_bytes // max(1, least)))


_START_SECONDS = 2.0
"""Processes and imports."""
_LEAST_FINISH_SECONDS = 0.5
_START_FRAMES = 100
"""Pass 1 takes about as long to start (imports, models) as for so many frames: of a still it is all that it takes."""
_RENDER_OF_ANALYSE = 3.0
_FINISH_OF_ANALYSE = 0.3
