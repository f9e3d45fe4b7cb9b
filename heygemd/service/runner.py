"""Tasks of active jobs: which may run, where, and what their answers change. Called from the dispatcher's thread."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from heygemd.core.errors import HeygemdError
from heygemd.core.job import Job
from heygemd.core.options import Options
from heygemd.core.placement import Device, Ledger, Request, place
from heygemd.core.retry import decide
from heygemd.core.task import Message, Task
from heygemd.service.active import ActiveItem, ActiveJob
from heygemd.service.door import ClaimKey
from heygemd.service.planning import plan_item, with_batch
from heygemd.service.tasks import HOST_BYTES, TaskSettings, finish_task, prepare_task, render_task
from heygemd.work.executor import Executor

LogEvent = Callable[..., None]
"""log_event(name, **fields) of ops.logs, with its logger bound."""


class Ledgerbook(Protocol):
    """The part of the journal that is written while jobs run."""

    def update(self, job: Job) -> None: ...

    def release(self, job_id: str, except_paths: Collection[str] = ()) -> None: ...

    def still_needed(self, job_id: str) -> Collection[ClaimKey]: ...

    def set_plan(self, job_id: str, item: str, segments: Sequence[Mapping[str, Any]]) -> None: ...

    def count_attempt(self, job_id: str, item: str, number: int) -> int: ...

    def segment_stats(self, job_id: str, item: str) -> Mapping[int, dict[str, Any]]: ...

    def segment_done(self, job_id: str, item: str, number: int, info: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class _Running:
    active: ActiveJob
    item: ActiveItem
    key: str
    device: Device


_REASONS = {"retry": "trying again can help", "smaller": "with half the batch"}


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
        pause: Callable[[str, float], None],
    ) -> None:
        self.settings = settings
        self._journal = journal
        self._executor = executor
        self._render_devices = tuple(devices)
        self._devices = tuple(devices) if any(d.name == host.name for d in devices) else (*devices, host)
        self._log = log
        self._clock = clock
        self._pause = pause
        self._ledger = Ledger()
        self._running: dict[str, _Running] = {}

    @property
    def num_slots(self) -> int:
        return sum(device.slots for device in self._devices)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def works_on(self, active: ActiveJob) -> bool:
        return any(running.active is active for running in self._running.values())

    def cancel(self, active: ActiveJob, item: ActiveItem | None = None) -> None:
        for task_id, running in self._running.items():
            if running.active is active and item in (None, running.item):
                self._executor.cancel(task_id)

    def close(self) -> None:
        self._executor.close()

    def plan(self, active: ActiveJob, item: ActiveItem) -> None:
        """Plan a prepared item, or load its plan and what of it is done."""
        try:
            item.prepared = item.folder.load_prepared()
            item.plan = item.folder.load_plan()
            if item.plan is None:
                item.plan = plan_item(item.prepared, item.folder, self._render_devices, self.settings.scheduler)
                item.folder.save_plan(item.plan)
                self._journal.set_plan(active.job.id, item.item.name, [asdict(s) for s in item.plan.segments])
                self._log(
                    "job.planned",
                    **active.job.log_context(),
                    item=item.item.name,
                    segments=len(item.plan.segments),
                    frames=item.prepared.num_frames,
                    batch=item.plan.batch,
                    precision=item.plan.precision,
                    predicted_bytes=item.plan.predicted_bytes,
                    engine=item.prepared.engine,
                    reason=item.prepared.engine_reason,
                )
        except HeygemdError as error:
            item.error = error
            return
        item.segment_stats = dict(self._journal.segment_stats(active.job.id, item.item.name))
        item.done_segments = {s.number for s in item.plan.segments if item.folder.segment(s.number).exists()}
        item.result = item.folder.load_result()

    def start(self, actives: Iterable[ActiveJob], now: float) -> None:
        """Give free slots to the tasks that deserve them most."""
        requests: list[Request] = []
        tasks: dict[str, tuple[ActiveJob, ActiveItem, str]] = {}
        for active in actives:
            if active.cancelled:
                continue
            for item, key, needs, order in self._wanted(active):
                task_id = f"{active.job.id}/{item.number}/{key}"
                if task_id in self._running or now < item.not_before_seconds.get(key, 0.0):
                    continue
                job = active.job
                requests.append(Request(task_id, job.id, job.folder, job.priority, job.created_seconds, order, needs))
                tasks[task_id] = (active, item, key)
        placements, self._ledger = place(
            requests,
            self._devices,
            self._ledger,
            now_seconds=now,
            aging_seconds=self.settings.scheduler.aging_seconds,
        )
        for placement in placements:
            active, item, key = tasks[placement.request.id]
            self._launch(placement.request.id, active, item, key, placement.device)

    def _wanted(self, active: ActiveJob) -> list[tuple[ActiveItem, str, dict[str, int], int]]:
        """(item, key, bytes by device kind, order) of each task that could run now."""
        wanted: list[tuple[ActiveItem, str, dict[str, int], int]] = []
        for item in active.items:
            base = item.number * 100_000
            if item.over or item.staged is None:
                continue
            if item.plan is None:
                if not item.folder.is_prepared:
                    wanted.append((item, "prepare", {"cpu": HOST_BYTES}, base))
                continue
            missing = [s for s in item.plan.segments if s.number not in item.done_segments]
            for segment in missing:
                needs = {item.plan.device_kind: item.plan.predicted_bytes}
                wanted.append((item, f"render:{segment.number}", needs, base + segment.number))
            if not missing:
                wanted.append((item, "finish", {"cpu": HOST_BYTES}, base))
        return wanted

    def _launch(self, task_id: str, active: ActiveJob, item: ActiveItem, key: str, device: Device) -> None:
        task = self._task(task_id, active.job.options, item, key, device)
        item.attempts[key] = item.attempts.get(key, 0) + 1
        self._running[task_id] = _Running(active, item, key, device)
        if task.kind == "render":
            number = task.values["segment"]["number"]
            self._journal.count_attempt(active.job.id, item.item.name, number)
            self._log(
                "segment.started",
                **active.job.log_context(),
                item=item.item.name,
                segment=number,
                device=device.name,
                frames=task.values["segment"]["stop_frame"] - task.values["segment"]["first_frame"],
            )
        self._executor.start(task, device)

    def _task(self, task_id: str, options: Options, item: ActiveItem, key: str, device: Device) -> Task:
        if key == "prepare":
            assert item.staged is not None  # noqa: S101 - _wanted offers it only then
            kinds = tuple(sorted({d.kind for d in self._render_devices}))
            return prepare_task(task_id, item.folder, item.staged, options, device, kinds, self.settings)
        assert item.plan is not None  # noqa: S101 - _wanted offers it only then
        if key == "finish":
            return finish_task(task_id, item.folder, item.plan, device, self.settings)
        segment = item.plan.segments[int(key.removeprefix("render:"))]
        return render_task(task_id, item.folder, item.plan, segment, device, self.settings)

    def poll(self, timeout_seconds: float) -> None:
        """Take in what the workers say, waiting at most so long for the first word."""
        for message in self._executor.poll(timeout_seconds):
            self._hear(message)

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
        del self._running[message.task_id]
        self._ledger = self._ledger.release(message.task_id)
        if message.type == "failed":
            self._failed(running, HeygemdError.from_dict(message.values))
            return
        item.progress[key] = 1.0
        context = {**active.job.log_context(), "item": item.item.name}
        if key == "prepare":
            self._log(
                "job.prepared",
                **context,
                frames=message.values["num_frames"],
                engine=message.values["engine"],
                duration_seconds=message.values["seconds_total"],
            )
        elif key == "finish":
            item.result = item.folder.load_result()
        else:
            number = int(key.removeprefix("render:"))
            item.done_segments.add(number)
            item.segment_stats[number] = message.values
            self._journal.segment_done(active.job.id, item.item.name, number, message.values)
            self._log(
                "segment.finished",
                **context,
                segment=number,
                device=running.device.name,
                frames=message.values["num_frames"],
                duration_seconds=message.values["seconds_total"],
                measured_bytes=message.values["peak_bytes"],
            )

    def _failed(self, running: _Running, error: HeygemdError) -> None:
        active, item, key = running.active, running.item, running.key
        item.progress.pop(key, None)
        if active.cancelled:
            return
        batch = item.plan.batch if item.plan is not None and key.startswith("render") else 1
        decision = decide(error, attempt=item.attempts[key], max_attempts=self.settings.scheduler.attempts, batch=batch)
        where = {"segment": int(key.removeprefix("render:"))} if key.startswith("render") else {"stage": key}
        context = {
            **active.job.log_context(),
            **where,
            "item": item.item.name,
            "device": running.device.name,
            "attempt": item.attempts[key],
        }
        kind = "segment" if key.startswith("render") else "task"
        self._log(f"{kind}.failed", **context, error=error)
        if decision.action in ("retry", "smaller"):
            self._log(f"{kind}.retried", **context, reason=_REASONS[decision.action])
        if decision.action == "fail":
            item.error = error
            self.cancel(active, item)
        elif decision.action == "pause":
            item.attempts[key] -= 1
            self._pause(error.message, decision.wait_seconds)
        else:
            if decision.action == "smaller" and item.plan is not None and item.prepared is not None:
                item.plan = with_batch(item.plan, item.prepared, batch // 2)
                item.folder.save_plan(item.plan)
            item.not_before_seconds[key] = self._clock() + decision.wait_seconds
