"""Who runs tasks. The daemon asks; a worker process does; its exit is the only sure release of memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from heygemd.core.capacity import Device
from heygemd.core.task import Message, Task


class Executor(Protocol):
    """Runs tasks on devices. Called from one thread. Every started task is answered by exactly one done or failed."""

    def start(self, task: Task, device: Device) -> None:
        """Begin. The caller has reserved the memory."""
        ...

    def poll(self, timeout_seconds: float) -> list[Message]:
        """Messages that have come, waiting at most so long for the first."""
        ...

    def cancel(self, task_id: str) -> None:
        """End the task now; it is answered with CancelledError. Unknown ids are ignored."""
        ...

    def running(self) -> frozenset[str]:
        """Ids of tasks that have not been answered."""
        ...

    def evict(self, device: str) -> None:
        """End idle workers of that device, so that what they keep warm makes room."""
        ...

    def pids(self) -> Mapping[int, str]:
        """Process id → device, of every worker on this machine."""
        ...

    def expect(self, waiting: Sequence[Mapping[str, int]]) -> None:
        """What waits beside what runs: for each task, by device kind, the least bytes it needs. A hint for executors
        that can grow; the others ignore it."""
        ...

    def close(self) -> None:
        """End every worker with its children. Nothing is answered any more."""
        ...
