"""What must happen now and then: room on the disks, retention, forgetting old jobs. Blocking parts run as calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from heygemd.config import Settings
from heygemd.core.errors import HeygemdError
from heygemd.core.job import Job, JobState
from heygemd.core.settings import RetentionSettings
from heygemd.ops.retention import Removal, clean
from heygemd.service import views
from heygemd.service.calls import Calls
from heygemd.service.dispatcher import Dispatcher
from heygemd.spool.control import sweep_answers
from heygemd.spool.farewell import Moved, tidy
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.mounts import is_read_only
from heygemd.spool.places import free_bytes
from heygemd.spool.status import prune_status, told_otherwise, write_status

_DISK_SECONDS = 10.0
_FORGET_SECONDS = 30 * 86400.0


_UNFINISHED = frozenset(state for state in JobState if not state.final)
_FINAL = frozenset(state for state in JobState if state.final)
_MOST_REPAIRED = 5000


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
        self.room: dict[str, tuple[int, int]] = {}  # disk → free bytes, least bytes

    def begin(self) -> None:
        """Once, before the first step: what an earlier daemon could not say because it was killed."""
        ended = self._journal.jobs(_FINAL, limit=_MOST_REPAIRED)
        self._calls.start("repair", partial(self._repair, ended), _ignore)

    def _repair(self, ended: Collection[Job]) -> None:
        for job in told_otherwise(self._layout, ended):
            write_status(self._layout, job, views.final(job))

    def step(self, now: float, dispatcher: Dispatcher) -> None:
        """`now`: monotonic seconds."""
        if now >= self._next_disk:
            self._next_disk = now + _DISK_SECONDS
            self._calls.start("disk", self._lowest, partial(self._looked, dispatcher))
        if now >= self._next_clean:
            self._next_clean = now + self.settings.retention.interval_seconds
            busy = frozenset(job.id for job in self._journal.jobs(_UNFINISHED))
            self._calls.start("clean", partial(self._clean, self.settings.retention, busy), self._cleaned)
            for job in self._journal.stuck_jobs():
                needed = self._journal.still_needed(job.id)
                self._calls.start(
                    f"tidy {job.id}", partial(tidy, job, self._layout, still_needed=needed), partial(self._tidied, job)
                )

    def _lowest(self) -> tuple[str, int | None] | None:
        """The disk that has too little room, and its free bytes; None for one that cannot be written at all."""
        service = self.settings.service
        low: tuple[str, int | None] | None = None
        for disk, folder, least in (
            ("share", self._layout.root, service.min_free_share_bytes),
            ("state", self._layout.state, service.min_free_state_bytes),
        ):
            try:
                free = free_bytes(folder)
                read_only = is_read_only(folder)
            except OSError:
                continue  # away: the scan says so
            self.room = self.room | {disk: (free, least)}
            if read_only:
                return str(folder), None
            if free < least:
                low = str(folder), free
        return low

    def _looked(self, dispatcher: Dispatcher, found: tuple[str, int | None] | None, error: HeygemdError | None) -> None:
        if error is not None or found is None:
            if self._low is not None:
                dispatcher.pauses.resume(self._low)
            self._low = None
            return
        path, free = found
        reason = f"{path} is mounted read-only" if free is None else f"little room on {path}"
        if self._low is not None and self._low != reason:
            dispatcher.pauses.resume(self._low)
        elif self._low is None and free is not None:
            self._log("disk.low", path=path, free_bytes=free, reason="the queue waits until there is room")
        self._low = reason
        dispatcher.pauses.pause(reason, cause="disk")

    def _clean(self, settings: RetentionSettings, busy: Collection[str]) -> list[Removal]:
        self._layout.check_share()  # what cannot be seen is not old
        sweep_answers(self._layout.control)
        return clean(self._layout.root, settings, busy=busy)

    def _cleaned(self, removed: list[Removal] | None, error: HeygemdError | None) -> None:
        if error is not None or removed is None:
            self._log("retention.failed", path=str(self._layout.root), error=error)
            return
        for removal in removed:
            folder = removal.folder
            path = f"{folder.kind}/{folder.relative}/"
            self._log("retention.removed", path=path, reason=removal.reason, num_bytes=folder.size_bytes)
        self._journal.forget(time.time() - _FORGET_SECONDS)
        self._calls.start("status", partial(prune_status, self._layout, self._journal.names()), _ignore)

    def _tidied(self, job: Job, moved: Moved | None, error: HeygemdError | None) -> None:
        """Inputs that could not be moved when their job ended may be free now; what still is not waits an hour more."""
        if error is None and moved is not None:
            self._journal.finish(job, except_paths=moved.stuck_paths)


def _ignore(_value: Any, _error: HeygemdError | None) -> None:
    """Stale status files only mislead; the next hour tries again."""
