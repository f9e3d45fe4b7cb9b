import threading
import time
from collections.abc import Iterator

import pytest

from heygemd.work.streams import ByteQueue, Sink, prefetch


def test_prefetch_keeps_order_and_its_bound() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    stream = prefetch(source(), max_bytes=30, size=lambda _: 10, name="t")
    first = next(stream)
    time.sleep(0.2)
    assert len(made) <= 1 + 3 + 1  # taken, queued, and one in hand
    assert [first, *stream] == list(range(50))


def test_prefetch_raises_the_sources_error_after_what_came_before() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    stream = prefetch(source(), max_bytes=10, size=lambda _: 1, name="t")
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_leaving_early_stops_the_source_and_its_thread() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    stream = prefetch(source(), max_bytes=3, size=lambda _: 1, name="t")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed.wait(2)
    assert threading.active_count() == before


def test_one_item_larger_than_the_bound_still_passes() -> None:
    queue: ByteQueue[bytes] = ByteQueue(4, len)
    assert queue.put(b"123456789")
    queue.close()
    assert list(queue) == [b"123456789"]


def test_sink_consumes_in_order_and_gives_its_error_to_the_producer() -> None:
    seen: list[int] = []
    sink: Sink[int] = Sink(seen.append, max_bytes=2, size=lambda _: 1, name="t")
    for i in range(20):
        sink.put(i)
    sink.close()
    assert seen == list(range(20))

    def fail(item: int) -> None:
        raise OSError(f"no room for {item}")

    broken: Sink[int] = Sink(fail, max_bytes=1, size=lambda _: 1, name="t")
    with pytest.raises(OSError, match="no room for 0"):
        for i in range(100):
            broken.put(i)
