"""Whether workers answer: what READY and the watchdog go by, whoever the executor is."""

from __future__ import annotations

import time
from collections.abc import Callable

from heygemd.core.capacity import Device
from heygemd.core.task import Message, Task
from heygemd.ops import systemd
from heygemd.work.executor import Executor
from heygemd.work.local import LocalExecutor

GRACE_SECONDS = 30.0
"""Beyond the heartbeat's limit: so long a worker that is killed for its silence may take to be gone."""

_GREETING = "greeting"
_GREET_AGAIN_SECONDS = 5.0


class Pulse:
    """Stands between executor and runner and notes when there was a word. One thread."""

    def __init__(self, executor: Executor, host: Device, clock: Callable[[], float] = time.monotonic) -> None:
        self._executor = executor
        self._host = host
        self._clock = clock
        self._heard_seconds = clock()
        self._greet_at_seconds: float | None = None
        self._answered = False

    def answers(self) -> bool:
        """Whether a worker has answered. Until then one of the host is asked: a broken environment must not look ready.

        Nothing is reserved: the worker has loaded no model, and the first job will use it. A cluster that is away is a
        state and no broken environment, so only this machine's own workers are asked.
        """
        if not self._answered and isinstance(self._executor, LocalExecutor):
            self._greet()
            return False
        return True

    def _greet(self) -> None:
        if _GREETING in self._executor.running():
            return
        if self._greet_at_seconds is None or self._clock() >= self._greet_at_seconds:
            self._greet_at_seconds = self._clock() + _GREET_AGAIN_SECONDS
            self._executor.start(Task(_GREETING, "hello", "", self._host.name, self._host.threads, {}), self._host)

    def poll(self, timeout_seconds: float) -> list[Message]:
        """The executor's messages, without the answer to the greeting."""
        messages = self._executor.poll(timeout_seconds)
        if messages or not self._executor.running():
            self._heard_seconds = self._clock()
        self._answered |= any(message.type in ("progress", "done") for message in messages)
        return [message for message in messages if message.task_id != _GREETING]

    @property
    def silent_seconds(self) -> float:
        """How long there was no word from any worker although some have work; 0 where none has."""
        return self._clock() - self._heard_seconds if self._executor.running() else 0.0


class Watchdog:
    """Feeds the service manager's watchdog from the loop, only while the workers advance too.

    One silent worker is the executor's affair: it is killed and its task tried again. Where that does not help either
    and nobody says a word, only a restart of the whole service is left.
    """

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._starved = False
        self.fed_seconds = time.time()  # Unix time

    def feed(self, silent_seconds: float, heartbeat_timeout_seconds: float) -> None:
        """To be called in every round of the loop."""
        if silent_seconds <= heartbeat_timeout_seconds + GRACE_SECONDS:
            self._starved = False
            self.fed_seconds = time.time()
            systemd.watchdog_ping()
        elif not self._starved:
            self._starved = True
            self._log("watchdog.starved", duration_seconds=round(silent_seconds, 1))
