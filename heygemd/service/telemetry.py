"""The figures that no event tells: what the loop sees every half second, and a copy of all of them on the share."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from heygemd.core.errors import HeygemdError, ShareAwayError
from heygemd.core.job import JobState
from heygemd.files import explained, write_json
from heygemd.ops.exposition import CAUSES, Figures
from heygemd.service.calls import Calls
from heygemd.service.dispatcher import Dispatcher
from heygemd.spool.layout import Layout

_SHARE_SECONDS = 2.0
_LONG = "heygemd_events_total"


class Telemetry:
    """Called from the loop; `step` when the daemon is well enough to come so far."""

    def __init__(
        self,
        figures: Figures,
        layout: Layout,
        calls: Calls,
        log: Callable[..., None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = log
        self._told: str | None = None
        self._figures = figures
        self._layout = layout
        self._calls = calls
        self._clock = clock
        self._next_share_seconds = 0.0  # monotonic
        self._known: set[str] = set()

    def step(
        self,
        now: float,
        dispatcher: Dispatcher,
        *,
        ready: bool,
        degraded: bool,
        scanned_seconds: float | None,
        room: dict[str, tuple[int, int]],
    ) -> None:
        """`now`: monotonic; `scanned_seconds`: Unix time; `room`: disk → free bytes, least bytes."""
        put = self._figures.set
        put("heygemd_ready", ready)
        put("heygemd_degraded", degraded)
        if scanned_seconds is not None:
            put("heygemd_scan_timestamp_seconds", scanned_seconds)
        for disk, (free, least) in room.items():
            put("heygemd_disk_free_bytes", free, disk=disk)
            put("heygemd_disk_min_free_bytes", least, disk=disk)
        states = dispatcher.states
        for state in JobState:
            if not state.final:
                put("heygemd_jobs", states[state], state=state.value)
        oldest = dispatcher.oldest_queued_seconds
        put("heygemd_queue_age_seconds", 0.0 if oldest is None else max(0.0, self._clock() - oldest))
        causes = dispatcher.pauses.causes
        for cause in CAUSES:
            put("heygemd_queue_paused", cause in causes, cause=cause)
        self._devices(dispatcher)
        if now >= self._next_share_seconds:
            self._next_share_seconds = now + _SHARE_SECONDS
            self._calls.start("figures", partial(self._write, self._document()), self._written)

    def close(self) -> None:
        """The daemon ends, or stands by while another one works: what it saw last is no longer so."""
        self._figures.set("heygemd_ready", 0)

    def _devices(self, dispatcher: Dispatcher) -> None:
        put = self._figures.set
        for use in dispatcher.devices_in_use():
            name = use.device.name
            if name not in self._known:
                self._known.add(name)
                self._figures.add_device(name)
            put("heygemd_device_up", use.up, device=name)
            put("heygemd_device_memory_bytes", use.device.total_bytes, device=name)
            put("heygemd_device_budget_bytes", use.device.budget_bytes, device=name)
            put("heygemd_device_reserved_bytes", use.reserved_bytes, device=name)
            put("heygemd_device_slots", use.device.slots, device=name)
            put("heygemd_device_slots_used", use.used_slots, device=name)
            put("heygemd_workers", use.workers, device=name)
            if use.used_bytes is not None:
                put("heygemd_device_used_bytes", use.used_bytes, device=name)

    def _document(self) -> dict[str, Any]:
        values = {key: value for key, value in self._figures.values().items() if not key.startswith(_LONG)}
        at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {"version": 1, "updated": at, "metrics": values}

    def _write(self, document: dict[str, Any]) -> None:
        with explained("figures on the share"):
            write_json(self._layout.figures, document, durable=False)

    def _written(self, _value: Any, error: HeygemdError | None) -> None:
        """It only informs, and an absent share is told by the scan; but whoever looks must not see yesterday's."""
        why = None if error is None or isinstance(error, ShareAwayError) else error.message
        if why is not None and self._told is None:
            self._log("status.failed", path=str(self._layout.status), error=error)
        self._told = why
