"""Threads for what may block on the share. A share that hangs holds a thread here, never the loop, nor the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from heygemd.core.errors import HeygemdError
from heygemd.core.job import Job

Owner = TypeVar("Owner")
Kind = Literal["stage", "deliver"]

CLOSE_SECONDS = 10.0
"""What is under way at the end may take so long to end. A thread that a dead share holds never does."""
_given_up: list[Future[Any]] = []


def wait_a_while(futures: Collection[Future[Any]]) -> None:
    """For what is under way to end; what does not is given up."""
    _given_up.extend(wait(futures, timeout=CLOSE_SECONDS).not_done)


def share_holds_threads() -> bool:
    """Whether something that was given up hangs on the share still: Python would wait for its thread for ever."""
    return not all(future.done() for future in _given_up)


@dataclass(frozen=True)
class Answer(Generic[Owner]):
    """Exactly one of `value` and `error` says how it went."""

    kind: Kind
    owner: Owner
    value: Any = None
    error: HeygemdError | None = None


class SharePool(Generic[Owner]):
    """Blocking work of a few jobs at once. Started and collected from one thread."""

    def __init__(self, num_threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="share")
        self._futures: dict[Future[Any], tuple[Kind, Owner]] = {}

    def start(self, kind: Kind, owner: Owner, work: Callable[[], Any]) -> None:
        self._futures[self._pool.submit(work)] = (kind, owner)

    @property
    def busy(self) -> bool:
        """Whether something is under way or waits to be collected."""
        return bool(self._futures)

    def collect(self) -> Iterator[Answer[Owner]]:
        """What has ended, one after the other: when taking one in fails, the others are there the next time.

        An error that is not ours is a bug and is raised.
        """
        for future in [f for f in self._futures if f.done()]:
            kind, owner = self._futures.pop(future)
            error = future.exception()
            if error is None:
                yield Answer(kind, owner, value=future.result())
            elif isinstance(error, HeygemdError):
                yield Answer(kind, owner, error=error)
            else:
                raise error

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait_a_while(self._futures)


class Board:
    """Status files, written by one thread; of several views of a job that wait, only the last is written."""

    def __init__(self, show: Callable[[Job, Mapping[str, Any]], None]) -> None:
        self._show = show
        self._waiting: dict[str, tuple[Job, Mapping[str, Any]]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._last: list[Future[None]] = []  # one thread: when the last is written, all are

    def put(self, job: Job, view: Mapping[str, Any]) -> None:
        with self._lock:
            fresh = job.id not in self._waiting
            self._waiting[job.id] = (job, view)
        if fresh:
            self._last = [self._pool.submit(self._write, job.id)]

    def _write(self, job_id: str) -> None:
        with self._lock:
            job, view = self._waiting.pop(job_id)
        self._show(job, view)

    def close(self) -> None:
        """Write what waits, then end."""
        self._pool.shutdown(wait=False)
        wait_a_while(self._last)
