"""The simulator: the real planner, memory model, ladder and placement over a trace, with a virtual clock. Pure.

What is made up is the world: how fast a device is, how much memory a render really takes, what other programs take,
when workers die. What is decided is decided by the code that runs in the daemon.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from heapq import heappop, heappush
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.errors import CannotFitError, HeygemdError, OutOfMemoryError, WorkerDiedError
from heygemd.core.memory import MIB, Calibration, Estimate, Load, Picture, size_class
from heygemd.core.placement import Placement, Request, Scheduler
from heygemd.core.plan import Choice, DeviceOffer, Plan, PlanRequest, choices, cut, expected, monotone
from heygemd.core.retry import Rung, decide
from heygemd.core.simulate_report import Ideal, Tally, report
from heygemd.core.simulate_trace import TraceJob
from heygemd.core.simulate_world import World, formula_bytes, frames_a_second

_REFRESH_SECONDS = 5.0
_OOM_SECONDS = 5.0
_FIXED_SECONDS = 1.0
_LEAST_REAL = 0.98
"""Segments of one job take nearly the same."""


@dataclass
class _Job:
    trace: TraceJob
    plan: Plan
    truth: float  # real bytes over formula
    left: int
    ideal: Ideal = field(default_factory=Ideal)
    ways: tuple[Choice, ...] = ()
    started: bool = False
    tries: dict[int, int] = field(default_factory=dict)
    failed: bool = False


@dataclass
class _Task:
    job: _Job
    number: int
    placement: Placement
    choice: Choice
    real_bytes: int
    started_seconds: float
    error: HeygemdError | None = None


class Simulation:
    """One run. `run` gives the tally; `report` puts it into words and numbers."""

    def __init__(self, gpu_mib: Sequence[int], world: World) -> None:
        self.world = world
        self.tally = Tally()
        self._dice = random.Random(world.seed)  # noqa: S311 - a simulation must be repeatable
        self._cards = [
            Device(f"cuda:{n}", "cuda", mib * MIB, int(mib * MIB * world.fraction), world.slots)
            for n, mib in enumerate(gpu_mib)
        ]
        self._others = {card.name: int(card.total_bytes * world.noise / 2) for card in self._cards}
        self._real: dict[str, int] = dict.fromkeys(self._others, 0)
        self._lost: dict[str, float] = {}
        self._calibration = Calibration()
        self._total = {card.name: card.total_bytes for card in self._cards}
        self._most_bytes = 0  # the largest budget of now
        self._scheduler = Scheduler(aging_seconds=world.aging_seconds)
        self._publish()
        room = sum(card.slots for card in self._cards) + 1
        # Which jobs are worked on at all is decided by the same rules: each holds one of `room` places.
        self._admission = Scheduler([Device("jobs", "job", room, room, room)], aging_seconds=world.aging_seconds)
        self._jobs: dict[str, _Job] = {}
        self._tasks: dict[str, _Task] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._now = 0.0
        self._open = 0

    def run(self, trace: Sequence[TraceJob]) -> Tally:
        self._open = len(trace)
        for job in trace:
            self._at(job.arrival_seconds, partial(self._arrive, job))
        if self.world.noise > 0:
            self._at(0.0, self._move)
        for _ in range(self.world.losses):
            at = self._dice.uniform(60.0, 3600.0)
            self._at(at, lambda: self._lose(self._dice.choice(self._cards).name))
        while self._events and self._open:
            self._now, _, action = heappop(self._events)
            action()
            while self._events and self._events[0][0] == self._now:
                heappop(self._events)[2]()
            self._decide()
        self.tally.makespan_seconds = self._now
        return self.tally

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (seconds, self._count, action))

    # ---- jobs ----

    def _arrive(self, trace: TraceJob) -> None:
        order = self._count
        self._jobs[trace.id] = _Job(trace, Plan((), 0, "", 0, ""), self._truth(), 0)
        self._admission.offer(
            Request(trace.id, trace.id, trace.folder, trace.priority, self._now, order, {"job": (1,)})
        )

    def _truth(self) -> float:
        return 1 + self.world.bias + self._dice.uniform(-self.world.error, self.world.error)

    def _begin(self, job: _Job) -> None:
        trace = job.trace
        sizes = {(card.budget_bytes, card.slots) for card in self._cards}
        offers = [DeviceOffer("cuda", budget, best_batch=64, slots=slots) for budget, slots in sorted(sizes)]
        request = PlanRequest(
            trace.frames, Fraction(trace.fps), trace.width, trace.height, self.world.segment_seconds, 3000,
            None, 6_200_000_000,
        )  # fmt: skip
        picture = _picture(job)
        try:
            found = choices(lambda _kind, _precision, batch: self._estimate(picture, batch), offers, what=trace.id)
        except CannotFitError:
            self.tally.refused.append(trace.id)
            self._end(job)
            return
        best = expected(found, offers)
        job.plan = Plan(cut(request), best.batch, best.precision, best.predicted_bytes, best.kind, found)
        job.left = len(job.plan.segments)
        self.tally.segments += job.left
        job.ideal = self._ideal(job)
        self._offer(job, [segment.number for segment in job.plan.segments])

    def _estimate(self, picture: Picture, batch: int) -> Estimate:
        return self._calibration.estimate(_load(picture, batch), formula_bytes(picture, batch))

    def _ideal(self, job: _Job) -> Ideal:
        """The least that the job's segments can take, whoever places them: each at the speed of its fastest way, and in
        the way whose real bytes x seconds are fewest."""
        picture = _picture(job)
        speeds = {c.batch: frames_a_second(picture, c.batch) for c in job.plan.choices}
        real = {batch: formula_bytes(picture, batch) * job.truth * _LEAST_REAL for batch in speeds}
        seconds = byte_seconds = longest = 0.0
        for segment in job.plan.segments:
            times = {batch: _FIXED_SECONDS + segment.num_frames / speed for batch, speed in speeds.items()}
            fastest = min(times.values())
            seconds += fastest
            longest = max(longest, fastest)
            byte_seconds += min(times[batch] * real[batch] for batch in speeds)
        return Ideal(seconds, byte_seconds, job.trace.arrival_seconds + longest)

    def _offer(self, job: _Job, numbers: Sequence[int]) -> None:
        """Ask for these segments, with the estimates of now."""
        if job.failed:
            return
        picture, fresh = _picture(job), []
        for choice in job.plan.choices:
            estimate = self._estimate(picture, choice.batch)
            reserved = estimate.reserved_bytes
            if choice is job.plan.choices[-1] and self._most_bytes:
                reserved = min(reserved, self._most_bytes)  # what was admitted stays possible
            fresh.append(replace(choice, predicted_bytes=estimate.predicted_bytes, reserved_bytes=reserved))
        plan = job.plan = replace(job.plan, choices=monotone(fresh))
        job.ways = plan.of_kind("cuda")
        trace, needs = job.trace, plan.needs
        for number in numbers:
            name = f"{trace.id}/{number}"
            since = trace.arrival_seconds
            self._scheduler.offer(
                Request(name, trace.id, trace.folder, trace.priority, since, number, needs, plan.alone)
            )

    def _end(self, job: _Job) -> None:
        self._open -= 1
        self._admission.release(job.trace.id)
        del self._jobs[job.trace.id]

    # ---- tasks ----

    def _decide(self) -> None:
        began = time.perf_counter()
        admitted = self._admission.decide(self._now)
        self.tally.decision_seconds += time.perf_counter() - began
        for placement in admitted:
            self._begin(self._jobs[placement.request.id])
        began = time.perf_counter()
        placed = self._scheduler.decide(self._now)
        self.tally.decision_seconds += time.perf_counter() - began
        self.tally.decisions += len(placed) + len(admitted)
        for placement in placed:
            self._start(placement)

    def _start(self, placement: Placement) -> None:
        job = self._jobs[placement.request.job_id]
        number = int(placement.request.id.rsplit("/", 1)[1])
        if not job.started:
            job.started = True
            self.tally.waits.setdefault(job.trace.priority, []).append(self._now - job.trace.arrival_seconds)
        choice = job.ways[placement.step]
        picture, name = _picture(job), placement.device.name
        real = int(formula_bytes(picture, choice.batch) * job.truth * self._dice.uniform(_LEAST_REAL, 1.0))
        task = _Task(job, number, placement, choice, real, self._now)
        self._tasks[placement.request.id] = task
        self._real[name] += real
        capacity = self._scheduler.capacity
        share = capacity.used_bytes(name) / capacity.devices[name].budget_bytes
        self.tally.most_reserved_share = max(self.tally.most_reserved_share, share)
        seconds = _FIXED_SECONDS + job.plan.segment(number).num_frames / frames_a_second(picture, choice.batch)
        if self._overflows(name):
            task.error, seconds = OutOfMemoryError("out of memory"), min(seconds, _OOM_SECONDS)
        elif self._dice.random() < self.world.deaths:
            task.error, seconds = WorkerDiedError("died"), seconds * self._dice.random()
        self._at(self._now + seconds, lambda: self._answer(task))

    def _overflows(self, name: str) -> bool:
        return self._real[name] + self._others[name] > self._total[name]

    def _answer(self, task: _Task) -> None:
        request = task.placement.request
        if self._tasks.get(request.id) is not task:
            return  # its card was lost; that was its answer
        del self._tasks[request.id]
        self._real[task.placement.device.name] -= task.real_bytes
        self._scheduler.release(request.id)
        self.tally.busy_seconds += self._now - task.started_seconds
        picture, job = _picture(task.job), task.job
        load, formula = _load(picture, task.choice.batch), formula_bytes(picture, task.choice.batch)
        if task.error is not None:
            if isinstance(task.error, OutOfMemoryError):
                self.tally.oom_events += 1
                self._calibration = self._calibration.raise_after_oom(load, formula, task.choice.reserved_bytes)
            else:
                self.tally.deaths += 1
            self._again(job, task.number, task.choice, task.error)
        elif not job.failed:
            self._calibration = self._calibration.learn(load, formula, task.real_bytes)
            job.left -= 1
            if job.left == 0:
                self.tally.finish(job.ideal)
                self._end(job)

    def _again(self, job: _Job, number: int, choice: Choice, error: HeygemdError) -> None:
        if job.failed:
            return
        attempt = job.tries[number] = job.tries.get(number, 0) + 1
        rung = Rung(choice.batch, job.plan.can_split(number), job.plan.alone)
        decision = decide(error, attempt=attempt, max_attempts=self.world.attempts, rung=rung)
        numbers = [number]
        if decision.action == "fail":
            job.failed = True
            self.tally.failed += 1
            for segment in job.plan.segments:
                self._scheduler.withdraw(f"{job.trace.id}/{segment.number}")
            self._end(job)
            return
        if decision.action == "smaller":
            job.plan = job.plan.limited(choice.batch // 2)
        elif decision.action == "split":
            before = {s.number for s in job.plan.segments}
            job.plan = job.plan.split(number)
            numbers = [s.number for s in job.plan.segments if s.number not in before]
            job.left += 1
        elif decision.action == "alone":
            job.plan = replace(job.plan.limited(1), alone=True)
        self._at(self._now + decision.wait_seconds, lambda: self._offer(job, numbers))
        others = [s.number for s in job.plan.segments if self._scheduler.is_waiting(f"{job.trace.id}/{s.number}")]
        self._offer(job, others)  # with the new needs

    # ---- the world moves ----

    def _devices(self) -> list[Device]:
        return [
            replace(card, budget_bytes=int((card.total_bytes - self._others[card.name]) * self.world.fraction))
            for card in self._cards
            if card.name not in self._lost
        ]

    def _publish(self) -> None:
        found = self._devices()
        self._most_bytes = max((card.budget_bytes for card in found), default=0)
        self._scheduler.set_devices(found)

    def _move(self) -> None:
        for card in self._cards:
            most = int(card.total_bytes * self.world.noise)
            step = int(self._dice.uniform(-0.25, 0.25) * most)
            self._others[card.name] = min(most, max(0, self._others[card.name] + step))
            if self._overflows(card.name):  # rare, so all tasks are looked at
                running = [t for t in self._tasks.values() if t.placement.device.name == card.name and t.error is None]
                if running:
                    task = max(running, key=lambda t: t.started_seconds)
                    task.error = OutOfMemoryError("out of memory")
                    self._at(self._now + 1.0, partial(self._answer, task))
        self._publish()
        self._at(self._now + _REFRESH_SECONDS, self._move)

    def _lose(self, name: str) -> None:
        self.tally.losses += 1
        self._lost[name] = self._now
        self._publish()
        for task in [t for t in self._tasks.values() if t.placement.device.name == name]:
            task.error = WorkerDiedError("the card is lost")
            self._answer(task)
        self._at(self._now + 600.0, lambda: self._return(name))

    def _return(self, name: str) -> None:
        self._lost.pop(name, None)
        self._publish()

    def report(self) -> dict[str, Any]:
        """JSON-ready."""
        return report(self.tally, self._cards)


def _picture(job: _Job) -> Picture:
    return Picture(job.trace.width, job.trace.height)


def _load(picture: Picture, batch: int) -> Load:
    return Load("simulated", "", "cuda", "float32", size_class(picture), batch)
