"""The devices as the runner uses them: what is free, what is warm, what is away or set aside. One thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.memory import mib
from heygemd.core.placement import Placement, Request, Scheduler
from heygemd.gpu.watch import STALE_SECONDS, Watch
from heygemd.work.executor import Executor

_STRIKES = 3
_ASIDE_SECONDS = 300.0

LogEvent = Callable[..., None]


@dataclass(frozen=True)
class DeviceUse:
    """How much of a device is taken. `up`: it may be given work; `used_bytes`: by anybody, where that is known."""

    device: Device
    up: bool
    reserved_bytes: int
    used_slots: int
    workers: int
    used_bytes: int | None


class Fleet:
    """Render devices and the host beside them. Wraps the pure scheduler with what happens in the world."""

    def __init__(
        self,
        devices: Sequence[Device],
        host: Device,
        executor: Executor,
        *,
        aging_seconds: float,
        log: LogEvent,
        watch: Watch | None = None,
    ) -> None:
        self._executor = executor
        self._log = log
        self._watch = watch
        self._host = host
        self._configured = tuple(devices)
        self._here = tuple(devices)  # with the budgets of now, without what is away
        self._away: dict[str, str] = {}
        self._strikes: dict[str, set[str]] = {}
        self._aside_until: dict[str, float] = {}
        self._warm: dict[str, list[int]] = {}  # what idle workers may still hold, by device
        self._stale = False
        self._problem: str | None = None
        self._told_waiting: set[str] = set()
        self.scheduler = Scheduler(aging_seconds=aging_seconds, host=host.name)
        self._publish()

    @property
    def renders(self) -> tuple[Device, ...]:
        """Devices that may be given renders now."""
        return tuple(d for d in self._here if d.name not in self._aside_until)

    @property
    def configured(self) -> tuple[Device, ...]:
        return self._configured

    @property
    def host(self) -> Device:
        return self._host

    @property
    def num_slots(self) -> int:
        return sum(device.slots for device in self.scheduler.capacity.devices.values())

    def usage(self) -> list[DeviceUse]:
        """Every device, those that are away too."""
        capacity = self.scheduler.capacity
        known = {device.name: device for device in (*self._configured, self._host, *self._here)}
        up = {device.name for device in self.renders} | {self._host.name}
        read = {} if self._watch is None else self._watch.memory
        workers = Counter(self._executor.pids().values())
        return [
            DeviceUse(
                device,
                name in up,
                capacity.used_bytes(name),
                capacity.used_slots(name),
                workers[name],
                read[name].total_bytes - read[name].free_bytes if name in read else None,
            )
            for name, device in known.items()
        ]

    @property
    def elastic(self) -> bool:
        """A cluster: devices come and go, and having none means waiting."""
        return self._watch is not None and self._watch.elastic

    @property
    def problem(self) -> str | None:
        """Why nothing can render now, where that is known."""
        return None if self._watch is None else self._watch.problem

    @property
    def has_gpu(self) -> bool:
        """Or a cluster, which is as good a reason to leave the host alone."""
        return any(d.kind == "cuda" or d.node for d in self.renders)

    def not_for_renders(self, fallback: bool) -> frozenset[str]:
        """The host is no place for renders unless it is configured, or nothing else is left and that is allowed."""
        if any(d.name == self._host.name for d in self._configured) or (fallback and not self.has_gpu):
            return frozenset()
        return frozenset({self._host.name})

    def not_for_host(self) -> frozenset[str]:
        """CPU devices that are not the host: simulated cards."""
        return frozenset(d.name for d in self._here if d.kind == "cpu" and d.name != self._host.name)

    def tell_waiting(self, request: Request, context: Mapping[str, Any]) -> str | None:
        """For a task that waits: why, when no device of now has the budget for it, free or not; logged once for each
        job until one of its tasks is placed."""
        capacity = self.scheduler.capacity
        places = [name for name in capacity.devices if name not in request.avoid]
        if any(capacity.is_able(name, request.needs) for name in places):
            return None
        for name in places:
            if not capacity.used_slots(name):
                self._executor.evict(name)  # what only idle workers hold may count as somebody else's
        least = min((steps[-1] for steps in request.needs.values()), default=0)
        reason = f"no device offers the {mib(least)} MiB that it needs at its smallest now"
        if request.job_id not in self._told_waiting:
            self._told_waiting.add(request.job_id)
            self._log("job.waiting", **context, reason=reason)
        return reason

    def refresh(self, now: float) -> None:
        """Take over what the watch has read, and bring back devices whose time aside is over."""
        back = [name for name, until in self._aside_until.items() if now >= until]
        for name in back:
            del self._aside_until[name]
            self._log("daemon.recovered", reason=f"{name} is tried again")
        moved = None
        if self._watch is not None:
            moved = self._watch.moved(self._reserved(), self._executor.pids().keys())
            self._tell_stale(self._watch.age_seconds)
            self._tell_problem(self._watch.problem)
        if moved is not None:
            self._here, problems = tuple(moved[0]), moved[1]
            self._tell_away(problems)
            self._away = problems
            if self.elastic:
                known = {device.name: device for device in (*self._configured, *self._here)}
                here = {device.name for device in self._here}
                self._configured = tuple(d for name, d in known.items() if name in here or name in problems)
            else:
                self._take_in()
        if back or moved is not None:
            self._publish()

    def _take_in(self) -> None:
        """Devices that came after the start."""
        names = {device.name for device in self._configured}
        for device in [d for d in self._here if d.name not in names]:
            self._configured += (device,)
            self._log("daemon.recovered", reason=f"{device.name} ({device.model}) is here now, and renders")

    def decide(self, wanted: Iterable[Request], now: float) -> list[Placement]:
        """Reserve for whom it is possible. `wanted`: all tasks that could run now, each time anew."""
        requests = {request.id: request for request in wanted}
        for request_id in [r.id for r in self.scheduler.waiting() if r.id not in requests]:
            self.scheduler.withdraw(request_id)
        for request in requests.values():
            self.scheduler.offer(request)
        return self.scheduler.decide(now)

    def started(self, placement: Placement) -> None:
        """A worker has the task. What idle workers keep warm beside it goes where it would not fit any more."""
        name = placement.device.name
        self._told_waiting.discard(placement.request.job_id)
        warm = self._warm.get(name, [])
        if warm:
            warm.remove(min(warm))  # one of them has the task now
        capacity = self.scheduler.capacity
        if warm and sum(warm) > capacity.free_bytes(name):
            self._executor.evict(name)
            warm.clear()

    def start_fresh(self, name: str) -> None:
        """End the idle workers there, so that the next task gets a new one."""
        self._executor.evict(name)
        self._warm.pop(name, None)

    def ended(self, task_id: str, *, alive: bool) -> None:
        """The task was answered. `alive`: its worker is there still, and keeps warm at most what was reserved."""
        reservation = self.scheduler.capacity.reservations.get(task_id)
        self.scheduler.release(task_id)
        if reservation is not None and alive:
            self._warm.setdefault(reservation.device, []).append(reservation.num_bytes)

    def succeeded(self, device: str) -> None:
        self._strikes.pop(device, None)

    def strike(self, device: str, job_id: str, now: float) -> None:
        """A worker died there. Several jobs in a row without a success, and the device is set aside for a while; never
        the last one. On a GPU its idle fellows go, too: where the driver was reset, none of them works any more."""
        if any(d.name == device and d.kind == "cuda" for d in self._configured):
            self.start_fresh(device)
        jobs = self._strikes.setdefault(device, set())
        jobs.add(job_id)
        others = [d for d in self.renders if d.name != device]
        if len(jobs) >= _STRIKES and others and any(d.name == device for d in self.renders):
            self._strikes.pop(device)
            self._aside_until[device] = now + _ASIDE_SECONDS
            self._log("daemon.degraded", reason=f"{device} is set aside: {_STRIKES} jobs in a row died on it")
            self._publish()

    def _publish(self) -> None:
        devices = {d.name: d for d in self.renders}
        devices.setdefault(self._host.name, self._host)
        self.scheduler.set_devices(devices.values())

    def _reserved(self) -> dict[str, int]:
        capacity = self.scheduler.capacity
        return {name: capacity.used_bytes(name) for name in capacity.devices}

    def _tell_problem(self, problem: str | None) -> None:
        if problem == self._problem:
            return
        if problem is not None:
            self._log("daemon.degraded", reason=problem)
        elif self._problem is not None:
            self._log("daemon.recovered", reason="the cluster renders")
        self._problem = problem

    def _tell_away(self, problems: Mapping[str, str]) -> None:
        """A line for each device; one line for all where many go for one reason, as a whole cluster does."""
        gone = problems.keys() - self._away.keys()
        for reason in sorted({problems[name] for name in gone}):
            names = sorted(name for name in gone if problems[name] == reason)
            what = f"{names[0]} is" if len(names) == 1 else f"{len(names)} devices ({names[0]}, …) are"
            self._log("daemon.degraded", reason=f"{what} away: {reason}")
        back = sorted((self._away.keys() - problems.keys()) & {device.name for device in self._here})
        if back:
            what = f"{back[0]} is" if len(back) == 1 else f"{len(back)} devices ({back[0]}, …) are"
            self._log("daemon.recovered", reason=f"{what} back")

    def _tell_stale(self, age_seconds: float) -> None:
        stale = age_seconds > STALE_SECONDS
        if stale and not self._stale:
            self._log("daemon.degraded", reason=f"the GPU driver has not answered for {age_seconds:.0f} s")
        elif self._stale and not stale:
            self._log("daemon.recovered", reason="the GPU driver answers again")
        self._stale = stale
