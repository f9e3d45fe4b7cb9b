"""Two executors as one: what is placed on a device of this machine runs here, what has a node runs on the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from heygemd.core.capacity import Device
from heygemd.core.task import Message, Task
from heygemd.work.executor import Executor

_SLICE_SECONDS = 0.05


class RoutedExecutor:
    """See Executor."""

    def __init__(self, here: Executor, cluster: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._here = here
        self._cluster = cluster
        self._clock = clock

    def start(self, task: Task, device: Device) -> None:
        (self._cluster if device.node else self._here).start(task, device)

    def poll(self, timeout_seconds: float) -> list[Message]:
        deadline = self._clock() + timeout_seconds
        while True:
            messages = self._here.poll(0.0) + self._cluster.poll(0.0)
            left = deadline - self._clock()
            if messages or left <= 0:
                return messages
            messages = self._cluster.poll(min(left, _SLICE_SECONDS))
            if messages:
                return messages

    def cancel(self, task_id: str) -> None:
        self._here.cancel(task_id)
        self._cluster.cancel(task_id)

    def running(self) -> frozenset[str]:
        return self._here.running() | self._cluster.running()

    def evict(self, device: str) -> None:
        self._here.evict(device)
        self._cluster.evict(device)

    def pids(self) -> Mapping[int, str]:
        return {**self._cluster.pids(), **self._here.pids()}

    def expect(self, waiting: Sequence[Mapping[str, int]]) -> None:
        self._cluster.expect(waiting)

    def close(self) -> None:
        self._here.close()
        self._cluster.close()
