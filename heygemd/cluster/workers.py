"""Worker actors: each holds what its segment was predicted to need as a Ray resource, and keeps its model warm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from heygemd.cluster.agents import SegmentWorker
from heygemd.cluster.nodes import Node, OnEvent
from heygemd.cluster.resources import demand, resource
from heygemd.core.capacity import Device
from heygemd.core.errors import NodeLostError
from heygemd.core.memory import mib
from heygemd.core.task import Task


@dataclass
class Worker:
    """One actor. `held_mib`: of its Ray resource, as long as it lives."""

    number: int
    node: str
    device: str
    kind: str
    held_mib: int
    actor: Any
    place: Node
    task_id: str | None = None
    folder: str = ""  # of the last task: that item's model is warm
    idle_since_seconds: float = 0.0
    pid: int | None = None

    def cancel(self, task_id: str) -> None:
        self.actor.cancel.options(concurrency_group="control").remote(task_id)


class Workers:
    """See the module. From the bridge's loop only."""

    def __init__(
        self,
        options: dict[str, Any],
        start_seconds: float,
        idle_seconds: float,
        on_event: OnEvent,
        on_pids: Callable[[], None],
    ) -> None:
        self._options = options
        self._start_seconds = start_seconds
        self._idle_seconds = idle_seconds
        self._on_event = on_event
        self._on_pids = on_pids
        decorate: Any = ray.remote  # its types do not know concurrency_groups
        self._actor = decorate(concurrency_groups={"control": 1})(SegmentWorker)
        self._workers: dict[int, Worker] = {}
        self._numbers = count(1)

    async def take(self, node: Node, device: Device, task: Task, folder: str) -> Worker:
        """A worker that holds enough: a warm one, or a new one. Raises NodeLostError when it does not come up."""
        needed = mib(task.reserved_bytes)
        idle = [w for w in self._idle() if w.node == node.name and w.device == device.name]
        fits = [w for w in idle if w.held_mib >= needed]
        warm = max(fits, key=lambda w: (w.folder == folder, w.idle_since_seconds), default=None)
        if warm is None:
            self._make_room(node, device.kind, needed)
            worker = self._spawn(node, device, task)
        else:
            worker = warm
        worker.task_id, worker.folder = task.id, folder
        node.tasks += 1
        if warm is None:
            try:
                ready, _ = await _first(worker.actor.ready.remote(), self._start_seconds)
            except BaseException:
                self.discard(worker)
                raise
            if not ready:
                self.discard(worker)
                raise NodeLostError(f"no worker came up on node {node.name} within {self._start_seconds:.0f} s")
        return worker

    def give_back(self, worker: Worker, *, alive: bool) -> None:
        """Its task was answered. `alive`: its process is there still, and warm."""
        worker.place.tasks -= worker.task_id is not None
        worker.task_id, worker.idle_since_seconds = None, time.monotonic()
        if not alive:
            worker.pid = None
            self._on_pids()

    def discard(self, worker: Worker) -> None:
        """End it now, whatever it does."""
        self._end(worker, "lost")

    def evict(self, device: str) -> None:
        for worker in self._idle():
            if worker.device == device:
                self._end(worker, "evicted")

    def end_idle(self, now: float) -> None:
        for worker in self._idle():
            if now - worker.idle_since_seconds > self._idle_seconds:
                self._end(worker, "idle")

    def end_all(self) -> Iterable[Any]:
        """What to wait for: then no process of theirs is left."""
        ends = [w.actor.end.options(concurrency_group="control").remote() for w in self._workers.values()]
        self._workers.clear()
        return ends

    def busy(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.task_id is not None]

    def heard(self, worker: Worker, name: str, fields: dict[str, Any]) -> None:
        """An event of its process."""
        if name == "worker.started":
            worker.pid = int(fields["worker"])
        self._on_event(name, {**fields, "device": worker.device})
        self._on_pids()

    def pids_by_node(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for worker in self._workers.values():
            if worker.pid is not None:
                found.setdefault(worker.node, []).append(worker.pid)
        return found

    def pids_here(self, nodes: set[str]) -> dict[int, str]:
        """Process id → device, of those on these nodes."""
        return {w.pid: w.device for w in self._workers.values() if w.pid is not None and w.node in nodes}

    def _idle(self) -> list[Worker]:
        return [w for w in self._workers.values() if w.task_id is None]

    def _make_room(self, node: Node, kind: str, needed_mib: int) -> None:
        """End idle workers of the node, the longest idle first, until Ray can give so much."""
        holding = [w for w in self._workers.values() if w.node == node.name and w.kind == kind]
        free = node.resources.get(resource(kind), 0) - sum(w.held_mib for w in holding)
        for worker in sorted((w for w in holding if w.task_id is None), key=lambda w: w.idle_since_seconds):
            if free >= needed_mib:
                return
            free += worker.held_mib
            self._end(worker, "evicted")

    def _spawn(self, node: Node, device: Device, task: Task) -> Worker:
        actor = self._actor.options(
            num_cpus=0,
            resources=demand(device.kind, task.reserved_bytes),
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(self._options)
        held = mib(task.reserved_bytes)
        worker = Worker(next(self._numbers), node.name, device.name, device.kind, held, actor, node)
        self._workers[worker.number] = worker
        return worker

    def _end(self, worker: Worker, reason: str) -> None:
        if self._workers.pop(worker.number, None) is None:
            return
        worker.place.tasks -= worker.task_id is not None
        # First its process with all that this has started, then the actor itself: Ray queues the one before the other.
        worker.actor.end.options(concurrency_group="control").remote()
        worker.actor.__ray_terminate__.remote()
        if worker.pid is not None and reason != "lost":
            self._on_event("worker.ended", {"worker": worker.pid, "device": worker.device, "reason": reason})
        self._on_pids()


async def _first(reference: Any, timeout_seconds: float) -> tuple[bool, Any]:
    try:
        return True, await asyncio.wait_for(_value(reference), timeout_seconds)
    except TimeoutError:
        return False, None


async def _value(reference: Any) -> Any:
    return await reference
