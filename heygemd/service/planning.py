"""From a prepared item to its plan: the pure planner, fed with formulas and what measurements taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heygemd.core.capacity import Device
from heygemd.core.ceiling import Ceiling
from heygemd.core.coding import Coding
from heygemd.core.errors import CannotFitError
from heygemd.core.memory import (
    HOST_KIND,
    Calibration,
    Estimate,
    Load,
    Picture,
    bytes_per_pixel,
    coder_bytes,
    host_bytes,
    pipeline_bytes,
    size_class,
)
from heygemd.core.plan import DeviceOffer, Plan, PlanRequest, choices, cut, expected, monotone
from heygemd.core.settings import SchedulerSettings
from heygemd.gpu.devices import most_bytes
from heygemd.work.item import ItemFolder, Prepared

BEST_BATCH = {"cpu": 8, "cuda": 64}
"""Beyond it only memory grows (docs/scheduling.md), unless the engine knows better."""


def best_batch(known: Mapping[str, int], kind: str) -> int:
    """`known`: what the engine says of itself."""
    return known.get(kind, BEST_BATCH[kind])


class ItemMemory:
    """The memory model at one item's resolution. `threads`: of a CPU worker's encoder. `coding`: the prepared one
    unless given."""

    def __init__(
        self, prepared: Prepared, calibration: Calibration, threads: int = 1, coding: Coding | None = None
    ) -> None:
        self._prepared = prepared
        self._coding = coding or prepared.coding
        self._calibration = calibration
        self._threads = threads
        self.picture = picture_of(prepared)

    def load(self, kind: str, precision: str, batch: int) -> Load:
        return Load(self._prepared.engine, self.variant, kind, precision, size_class(self.picture), batch)

    @property
    def engine(self) -> str:
        return self._prepared.engine

    @property
    def variant(self) -> str:
        """Of the network, and which checkpoint it is."""
        checkpoint = self._prepared.summary.get("checkpoint_id")
        return str(self._prepared.summary.get("variant", "")) + (f"@{checkpoint}" if checkpoint else "")

    def formula_bytes(self, kind: str, precision: str, batch: int) -> int:
        """The engine's part, and on a CPU the pipeline's: on a GPU lies nothing else of it."""
        engine = self._prepared.predict(kind, precision, batch)
        return engine + (pipeline_bytes(self.picture, batch, self._threads) if kind == "cpu" else 0)

    def estimate(self, kind: str, precision: str, batch: int) -> Estimate:
        """Of the device's memory; for a CPU that is all there is. Elsewhere the host's RAM comes beside it."""
        found = self._calibration.estimate(
            self.load(kind, precision, batch), self.formula_bytes(kind, precision, batch)
        )  # fmt: skip
        if kind == "cpu":
            return found
        beside = self._calibration.estimate(self.load(HOST_KIND, precision, batch), host_bytes(self.picture, batch))
        coders = coder_bytes(self.picture) if self._coding.on_card else 0
        return replace(found, host_bytes=beside.reserved_bytes, reserved_bytes=found.reserved_bytes + coders)


def picture_of(prepared: Prepared) -> Picture:
    """What the memory of the pipeline depends on. A speech longer than its clip plays it backwards too."""
    video = prepared.video
    backwards = prepared.options.extend == "pingpong" and prepared.num_frames > video.num_frames
    return Picture(
        video.width,
        video.height,
        bytes_per_pixel(video.pix_fmt, video.bit_depth),
        deep=video.bit_depth > 8,
        backward_frames=video.num_frames if backwards and not video.still else 0,
    )


def cpu_threads(devices: Sequence[Device]) -> int:
    """Of the CPU workers among the devices."""
    return max((device.threads for device in devices if device.kind == "cpu"), default=1)


def ceiling_of(
    devices: Sequence[Device], host: Device, settings: SchedulerSettings, calibration: Calibration
) -> Ceiling:
    """What these devices could ever give, free or not."""
    most: dict[str, int] = {}
    for device in devices:
        most[device.kind] = max(most.get(device.kind, 0), most_bytes(device, settings))
    ratios = {kind: calibration.least_ratio(kind) for kind in ("cpu", "cuda")}
    return Ceiling(most, most_bytes(host, settings), ratios)


def plan_item(
    prepared: Prepared,
    folder: ItemFolder,
    devices: Sequence[Device],
    settings: SchedulerSettings,
    calibration: Calibration | None = None,
) -> Plan:
    """Raises CannotFitError when no device can render the item even at its smallest, without a card's coders."""
    try:
        return _plan_item(prepared, folder, devices, settings, calibration or Calibration(), prepared.coding)
    except CannotFitError:
        if not prepared.coding.on_card:
            raise
    why = "the card has no room for it beside the render"
    coding = Coding(encoder_reason=why, decoder_reason=why)
    return _plan_item(prepared, folder, devices, settings, calibration or Calibration(), coding)


def _plan_item(
    prepared: Prepared,
    folder: ItemFolder,
    devices: Sequence[Device],
    settings: SchedulerSettings,
    calibration: Calibration,
    coding: Coding,
) -> Plan:
    memory = ItemMemory(prepared, calibration, cpu_threads(devices), coding)
    offers = _offers(prepared, devices)
    video = prepared.video
    if not offers:
        kinds = " or ".join(sorted({point.device for point in prepared.memory}))
        raise CannotFitError(
            f"engine {prepared.engine} runs on {kinds}, and no such device is configured",
            remedy="Add it to scheduler.devices, or choose another engine.",
            case="no_device",
            engine=prepared.engine,
        )
    found = choices(memory.estimate, offers, what=f"a {video.width}x{video.height} render")
    request = PlanRequest(
        prepared.num_frames,
        prepared.fps,
        video.width,
        video.height,
        settings.segment_seconds,
        settings.max_segment_frames,
        folder.load_arrays("cuts")["cost"],
        settings.max_segment_megapixels * 10**6,
    )
    best = expected(found, offers)
    return Plan(cut(request), best.batch, best.precision, best.predicted_bytes, best.kind, found, coding=coding)


def _offers(prepared: Prepared, devices: Sequence[Device]) -> tuple[DeviceOffer, ...]:
    precisions = {
        kind: tuple(dict.fromkeys(point.precision for point in prepared.memory if point.device == kind))
        for kind in {point.device for point in prepared.memory}
    }
    return tuple(
        DeviceOffer(d.kind, d.budget_bytes, precisions[d.kind], best_batch(prepared.best_batch, d.kind), d.slots)
        for d in devices
        if d.kind in precisions
    )


def with_estimates(plan: Plan, prepared: Prepared, devices: Sequence[Device], calibration: Calibration) -> Plan:
    """The same choices with the bytes that the calibration gives them now.

    What was admitted stays possible: where even the smallest is now thought too large, it gets all of the largest
    device, and is tried.
    """
    memory = ItemMemory(prepared, calibration, cpu_threads(devices), plan.coding)
    most: dict[str, int] = {}
    for device in devices:
        most[device.kind] = max(most.get(device.kind, 0), device.budget_bytes)
    least = {kind: plan.of_kind(kind)[-1] for kind in plan.needs}
    updated = []
    for choice in plan.choices:
        estimate = memory.estimate(choice.kind, choice.precision, choice.batch)
        reserved = estimate.reserved_bytes
        if choice == least[choice.kind] and most.get(choice.kind):
            reserved = min(reserved, most[choice.kind])
        updated.append(
            replace(
                choice,
                predicted_bytes=estimate.predicted_bytes,
                reserved_bytes=reserved,
                host_bytes=estimate.host_bytes,
            )
        )
    return replace(plan, choices=monotone(updated))
