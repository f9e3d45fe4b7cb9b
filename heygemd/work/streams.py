"""The only threads and queues of the pipeline: stages stay plain iterators, and run side by side through these."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class ByteQueue(Generic[T]):
    """A queue bounded in bytes. One item is always let in, so that a huge frame cannot block for ever."""

    def __init__(self, max_bytes: int, size: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._items: deque[T] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room, then add. False when the reader has gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items or self._bytes < self._max_bytes)
            if self._closed:
                return False
            self._items.append(item)
            self._bytes += self._size(item)
            self._changed.notify_all()
            return True

    def close(self, error: BaseException | None = None) -> None:
        """No more items; a reader gets what is left, then `error` if there is one."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def drop(self) -> None:
        """The reader goes: nothing more is taken, and a waiting writer is let go."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._items))
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._bytes -= self._size(item)
                self._changed.notify_all()
            yield item


def prefetch(source: Iterator[T], *, max_bytes: int, size: Callable[[T], int], name: str) -> Iterator[T]:
    """Run `source` on a thread of its own, at most `max_bytes` ahead. Its error is raised here; closing stops it."""
    queue: ByteQueue[T] = ByteQueue(max_bytes, size)

    def work() -> None:
        try:
            for item in source:
                if not queue.put(item):
                    break
        except BaseException as error:  # noqa: BLE001 - handed to the reader, which raises it
            queue.close(error)
        else:
            queue.close()
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield from queue
    finally:
        queue.drop()
        thread.join()


def side_by_side(work: Callable[[T], R], items: Iterator[T], *, threads: int, name: str) -> Iterator[R]:
    """`work(item)` for each item, in their order, `threads` of them at once and none further ahead."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                del item
                if len(waiting) == threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class Sink(Generic[T]):
    """Run `consume` on a thread of its own for each item put in, in order. `close` waits and raises its error."""

    def __init__(self, consume: Callable[[T], None], *, max_bytes: int, size: Callable[[T], int], name: str) -> None:
        self._queue: ByteQueue[T] = ByteQueue(max_bytes, size)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(consume,), name=name, daemon=True)
        self._thread.start()

    def _work(self, consume: Callable[[T], None]) -> None:
        try:
            for item in self._queue:
                consume(item)
        except BaseException as error:  # noqa: BLE001 - kept for the producer, which raises it
            self._error = error
            self._queue.drop()

    def put(self, item: T) -> None:
        if not self._queue.put(item):
            self.close()

    def close(self) -> None:
        self._queue.close()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Stop without raising; for when something else has failed already."""
        self._queue.drop()
        self._thread.join()
