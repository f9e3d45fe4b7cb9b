"""Blocking calls off the loop: each runs in a thread, its result is handled in the loop."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from heygemd.core.errors import HeygemdError
from heygemd.service.pool import wait_a_while

Handler = Callable[[Any, HeygemdError | None], None]
"""Gets the value, or None and the error. Runs in the loop's thread."""


class Calls:
    """At most one call of each name runs at a time; a second one is refused until the first was handled."""

    def __init__(self, num_threads: int = 3) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="call")
        self._running: dict[str, tuple[Future[Any], Handler]] = {}

    def start(self, name: str, work: Callable[[], Any], then: Handler) -> bool:
        if name in self._running:
            return False
        self._running[name] = (self._pool.submit(work), then)
        return True

    def running(self, name: str) -> bool:
        return name in self._running

    def collect(self) -> None:
        """Handle what has ended. An error that is not ours is a bug and is raised."""
        for name, (future, then) in list(self._running.items()):
            if not future.done():
                continue
            del self._running[name]
            error = future.exception()
            if error is None:
                then(future.result(), None)
            elif isinstance(error, HeygemdError):
                then(None, error)
            else:
                raise error

    def close(self) -> None:
        """Let running calls end, for a while; their results are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait_a_while([future for future, _ in self._running.values()])
        self._running.clear()
