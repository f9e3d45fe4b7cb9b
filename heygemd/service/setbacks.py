"""What follows from a task's failure: tried again, one rung down the ladder, a pause, or the end of its item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.coding import SOFTWARE
from heygemd.core.errors import HeygemdError, NodeLostError, OutOfMemoryError, WorkerDiedError
from heygemd.core.plan import Choice
from heygemd.core.retry import Decision, Rung, decide
from heygemd.service.active import ActiveItem, ActiveJob
from heygemd.service.estimates import Estimates
from heygemd.service.fleet import Fleet, LogEvent
from heygemd.service.plans import Plans


@dataclass(frozen=True)
class Running:
    """A task that a device works on."""

    active: ActiveJob
    item: ActiveItem
    key: str
    device: Device
    reserved_bytes: int
    choice: Choice | None = None  # of a render

    @property
    def number(self) -> int:
        """Of the segment; only for a render."""
        return int(self.key.removeprefix("render:"))


_MOST_LOSSES = 10
"""So often the loss of a node does not count as a try: a segment that kills its nodes must end, too."""
_DEADLY = frozenset({WorkerDiedError.__name__, NodeLostError.__name__})
_REASONS = {
    "retry": "trying again can help",
    "smaller": "with half the batch",
    "split": "as two segments of half the length",
    "alone": "with the smallest batch and the whole device to itself",
    "software": "the whole result, without the card's encoder",
}


class Setbacks:
    """Remembers what went wrong with each task until it is done."""

    def __init__(
        self,
        fleet: Fleet,
        plans: Plans,
        estimates: Estimates,
        *,
        log: LogEvent,
        clock: Callable[[], float],
        pause: Callable[[HeygemdError, float], None],
    ) -> None:
        self._fleet = fleet
        self._plans = plans
        self._estimates = estimates
        self._log = log
        self._clock = clock
        self._pause = pause
        self._tries: dict[str, list[dict[str, Any]]] = {}

    def overcome(self, task_id: str) -> None:
        """The task is done."""
        self._tries.pop(task_id, None)

    def died_on(self, task_id: str) -> frozenset[str]:
        """Where its worker died before, as long as there is another place to try."""
        tries = self._tries.get(task_id, ())
        died = frozenset(str(entry["device"]) for entry in tries if entry["type"] in _DEADLY)
        return died if any(d.name not in died for d in self._fleet.renders) else frozenset()

    def _losses(self, task_id: str) -> int:
        """How often a node or the cluster was lost beneath it."""
        return sum(entry["type"] == NodeLostError.__name__ for entry in self._tries.get(task_id, ()))

    def met(self, task_id: str, running: Running, error: HeygemdError, limit: int) -> bool:
        """Decide how a failed task goes on, of at most `limit` tries. True: what else runs for its item is to be ended,
        for the item is over or begins again."""
        active, item, key = running.active, running.item, running.key
        item.progress.pop(key, None)
        if active.cancelled or not _wanted(running):
            return False
        choice = running.choice
        if isinstance(error, NodeLostError) and self._losses(task_id) < _MOST_LOSSES:
            item.attempts[key] -= 1  # not its fault
        attempt = max(1, item.attempts[key])
        decision = decide(error, attempt=attempt, max_attempts=limit, rung=_rung(running))
        where = {"segment": running.number} if choice is not None else {"stage": key}
        context = {
            **active.job.log_context(),
            **where,
            "item": item.item.name,
            "device": running.device.name,
            "attempt": attempt,
        }
        kind = "segment" if choice is not None else "task"
        self._log(f"{kind}.failed", **context, error=error)
        if decision.action != "pause":
            self._note(task_id, running, error)
        if decision.action in _REASONS:
            self._log(f"{kind}.retried", **context, reason=_REASONS[decision.action], rung=decision.action)
        if isinstance(error, WorkerDiedError):
            self._fleet.strike(running.device.name, active.job.id, self._clock())
        if isinstance(error, OutOfMemoryError) and choice is not None and item.prepared is not None:
            self._estimates.raise_after_oom(item.prepared, choice, running.reserved_bytes, context)
        if decision.action == "fail":
            error.details["attempts"] = self._tries.pop(task_id, [])
            item.error = error
            return True
        if decision.action == "pause":
            item.attempts[key] -= 1
            self._pause(error, decision.wait_seconds)
        elif decision.action == "software":
            self._in_software(running, error.message)
            return True
        else:
            self._descend(running, decision)
        return False

    def mixed(self, running: Running) -> bool:
        """After a segment: whether its encoder's parameters differ from those before, as two models of card's may.

        True: the item begins again in software, and what else runs for it is to be ended.
        """
        item, plan = running.item, running.item.plan
        if plan is None or plan.coding.encoder == SOFTWARE or not _wanted(running):
            return False
        found = {item.segment_stats.get(number, {}).get("parameters") for number in item.done_segments}
        if len(found - {None}) < 2:
            return False
        self._in_software(running, "the cards' encoders differ, and their segments cannot be joined")
        return True

    def _in_software(self, running: Running, reason: str) -> None:
        active, item = running.active, running.item
        assert item.plan is not None  # noqa: S101 - a segment of it was rendered
        self._plans.keep(active, item, item.plan.in_software(reason))
        item.done_segments = set()
        self._log("encoder.replaced", **active.job.log_context(), item=item.item.name, encoder=SOFTWARE, reason=reason)

    def _descend(self, running: Running, decision: Decision) -> None:
        """One rung down, or the same again, after a while."""
        item, key, choice = running.item, running.key, running.choice
        due = self._clock() + decision.wait_seconds
        item.not_before_seconds[key] = due
        if item.plan is None or choice is None or decision.action == "retry":
            return
        if decision.action == "smaller":
            plan = item.plan.limited(choice.batch // 2)
        elif decision.action == "split":
            plan = item.plan.split(running.number)
            item.not_before_seconds |= {f"render:{s.number}": due for s in plan.segments if s not in item.plan.segments}
        else:
            plan = replace(item.plan.limited(1), alone=True)
        self._plans.keep(running.active, item, plan)

    def _note(self, task_id: str, running: Running, error: HeygemdError) -> None:
        entry: dict[str, Any] = {"device": running.device.name, "type": type(error).__name__, "message": error.message}
        if running.choice is not None:
            entry |= {"batch": running.choice.batch, "reserved_bytes": running.reserved_bytes}
        self._tries.setdefault(task_id, []).append(entry)


def _wanted(running: Running) -> bool:
    """Whether the plan still has the segment: what was begun for an earlier plan does not matter any more."""
    plan = running.item.plan
    return running.choice is None or plan is None or plan.has(running.number)


def _rung(running: Running) -> Rung | None:
    plan, choice = running.item.plan, running.choice
    if plan is None or choice is None:
        return None
    return Rung(choice.batch, plan.can_split(running.number), plan.alone)
