"""What a scan found, turned into jobs of the journal; and what the command line asks for. Runs in the loop's thread."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from heygemd.core.errors import BadInputError, HeygemdError, LeaseLostError
from heygemd.core.job import Job, JobState
from heygemd.service.calls import Calls
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.fleet import LogEvent
from heygemd.service.standby import Ownership, take_in
from heygemd.spool.control import Request, answer, take_requests
from heygemd.spool.drops import Drop, Scan, Why
from heygemd.spool.farewell import begin_retry, restore
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.names import fold, unique_name

_UNFINISHED = frozenset(state for state in JobState if not state.final)
_MOVING = frozenset({Why.SETTLING, Why.MANIFEST, Why.BUSY})
"""Reasons to wait that pass by themselves soon; `--once` waits for these, not for a partner that may never come."""


def new_job_id() -> str:
    """Sorts by time, unique without coordination."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(4)}"


class Intake:
    """Owns nothing; brings drops into the journal and the dispatcher."""

    def __init__(
        self,
        journal: Journal,
        dispatcher: Dispatcher,
        layout: Layout,
        calls: Calls,
        log: LogEvent,
        clock: Callable[[], float] = time.time,
        ownership: Ownership | None = None,
    ) -> None:
        """`ownership`: of a share that several daemons serve; claims are written there too, and first."""
        self._ownership = ownership
        self._journal = journal
        self._dispatcher = dispatcher
        self._layout = layout
        self._calls = calls
        self._log = log
        self._clock = clock
        self._told: dict[str, str] = {}  # path → reason, so that each wait is logged once
        self._truncated = False

    def resume(self) -> frozenset[str]:
        """Give the dispatcher what an earlier run left unfinished; the ids."""
        jobs = self._journal.jobs(_UNFINISHED)
        for job in jobs:
            if job.state is not JobState.QUEUED:
                self._log("job.resumed", **job.log_context(), stage=job.state.value)
            self._dispatcher.submit(job)
        return frozenset(job.id for job in jobs)

    def take(self, scan: Scan) -> int:
        """Claim what is ready and what is refused; how many."""
        taken = set(self._journal.names() | scan.taken_names) if scan.ready or scan.refused else set()
        count = self._claim([(drop, None) for drop in scan.ready], taken)
        for refusal in scan.refused:
            path = refusal.drop.manifest or next((f.path for f in refusal.drop.inputs), refusal.drop.name)
            self._log("input.refused", path=path, error=refusal.error)
        count += self._claim([(refusal.drop, refusal.error) for refusal in scan.refused], taken)
        self._tell_waits(scan)
        return count

    def _tell_waits(self, scan: Scan) -> None:
        told = {w.path: w.reason.value for w in scan.waiting}
        told |= {unseen.path: unseen.reason for unseen in scan.unreadable}
        for waiting in scan.waiting:
            if self._told.get(waiting.path) != waiting.reason.value and waiting.reason not in _MOVING:
                event = "input.unreadable" if waiting.reason is Why.DENIED else "input.waiting"
                self._log(event, path=waiting.path, reason=waiting.detail)
        for unseen in scan.unreadable:
            if self._told.get(unseen.path) != unseen.reason:
                self._log("input.unreadable", path=unseen.path, reason=unseen.reason)
        self._told = told
        if scan.truncated and not self._truncated:
            self._log("scan.truncated", files=scan.num_files)
        self._truncated = scan.truncated

    def _claim(self, drops: Sequence[tuple[Drop, HeygemdError | None]], taken: set[str]) -> int:
        """Into the journal with one sync of the disk, however many dropped at once; then to the dispatcher."""
        jobs: dict[str, tuple[Job, Drop]] = {}
        for drop, error in drops:
            name = unique_name(drop.name, taken)
            taken.add(fold(name))
            job = drop.to_job(new_job_id(), name, self._clock())
            if error is not None:
                job = job.evolve(error=error.to_dict())
            jobs[job.id] = (job, drop)
        made = [job for job, _ in jobs.values()]
        if not made:
            return 0
        if self._ownership is None:
            return self._enter(made)
        claim = partial(_claim_on_share, self._ownership, made)
        self._calls.start(f"claim {made[0].id}", claim, partial(self._claimed, made))
        return len(made)

    def _enter(self, jobs: Sequence[Job]) -> int:
        added = self._journal.add_all(jobs)
        for job in added:
            if job.error is None:
                path = job.manifest or job.items[0].video
                self._log("job.claimed", **job.log_context(), path=path, count=len(job.items), folder=job.folder)
            self._dispatcher.submit(job)
        return len(added)

    def _claimed(self, jobs: Sequence[Job], holders: Sequence[Job] | None, error: HeygemdError | None) -> None:
        """The share has said whose each drop is. What failed is seen again by the next scan."""
        if error is not None or holders is None or self._ownership is None:
            if not isinstance(error, LeaseLostError):
                self._log("daemon.degraded", reason="drops could not be claimed on the share", error=error)
            return
        self._enter([job for job, holder in zip(jobs, holders, strict=True) if holder.id == job.id])
        for holder in (holder for job, holder in zip(jobs, holders, strict=True) if holder.id != job.id):
            known = self._journal.get(holder.id)
            if known is None and (taken := take_in(self._journal, holder)) is not None:
                self._log("job.adopted", **taken.log_context())
                self._dispatcher.submit(taken)
            elif known is not None and known.state.final:
                self.let_go(known)  # a claim that outlived its job: the next scan finds the drop free

    def let_go(self, job: Job) -> None:
        """An ended job claims nothing on the share any more, unless inputs of it still lie in the inbox."""
        if self._ownership is not None and all(job.id != stuck.id for stuck in self._journal.stuck_jobs()):
            self._calls.start(f"release {job.id}", partial(self._ownership.book.release, job), _released)

    # ---- the command line ----

    def serve_requests(self) -> None:
        for request in take_requests(self._layout.control):
            if not self._calls.running(request.id):
                self._serve(request)

    def _serve(self, request: Request) -> None:
        self._log("control.received", reason=request.action, path=request.job)
        try:
            if request.action == "retry":
                self._retry(request)
                return  # answered when the share has
            message = self._act(request)
        except HeygemdError as error:
            self._answer(request, error)
            return
        answer(self._layout.control, request.id, True, message)

    def _act(self, request: Request) -> str:
        if request.action == "cancel":
            return self._cancel(self._find(request))
        if request.action == "pause":
            self._journal.set_setting("paused", True)
            self._dispatcher.pauses.pause("`heygemd pause` was called", cause="operator")
            return "paused: running segments end, nothing new starts"
        if request.action == "resume":
            self._journal.set_setting("paused", None)
            self._dispatcher.pauses.resume()
            return "the queue goes on"
        if request.action == "scan":
            return "a scan was asked for"
        raise BadInputError(f"the daemon does not do {request.action!r}", remedy="Update the older of the two.")

    def _find(self, request: Request) -> Job:
        job = self._journal.get(request.job) if request.job else None
        if job is None:
            raise BadInputError(
                f"there is no job {request.job!r}", remedy="`heygemd status` lists the jobs.", case="no_job"
            )
        return job

    def _cancel(self, job: Job) -> str:
        if job.state.final:
            raise BadInputError(
                f"{job.name} is {job.state.value} already",
                remedy="There is nothing to cancel.",
                case="over",
                state=job.state.value,
            )
        self._dispatcher.cancel(job.id)
        return f"{job.name} is being cancelled; its inputs go to failed/{job.name}/"

    def _retry(self, request: Request) -> None:
        job = self._find(request)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            raise BadInputError(
                f"{job.name} is {job.state.value}",
                remedy="Only failed or cancelled jobs are retried.",
                case="not_over",
                state=job.state.value,
            )
        # What was refused before it became a job is read anew from the inbox.
        way: Callable[[Job, Layout], Any] = begin_retry if job.items else restore
        again = partial(_begin_again, self._ownership, way, job, self._layout)
        self._calls.start(request.id, again, partial(self._retried, request, job))

    def _retried(self, request: Request, job: Job, _value: Any, error: HeygemdError | None) -> None:
        if error is not None:
            self._answer(request, error)
            return
        self._log("job.retried", **job.log_context())
        if job.items:
            job = job.evolve(
                state=JobState.QUEUED, error=None, ended_seconds=None, started_seconds=None, attempts=job.attempts + 1
            )
            self._journal.update(job)
            self._journal.clear_segments(job.id)
            self._dispatcher.submit(job)
            message = f"{job.name} is queued again"
        else:
            self._journal.remove(job.id)
            message = f"the files of {job.name} are back in the inbox and will be read again"
        answer(self._layout.control, request.id, True, message)

    def _answer(self, request: Request, error: HeygemdError) -> None:
        self._log("control.refused", reason=error.message, error=error)
        answer(self._layout.control, request.id, False, error.message, error=error.to_dict())


def _claim_on_share(ownership: Ownership, jobs: Sequence[Job]) -> list[Job]:
    ownership.fence()
    return ownership.book.claim(jobs)


def _begin_again(ownership: Ownership | None, way: Callable[[Job, Layout], Any], job: Job, layout: Layout) -> None:
    way(job, layout)
    if ownership is not None and job.items:
        _claim_on_share(ownership, [job])


def _released(_value: Any, _error: HeygemdError | None) -> None:
    """A claim that stays is released by the next daemon that works: its journal, or the inbox, knows better."""


def settled(scan: Scan) -> bool:
    """Nothing in the inbox is about to become a job by itself."""
    return not scan.ready and not scan.refused and all(w.reason not in _MOVING for w in scan.waiting)
