"""From a prepared item to its plan: the pure planner, fed with the engine's memory predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heygemd.core.placement import Device
from heygemd.core.plan import DeviceOffer, Plan, PlanRequest, choose_batch, cut
from heygemd.core.settings import SchedulerSettings
from heygemd.work.item import ItemFolder, Prepared

CPU_BATCH = 8
"""Largest batch on a CPU: beyond it only memory grows (docs/performance.md)."""


def plan_item(prepared: Prepared, folder: ItemFolder, devices: Sequence[Device], settings: SchedulerSettings) -> Plan:
    """Raises CannotFitError when no device can render the item even at its smallest."""
    precisions = tuple(dict.fromkeys(point.precision for point in prepared.memory))
    offers = tuple(
        DeviceOffer(d.kind, d.budget_bytes, precisions, CPU_BATCH if d.kind == "cpu" else 128) for d in devices
    )
    size = f"{prepared.video.width}x{prepared.video.height}"
    offer, batch, precision, num_bytes = choose_batch(prepared.predict, offers, what=f"a {size} render")
    request = PlanRequest(
        prepared.num_frames,
        prepared.fps,
        prepared.video.width,
        prepared.video.height,
        settings.segment_seconds,
        settings.max_segment_frames,
        folder.load_arrays("cuts")["cost"],
    )
    return Plan(cut(request), batch, precision, num_bytes, offer.kind)


def with_batch(plan: Plan, prepared: Prepared, batch: int) -> Plan:
    """The same segments with a smaller batch: the first rung of the out-of-memory ladder."""
    return replace(plan, batch=batch, predicted_bytes=prepared.predict(plan.device_kind, plan.precision, batch))
