"""Plans of items: made once they are prepared, kept in the work folder and the journal, loaded after a restart."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.ceiling import Ceiling
from heygemd.core.coding import Card
from heygemd.core.errors import DiskFullError, HeygemdError, InputBusyError, ShareAwayError
from heygemd.core.plan import Plan
from heygemd.core.settings import SchedulerSettings
from heygemd.failpoints import failpoint
from heygemd.files import explained
from heygemd.gpu.calibration import CalibrationStore
from heygemd.service.active import ActiveItem, ActiveJob
from heygemd.service.fleet import Fleet, LogEvent
from heygemd.service.ledgerbook import Ledgerbook
from heygemd.service.planning import ceiling_of, plan_item
from heygemd.service.room import WorkRoom, render_bytes
from heygemd.service.tasks import TaskSettings, card_of
from heygemd.work.item import Prepared


class Plans:
    """What each item is cut into, for the devices that the fleet has. Called from the dispatcher's thread."""

    def __init__(self, journal: Ledgerbook, fleet: Fleet, store: CalibrationStore, log: LogEvent) -> None:
        self._journal = journal
        self._fleet = fleet
        self._store = store
        self._log = log

    def make(self, active: ActiveJob, item: ActiveItem, settings: TaskSettings) -> None:
        """Plan a prepared item, or load its plan and what of it is done. What cannot be planned ends the item.

        Raises DiskFullError and its like where the work folder has no room or cannot be used now: that is not the
        item's fault.
        """
        if self._fleet.elastic and not self._fleet.configured:
            return  # nobody knows yet what it is to be planned for; asked again in the next round
        with explained(f"work folder of {active.job.name}"):
            self._make(active, item, settings)

    def _make(self, active: ActiveJob, item: ActiveItem, settings: TaskSettings) -> None:
        scheduler = settings.scheduler
        try:
            item.prepared = item.folder.load_prepared()
            plan = item.folder.load_plan()
            if plan is None or not plan.choices:
                offers = self.offers(scheduler, item.prepared)
                fresh = plan_item(item.prepared, item.folder, offers, scheduler, self._store.calibration)
                if plan is None:
                    room = WorkRoom(active.work.parent, settings.max_work_bytes, settings.min_free_work_bytes)
                    room.require(f"segments and result of {item.item.name}", render_bytes(item.prepared))
                if plan is not None:
                    fresh = replace(fresh, segments=plan.segments, coding=plan.coding)
                plan = fresh
                self.keep(active, item, plan)
                self._tell(active, item, item.prepared, plan)
            item.plan = plan
        except (DiskFullError, ShareAwayError, InputBusyError):
            raise
        except HeygemdError as error:
            item.error = error
            return
        item.done_segments = {s.number for s in plan.segments if item.folder.segment(s.number).exists()}
        item.segment_stats = self._stats(active, item)
        item.result = item.folder.load_result()

    def _stats(self, active: ActiveJob, item: ActiveItem) -> dict[int, dict[str, Any]]:
        """Of each finished segment: the journal's, or the worker's own where a crash came before the journal knew."""
        stats = dict(self._journal.segment_stats(active.job.id, item.item.name))
        for number in item.done_segments - stats.keys():
            found = item.folder.load_segment_stats(number)
            if found is not None:
                stats[number] = found
        return stats

    def keep(self, active: ActiveJob, item: ActiveItem, plan: Plan) -> None:
        """Make `plan` the item's, durably."""
        with explained(f"plan of {active.job.name}"):
            failpoint("plan.save")
            item.folder.save_plan(plan)
        item.plan = plan
        self._journal.set_plan(active.job.id, item.item.name, [asdict(s) for s in plan.segments])

    def offers(self, scheduler: SchedulerSettings, prepared: Prepared | None = None) -> tuple[Device, ...]:
        """What a plan may count on: the devices of now, those that are away for a moment, and the way out. An engine
        that knows no GPU renders on the host, whatever is configured for the others."""
        here = {d.name: d for d in self._fleet.renders}
        found = tuple(here.get(d.name, d) for d in self._fleet.configured)
        only_host = prepared is not None and self.needs_host({point.device for point in prepared.memory})
        return (*found, self._fleet.host) if only_host or scheduler.cpu_fallback else found

    def needs_host(self, kinds: Collection[str]) -> bool:
        return not any(device.kind in kinds for device in self._fleet.configured)

    def cards(self, scheduler: SchedulerSettings) -> tuple[Card, ...]:
        """Of this machine, that may render. Those of a cluster are elsewhere."""
        found = () if self._fleet.elastic else self.offers(scheduler)
        return tuple(card_of(device) for device in found if device.kind == "cuda")

    def ceiling(self, scheduler: SchedulerSettings) -> Ceiling:
        """What tasks could ever be given here. A cluster may grow."""
        found = ceiling_of(self.offers(scheduler), self._fleet.host, scheduler, self._store.calibration)
        return replace(found, by_kind=None) if self._fleet.elastic else found

    def kinds(self, scheduler: SchedulerSettings) -> tuple[str, ...]:
        """Device kinds that an item's memory must be predicted for."""
        ever = {"cpu", "cuda"} if self._fleet.elastic else set()
        return tuple(sorted(ever | {device.kind for device in self.offers(scheduler)}))

    def _tell(self, active: ActiveJob, item: ActiveItem, prepared: Prepared, plan: Plan) -> None:
        self._log(
            "job.planned",
            **active.job.log_context(),
            item=item.item.name,
            segments=len(plan.segments),
            frames=prepared.num_frames,
            batch=plan.batch,
            precision=plan.precision,
            predicted_bytes=plan.predicted_bytes,
            engine=prepared.engine,
            reason=prepared.engine_reason,
        )
        self._log(
            "encoder.chosen",
            **active.job.log_context(),
            item=item.item.name,
            encoder=plan.coding.encoder,
            decoder=plan.coding.decoder,
            reason=plan.coding.encoder_reason,
        )
