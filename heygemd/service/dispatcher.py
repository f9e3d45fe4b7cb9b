"""The heart of the daemon: jobs in, tasks out. One thread; whatever may block runs on the pool or in a worker.

`step` is listen → advance → schedule, and may be called as often as one likes. Everything it knows can be rebuilt
from the journal and the work folders, so a restart repeats only what was not finished.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from heygemd.core.errors import CancelledError, DiskFullError, HeygemdError, InputBusyError, ShareAwayError
from heygemd.core.job import Job, JobState
from heygemd.core.placement import Device
from heygemd.failpoints import failpoint
from heygemd.files import explained, remove_tree
from heygemd.gpu.calibration import CalibrationStore
from heygemd.gpu.watch import Watch
from heygemd.service import views
from heygemd.service.active import ActiveJob
from heygemd.service.admission import Admission, in_order
from heygemd.service.door import Delivery, Door, InputGoneError
from heygemd.service.fleet import DeviceUse, LogEvent
from heygemd.service.ledgerbook import Ledgerbook
from heygemd.service.pauses import Pauses
from heygemd.service.pool import Answer, Board, Kind, SharePool
from heygemd.service.pulse import Pulse
from heygemd.service.runner import TaskRunner
from heygemd.service.tasks import TaskSettings
from heygemd.service.waits import PAUSE_SECONDS, Waits
from heygemd.spool.fairness import Load
from heygemd.work.executor import Executor

_POLL_SECONDS = 0.2
_POOL_SECONDS = 0.02


class Dispatcher:
    """See the module. Not thread-safe: its owner's loop is the only caller."""

    def __init__(
        self,
        *,
        journal: Ledgerbook,
        executor: Executor,
        door: Door,
        devices: Sequence[Device],
        host: Device,
        settings: TaskSettings,
        work: Path,
        log: LogEvent,
        clock: Callable[[], float] = time.time,
        status_seconds: float = 1.0,
        calibration: CalibrationStore | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._journal = journal
        self._door = door
        self._work = work
        self._log = log
        self._clock = clock
        self._status_seconds = status_seconds
        self.pauses = Pauses(log, clock)
        self._runner = TaskRunner(
            journal=journal,
            executor=executor,
            devices=devices,
            host=host,
            settings=settings,
            log=log,
            clock=clock,
            pause=self.pauses.pause_for,
            calibration=calibration,
            watch=watch,
        )
        self._queued: dict[str, Job] = {}
        self._admission = Admission(settings.scheduler.aging_seconds)
        self._active: dict[str, ActiveJob] = {}
        self._waits = Waits(self.pauses, self._admission, self._active, log)
        self._pool: SharePool[ActiveJob] = SharePool()
        self._board = Board(door.show)
        self._shown_queue_seconds = 0.0
        self._submitted = False  # since the last round
        self.draining = False
        self.ended: list[Job] = []  # jobs that are over; the caller takes them

    # ---- what the caller may ask ----

    @property
    def settings(self) -> TaskSettings:
        return self._runner.settings

    @settings.setter
    def settings(self, value: TaskSettings) -> None:
        self._runner.settings = value

    def submit(self, job: Job) -> None:
        """A job of the journal that is not over. The journal holds it already."""
        self._queued[job.id] = job
        self._admission.offer(job)
        self._submitted = True

    def cancel(self, job_id: str) -> bool:
        """End a job; its inputs go to failed/. False when it is not here."""
        if job_id in self._queued:
            self._admission.withdraw(self._queued[job_id])
            self._activate(self._queued.pop(job_id))
        active = self._active.get(job_id)
        if active is None:
            return False
        active.cancelled = True
        self._runner.cancel(active)
        return True

    @property
    def problem(self) -> str | None:
        """Why nothing can render now, where that is known: a cluster that is away."""
        return self._runner.problem

    @property
    def idle(self) -> bool:
        return not self._queued and not self._active

    @property
    def counts(self) -> dict[str, int]:
        return {"queued": len(self._queued), "active": len(self._active), "tasks": self._runner.num_running}

    @property
    def pulse(self) -> Pulse:
        """Whether workers answer."""
        return self._runner.pulse

    @property
    def states(self) -> Counter[JobState]:
        """How many jobs that are not over are in which state."""
        return Counter({JobState.QUEUED: len(self._queued)}) + Counter(a.job.state for a in self._active.values())

    @property
    def oldest_queued_seconds(self) -> float | None:
        """When the job that has waited longest was claimed (Unix time)."""
        return min((job.created_seconds for job in self._queued.values()), default=None)

    def devices_in_use(self) -> list[DeviceUse]:
        return self._runner.devices_in_use()

    def pending_by_folder(self) -> dict[str, Load]:
        """What of each drop folder waits."""
        found: defaultdict[str, Load] = defaultdict(Load)
        for job in self._queued.values():
            found[job.folder] = found[job.folder].with_one(sum(file.size for file in job.inputs))
        return dict(found)

    def views(self) -> dict[str, dict[str, Any]]:
        """Job name → what its status file says."""
        now = self._clock()
        queued = {
            job.name: self._queued_view(job, position, now) for position, job in enumerate(self._order(now), start=1)
        }
        return queued | {
            a.job.name: views.active(a, self._runner.devices_of(a), self.pauses.reason, now, self.problem)
            for a in self._active.values()
        }

    def close(self) -> None:
        """End workers and threads. Nothing is lost: what was not finished starts again from its last segment."""
        self._runner.close()
        self._pool.close()
        self._board.close()

    # ---- one round ----

    def step(self, timeout_seconds: float = _POLL_SECONDS) -> None:
        """A disk that is full or away pauses the queue and is tried again: what was not taken in comes again."""
        try:
            self._round(timeout_seconds)
        except (DiskFullError, ShareAwayError, InputBusyError) as error:
            self.pauses.pause_for(error, PAUSE_SECONDS)

    @property
    def _goes_on(self) -> bool:
        """Whether anything new may start."""
        return self.pauses.reason is None and not self.draining

    def _round(self, timeout_seconds: float) -> None:
        # Neither a new job nor an answer of the pool wakes the wait for workers: for the one it does not wait, for the
        # other it looks more often.
        most_seconds = 0.0 if self._submitted else _POOL_SECONDS if self._pool.busy else timeout_seconds
        self._submitted = False
        self._runner.poll(min(timeout_seconds, most_seconds))
        for answer in self._pool.collect():
            self._answered(answer)
        now = self._clock()
        self.pauses.look_again(now)
        if self._goes_on:
            self._admit(now)  # before they advance: a new job's inputs are copied at once
        for active in list(self._active.values()):
            self._advance(active, now)
        if self._goes_on:
            self._runner.start(self._active.values(), now)
        self._show(now)

    def _order(self, now: float) -> list[Job]:
        """Waiting jobs, about as they will be let in; for people who ask for their place."""
        held = Counter(active.job.folder for active in self._active.values())
        return in_order(self._queued.values(), held, now, self.settings.scheduler.aging_seconds)

    def _admit(self, now: float) -> None:
        """Let in as many jobs as keep the slots busy, and one more whose inputs are copied meanwhile."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for active in self._active.values():
            seconds[active.job.folder] += active.video_seconds
        for job_id in self._admission.decide(
            now,
            room=self._runner.num_slots + 1,
            aging_seconds=self.settings.scheduler.aging_seconds,
            seconds=seconds,
            most_seconds=self.settings.max_active_seconds_per_folder,
        ):
            self._activate(self._queued.pop(job_id))

    def _activate(self, job: Job) -> None:
        if job.started_seconds is None:
            job = job.evolve(started_seconds=self._clock())
        self._active[job.id] = ActiveJob.of(job, self._work / job.id)

    def _advance(self, active: ActiveJob, now: float) -> None:
        if active.busy or now < active.not_before_seconds:
            return
        if active.cancelled:
            if self._runner.works_on(active):
                return
            active.error = active.error or CancelledError("cancelled")
        elif active.error is None and any(item.staged is None and not item.over for item in active.items):
            if self._goes_on:
                self._set_state(active, JobState.STAGING)
                self._in_pool("stage", active, lambda: self._door.stage(active.job))
            return
        for item in active.items:
            if active.error is None and not item.over and item.plan is None and item.is_prepared:
                try:
                    self._runner.plan(active, item)
                except DiskFullError as error:
                    self._waits.no_room(active, error, now)
                    return
        if active.error is not None or all(item.over for item in active.items):
            if not self._runner.works_on(active):
                self._deliver(active, now)
        else:
            self._set_state(active, active.state_now())

    def _deliver(self, active: ActiveJob, now: float) -> None:
        self._set_state(active, JobState.PUBLISHING)
        outcomes = [views.outcome(item, active.error) for item in active.items]
        error = active.error or next((o.error for o in outcomes if o.error is not None), None)
        receipt = views.job_receipt(active.job, outcomes, now)
        still_needed = self._journal.still_needed(active.job.id)
        self._in_pool("deliver", active, lambda: self._door.deliver(active.job, outcomes, error, receipt, still_needed))

    def _in_pool(self, kind: Kind, active: ActiveJob, work: Callable[[], Any]) -> None:
        active.busy = True
        active.busy_since_seconds = self._clock()
        self._pool.start(kind, active, work)

    def _answered(self, answer: Answer[ActiveJob]) -> None:
        active = answer.owner
        active.busy = False
        if answer.error is not None:
            self._pool_failed(answer.kind, active, answer.error)
        elif answer.kind == "deliver":
            self._over(active, answer.value)
        else:
            active.attempts, active.waits_for = 0, ""
            for item, copy in zip(active.items, answer.value, strict=True):
                item.staged = copy
            size = sum(f.size for f in active.job.inputs)
            seconds = round(self._clock() - active.busy_since_seconds, 3)
            self._log("job.staged", **active.job.log_context(), num_bytes=size, duration_seconds=seconds)

    def _pool_failed(self, kind: Kind, active: ActiveJob, error: HeygemdError) -> None:
        if isinstance(error, InputGoneError):
            self._drop(active, error)
        else:
            self._waits.blocked(kind, active, error, self._clock(), self.settings.scheduler.attempts)

    # ---- the end of a job ----

    def _drop(self, active: ActiveJob, error: HeygemdError) -> None:
        job = active.job.evolve(state=JobState.CANCELLED, ended_seconds=self._clock(), error=error.to_dict())
        self._journal.finish(job)
        self._log("job.cancelled", **job.log_context(), reason=error.message)
        self._forget(job)

    def _over(self, active: ActiveJob, delivery: Delivery) -> None:
        where = delivery.where
        error = active.error or next((item.error for item in active.items if item.error is not None), None)
        state = JobState.DONE
        if error is not None:
            state = JobState.CANCELLED if active.cancelled else JobState.FAILED
        now = self._clock()
        job = active.job.evolve(state=state, ended_seconds=now, error=error.to_dict() if error else None)
        seconds = round(now - (job.started_seconds or now), 3)
        self._journal.finish(job, except_paths=delivery.stuck)
        if delivery.stuck:
            self._log("input.stuck", **job.log_context(), path=delivery.stuck[0], count=len(delivery.stuck))
        if state is JobState.DONE:
            out = round(now - active.busy_since_seconds, 3)
            self._log("job.published", **job.log_context(), path=where, duration_seconds=out)
            self._log("job.finished", **job.log_context(), path=where, duration_seconds=seconds)
        elif state is JobState.CANCELLED:
            self._log("job.cancelled", **job.log_context(), reason="asked for", duration_seconds=seconds)
        else:
            self._log("job.failed", **job.log_context(), path=where, error=error, duration_seconds=seconds)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        """The journal says that it is over; what lies in the work folder is swept at the next start if not now."""
        work = self._active.pop(job.id).work
        self._admission.release(job.id)
        self.ended.append(job)
        self._board.put(job, views.final(job))
        with explained(f"work folder of {job.name}"):
            failpoint("work.remove")
            remove_tree(work)

    # ---- status ----

    def _set_state(self, active: ActiveJob, state: JobState) -> None:
        if active.job.state is not state:
            job = active.job.evolve(state=state)
            self._journal.update(job)
            active.job = job

    def _show(self, now: float) -> None:
        for active in self._active.values():
            why = self.pauses.reason, self.problem, active.waits_for, active.lacks
            key = (active.job.state, round(active.fraction, 3), why)
            if key != active.shown and now - active.shown_seconds >= self._status_seconds:
                active.shown, active.shown_seconds = key, now
                devices = self._runner.devices_of(active)
                self._board.put(active.job, views.active(active, devices, self.pauses.reason, now, self.problem))
        # Positions change with every job that ends; a burst of thousands must not become thousands of writes a second.
        if self._queued and now - self._shown_queue_seconds >= 10 * self._status_seconds:
            self._shown_queue_seconds = now
            for position, job in enumerate(self._order(now)[:100], start=1):
                self._board.put(job, self._queued_view(job, position, now))

    def _queued_view(self, job: Job, position: int, now: float) -> dict[str, Any]:
        held = f"folder {job.folder or 'inbox'} has enough in work" if self._admission.holds(job.folder) else None
        return views.queued(job, position, self.pauses.reason, now, held)
