"""Tasks of active jobs: which may run, where, and what their answers change. Called from the dispatcher's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.errors import CannotFitError, HeygemdError, NodeLostError, WorkerDiedError
from heygemd.core.memory import mib
from heygemd.core.placement import Placement, Request
from heygemd.core.plan import Choice
from heygemd.core.task import Message
from heygemd.files import explained
from heygemd.gpu.calibration import CalibrationStore
from heygemd.gpu.watch import Watch
from heygemd.service.active import ActiveItem, ActiveJob
from heygemd.service.calibrating import Calibrating
from heygemd.service.estimates import Estimates
from heygemd.service.fleet import DeviceUse, Fleet, LogEvent
from heygemd.service.ledgerbook import Ledgerbook
from heygemd.service.planning import cpu_threads, with_estimates
from heygemd.service.plans import Plans
from heygemd.service.pulse import Pulse
from heygemd.service.setbacks import Running, Setbacks
from heygemd.service.tasks import HOST_BYTES, TaskSettings, task_for
from heygemd.work.executor import Executor


class TaskRunner:
    """Reserves before a start, releases on the answer. `devices` render; `host` prepares and finishes beside them."""

    def __init__(
        self,
        *,
        journal: Ledgerbook,
        executor: Executor,
        devices: Sequence[Device],
        host: Device,
        settings: TaskSettings,
        log: LogEvent,
        clock: Callable[[], float],
        pause: Callable[[HeygemdError, float], None],
        calibration: CalibrationStore | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.settings = settings
        self._journal = journal
        self._executor = executor
        self.pulse = Pulse(executor, host)
        self._log = log
        self._clock = clock
        self._pause = pause
        self._store = calibration or CalibrationStore(None, {})
        aging_seconds = settings.scheduler.aging_seconds
        self._fleet = Fleet(devices, host, executor, aging_seconds=aging_seconds, log=log, watch=watch)
        self._plans = Plans(journal, self._fleet, self._store, log)
        self._estimates = Estimates(self._store, cpu_threads((*devices, host)), log)
        self._calibrating = Calibrating(self._store, cpu_threads((*devices, host)), log)
        self._running: dict[str, Running] = {}
        self._unheard: deque[Message] = deque()
        self._setbacks = Setbacks(self._fleet, self._plans, self._estimates, log=log, clock=clock, pause=pause)

    @property
    def num_slots(self) -> int:
        return self._fleet.num_slots

    @property
    def num_running(self) -> int:
        return len(self._running)

    def works_on(self, active: ActiveJob) -> bool:
        return any(running.active is active for running in self._running.values())

    @property
    def problem(self) -> str | None:
        """Why nothing can render now, where that is known."""
        return self._fleet.problem

    def devices_of(self, active: ActiveJob) -> tuple[str, ...]:
        """Names of the devices that work on the job now."""
        return tuple(sorted({running.device.name for running in self._running.values() if running.active is active}))

    def devices_in_use(self) -> list[DeviceUse]:
        return self._fleet.usage()

    def cancel(self, active: ActiveJob, item: ActiveItem | None = None) -> None:
        for task_id, running in self._running.items():
            if running.active is active and item in (None, running.item):
                self._executor.cancel(task_id)

    def close(self) -> None:
        self._executor.close()
        self._store.close()

    def plan(self, active: ActiveJob, item: ActiveItem) -> None:
        """Plan a prepared item, or load its plan and what of it is done. What is worth measuring first is measured."""
        scheduler = self.settings.scheduler
        item.passes = self._calibrating.before(
            item, lambda prepared: self._plans.offers(scheduler, prepared), scheduler
        )
        if not item.passes:
            self._plans.make(active, item, self.settings)

    # ---- starting ----

    def start(self, actives: Iterable[ActiveJob], now: float) -> None:
        """Give free slots to the tasks that deserve them most."""
        self._fleet.scheduler.aging_seconds = self.settings.scheduler.aging_seconds
        self._fleet.refresh(now)
        tasks = {request.id: (request, active, item, key) for request, active, item, key in self._wanted(actives, now)}
        placements = deque(self._fleet.decide((entry[0] for entry in tasks.values()), now))
        try:
            while placements:
                self._launch(placements[0], *tasks[placements[0].request.id][1:])
                placements.popleft()
        finally:
            for placement in placements:  # the journal refused: nobody works with these bytes
                self._fleet.scheduler.release(placement.request.id)
        waiting = [
            {kind: steps[-1] for kind, steps in request.needs.items()}
            for request, _, _, key in tasks.values()
            if key.startswith("render:") and request.id not in self._running
        ]
        self._executor.expect(waiting)
        for request, active, item, _key in tasks.values():
            if request.id not in self._running:
                context = {**active.job.log_context(), "item": item.item.name}
                active.lacks = self._fleet.tell_waiting(request, context) or active.lacks

    def _wanted(self, actives: Iterable[ActiveJob], now: float) -> Iterator[tuple[Request, ActiveJob, ActiveItem, str]]:
        asked = set(self._calibrating.running)
        for active in actives:
            active.lacks = ""
            if active.cancelled:
                continue
            job, prepares = active.job, 0
            for item in active.items:
                yield from self._passes_of(active, item, asked)
                beside = 0 if item.plan is None else item.plan.host_bytes
                for key, needs, order, alone, avoid in self._tasks_of(item):
                    task_id = f"{job.id}/{item.number}/{key}"
                    if task_id in self._running or now < item.not_before_seconds.get(key, 0.0):
                        continue
                    prepares += key == "prepare"
                    if key == "prepare" and prepares > self._fleet.num_slots:
                        continue  # of a batch of hundreds only the next few can start in this round
                    avoid |= self._setbacks.died_on(task_id)
                    since = job.created_seconds
                    request = Request(
                        task_id, job.id, job.folder, job.priority, since, order, needs, alone, avoid, beside
                    )  # fmt: skip
                    yield request, active, item, key

    def _passes_of(
        self, active: ActiveJob, item: ActiveItem, asked: set[str]
    ) -> Iterator[tuple[Request, ActiveJob, ActiveItem, str]]:
        """Calibration passes that the item waits for; what another item has asked for it need not ask for."""
        here = self._fleet.scheduler.capacity.devices.values()
        for made in item.passes if item.plan is None and not item.over else ():
            if made.key not in asked:
                asked.add(made.key)
                yield made.request(active.job, item.number, here), active, item, made.key

    def _tasks_of(
        self, item: ActiveItem
    ) -> Iterator[tuple[str, Mapping[str, tuple[int, ...]], int, bool, frozenset[str]]]:
        """(key, bytes by device kind, order, alone, devices to avoid) of each task that could run now."""
        base = item.number * 100_000
        host = {"cpu": (HOST_BYTES, HOST_BYTES // 2)}  # half is what it took at 4K; the whole where there is room
        if item.over or item.staged is None:
            return
        if item.plan is None or item.prepared is None:
            if not item.is_prepared and host["cpu"][-1] > self._fleet.host.budget_bytes:
                item.error = _host_too_small(host["cpu"][-1], self._fleet.host)
            elif not item.is_prepared:
                needs = {"cpu": (item.prepare_bytes,)} if item.prepare_bytes else host
                yield "prepare", needs, base, False, self._fleet.not_for_host()
            return
        missing = [s for s in item.plan.segments if s.number not in item.done_segments]
        if not missing:
            yield "finish", host, base, False, self._fleet.not_for_host()
            return
        devices, calibration = self._fleet.renders or self._fleet.configured, self._store.calibration
        if not _same(item.estimated_with, (item.plan, calibration, devices)):
            item.plan = with_estimates(item.plan, item.prepared, (*devices, self._fleet.host), calibration)
            item.estimated_with = item.plan, calibration, devices
        avoid = frozenset[str]()
        if not self._plans.needs_host(item.plan.needs):
            avoid = self._fleet.not_for_renders(self.settings.scheduler.cpu_fallback)
        # More than there are slots cannot start in this round, and a film of hours has hundreds.
        for position, segment in enumerate(missing[: len(self._running) + self._fleet.num_slots]):
            yield f"render:{segment.number}", item.plan.needs, base + position, item.plan.alone, avoid

    def _launch(self, placement: Placement, active: ActiveJob, item: ActiveItem, key: str) -> None:
        device, task_id = placement.device, placement.request.id
        choice: Choice | None = None
        if key.startswith("render:"):
            assert item.plan is not None  # noqa: S101 - _tasks_of offers it only then
            choice = item.plan.of_kind(device.kind)[placement.step]
        kinds = self._plans.kinds(self.settings.scheduler)
        if key.startswith("calibrate:"):
            self._fleet.start_fresh(device.name)
            task = self._calibrating.task(task_id, key, item, device, self.settings.media)
        else:
            scheduler = self.settings.scheduler
            cards, ceiling = self._plans.cards(scheduler), self._plans.ceiling(scheduler)
            task = task_for(
                task_id, key, item, active.job.options, device, choice, kinds, self.settings, cards, ceiling
            )
            if choice is not None and item.prepared is not None:
                task.values["outside_bytes"] = self._calibrating.outside_bytes(item.prepared, choice)
        running = Running(active, item, key, device, placement.num_bytes, choice)
        if choice is not None:
            self._journal.count_attempt(active.job.id, item.item.name, running.number)
        item.attempts[key] = item.attempts.get(key, 0) + 1
        self._running[task_id] = running
        if choice is not None:
            self._log(
                "segment.started",
                **active.job.log_context(),
                item=item.item.name,
                segment=running.number,
                device=device.name,
                batch=choice.batch,
                precision=choice.precision,
                predicted_bytes=choice.predicted_bytes,
                frames=task.values["segment"]["stop_frame"] - task.values["segment"]["first_frame"],
            )
        self._executor.start(replace(task, reserved_bytes=placement.num_bytes), device)
        self._fleet.started(placement)

    # ---- answers ----

    def poll(self, timeout_seconds: float) -> None:
        """Take in what the workers say, waiting at most so long for the first word.

        Where the journal or the disk refuses an answer, the error is raised and the answer is heard again next time.
        """
        self._unheard.extend(self.pulse.poll(timeout_seconds))
        while self._unheard:
            self._hear(self._unheard[0])
            self._unheard.popleft()

    def _hear(self, message: Message) -> None:
        running = self._running.get(message.task_id)
        if running is None:
            return
        active, item, key = running.active, running.item, running.key
        if message.type == "progress":
            item.progress[key] = message.values["done"] / max(1, message.values["total"])
            active.stage_text = str(message.values["stage"])
            return
        if message.type not in ("done", "failed"):
            return
        if key == "prepare":
            item.unprepared = False
        if message.type == "done":  # first what can fail, so that it can be heard again
            if running.choice is not None:
                self._journal.segment_done(active.job.id, item.item.name, running.number, message.values)
            elif key == "finish":
                with explained(f"work folder of {active.job.name}"):
                    item.result = item.folder.load_result()
        del self._running[message.task_id]
        if key.startswith("calibrate:"):
            self._fleet.ended(message.task_id, alive=message.values.get("type") != WorkerDiedError.__name__)
            self._calibrating.answered(key, running.device, message, active.job.log_context())
            return
        if message.type == "failed":
            error = HeygemdError.from_dict(message.values)
            self._fleet.ended(message.task_id, alive=not isinstance(error, WorkerDiedError | NodeLostError))
            if self._setbacks.met(message.task_id, running, error, self.settings.scheduler.attempts):
                self.cancel(active, item)
            return
        self._fleet.ended(message.task_id, alive=True)
        self._fleet.succeeded(running.device.name)
        self._setbacks.overcome(message.task_id)
        item.progress[key] = 1.0
        context = {**active.job.log_context(), "item": item.item.name}
        if key == "prepare" and "needed_bytes" in message.values:
            self._more_room(item, int(message.values["needed_bytes"]))
            return
        if key == "finish":
            self._log("job.assembled", **context, duration_seconds=message.values["seconds_total"])
        if key == "prepare":
            self._log(
                "job.prepared",
                **context,
                frames=message.values["num_frames"],
                engine=message.values["engine"],
                duration_seconds=message.values["seconds_total"],
            )
        elif key == "finish":
            if item.prepared is not None:
                self._estimates.finished(item.prepared, running.device, float(message.values["seconds_total"]))
        else:
            self._rendered(running, message.values, context)

    @staticmethod
    def _more_room(item: ActiveItem, needed_bytes: int) -> None:
        """The probe has found that preparing takes more than was reserved: it begins again with so much."""
        item.prepare_bytes = needed_bytes
        item.attempts["prepare"] -= 1
        item.progress.pop("prepare", None)

    def _rendered(self, running: Running, values: dict[str, Any], context: dict[str, Any]) -> None:
        item, choice = running.item, running.choice
        assert choice is not None  # noqa: S101 - a render
        where = {**context, "segment": running.number, "device": running.device.name}
        precision, why = values.get("precision") or choice.precision, values.get("precision_why")
        if why and not any(stats.get("precision_why") for stats in item.segment_stats.values()):
            self._log("precision.changed", **where, precision=precision, reason=why)
        item.done_segments.add(running.number)
        item.segment_stats[running.number] = values
        measured = values["peak_bytes"] if choice.kind == "cpu" else values.get("device_peak_bytes")
        self._log(
            "segment.finished",
            **where,
            frames=values["num_frames"],
            duration_seconds=values["seconds_total"],
            step_seconds=values["seconds"],
            batch=choice.batch,
            precision=precision,
            predicted_bytes=choice.predicted_bytes,
            measured_bytes=measured or values["peak_bytes"],
        )
        if item.prepared is not None and not values.get("found"):
            self._estimates.learn(item.prepared, choice, running.device, values, context)
        if self._setbacks.mixed(running):
            self.cancel(running.active, item)


def _host_too_small(needed_bytes: int, host: Device) -> CannotFitError:
    """Its budget moves below this one, never above: waiting would be for ever."""
    return CannotFitError(
        f"preparing takes {mib(needed_bytes)} MiB of RAM; this machine's jobs may have {mib(host.budget_bytes)} MiB "
        "at most",
        remedy="Raise scheduler.cpu_memory_mib, or the memory limit of the machine or container (MemoryMax).",
        case="memory",
        needed_bytes=needed_bytes,
        offered_bytes=host.budget_bytes,
    )


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """The very same objects, which is quick to see; the devices are made anew with every reading."""
    return len(one) == len(other) and one[0] is other[0] and one[1] is other[1] and one[2] == other[2]
