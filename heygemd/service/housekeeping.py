"""What must happen now and then: room on the disks, retention, forgetting old jobs. Blocking parts run as calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from heygemd.config import Settings
from heygemd.core.errors import HeygemdError
from heygemd.core.job import JobState
from heygemd.ops import retention
from heygemd.service.calls import Calls
from heygemd.service.dispatcher import Dispatcher
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.places import free_bytes
from heygemd.spool.status import prune_status

_DISK_SECONDS = 10.0
_FORGET_SECONDS = 30 * 86400.0


_UNFINISHED = frozenset(state for state in JobState if not state.final)


def clean(layout: Layout, settings: Settings, busy: Collection[str]) -> tuple[retention.Plan, retention.Outcome]:
    """One clean-up of outbox, failed and archive; what was planned and what was done."""
    layout.check_share()  # what cannot be seen is not old
    roots: dict[retention.Kind, Path] = {"outbox": layout.outbox, "failed": layout.failed, "archive": layout.archive}
    folders = [folder for kind, root in roots.items() for folder in retention.survey(root, kind)]
    free = retention.free_bytes(layout.root)
    plan = retention.plan(folders, settings.retention, now_seconds=time.time(), free_bytes=free, busy=busy)
    return plan, retention.execute(plan, roots)


class Housekeeping:
    """Called from the loop every half second; decides by itself what is due."""

    def __init__(
        self, settings: Settings, layout: Layout, journal: Journal, calls: Calls, log: Callable[..., None]
    ) -> None:
        self.settings = settings
        self._layout = layout
        self._journal = journal
        self._calls = calls
        self._log = log
        self._next_disk = 0.0
        self._next_clean = 0.0
        self._low: str | None = None

    def step(self, now: float, dispatcher: Dispatcher) -> None:
        """`now`: monotonic seconds."""
        if now >= self._next_disk:
            self._next_disk = now + _DISK_SECONDS
            self._calls.start("disk", self._lowest, partial(self._looked, dispatcher))
        if now >= self._next_clean:
            self._next_clean = now + self.settings.retention.interval_seconds
            busy = frozenset(job.id for job in self._journal.jobs(_UNFINISHED))
            self._calls.start("clean", partial(clean, self._layout, self.settings, busy), self._cleaned)

    def _lowest(self) -> tuple[str, int] | None:
        """The disk that has too little room, and its free bytes."""
        service = self.settings.service
        for folder, least in (
            (self._layout.state, service.min_free_state_bytes),
            (self._layout.root, service.min_free_share_bytes),
        ):
            try:
                free = free_bytes(folder)
            except OSError:
                continue  # away: the scan says so
            if free < least:
                return str(folder), free
        return None

    def _looked(self, dispatcher: Dispatcher, found: tuple[str, int] | None, error: HeygemdError | None) -> None:
        if error is not None or found is None:
            if self._low is not None and dispatcher.paused_reason == self._low:
                dispatcher.resume()
            self._low = None
            return
        path, free = found
        reason = f"little room on {path}"
        if self._low is None:
            self._log("disk.low", path=path, free_bytes=free, reason="the queue waits until there is room")
        self._low = reason
        if dispatcher.paused_reason is None:
            dispatcher.pause(reason)

    def _cleaned(self, done: tuple[retention.Plan, retention.Outcome] | None, error: HeygemdError | None) -> None:
        if error is not None or done is None:
            self._log("retention.failed", path=str(self._layout.root), error=error)
            return
        plan, outcome = done
        reasons = {removal.folder: removal.reason for removal in plan.removals}
        for folder in outcome.removed:
            path = f"{folder.kind}/{folder.relative}/"
            self._log("retention.removed", path=path, reason=reasons[folder], num_bytes=folder.size_bytes)
        self._journal.forget(time.time() - _FORGET_SECONDS)
        names = frozenset(job.name for job in self._journal.jobs())
        self._calls.start("status", partial(prune_status, self._layout, names), _ignore)


def _ignore(_value: Any, _error: HeygemdError | None) -> None:
    """Stale status files only mislead; the next hour tries again."""
