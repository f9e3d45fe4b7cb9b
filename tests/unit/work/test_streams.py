import threading
import time
from collections.abc import Iterator

import pytest

from heygemd.work.streams import ByteQueue, Sink, prefetch, side_by_side


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

    before = set(threading.enumerate())
    stream = prefetch(source(), max_bytes=3, size=lambda _: 1, name="t")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed.wait(60)
    assert set(threading.enumerate()) <= before  # another test's thread may end meanwhile


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


def test_side_by_side_keeps_the_order_and_runs_no_more_than_it_may() -> None:
    now, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2)
    taken = []

    def items() -> Iterator[int]:
        for i in range(20):
            taken.append(i)
            yield i

    def work(item: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        if item < 2:
            together.wait(60)
        time.sleep(0.002 * (item % 3))
        with lock:
            now -= 1
        return item * item

    results = []
    for result in side_by_side(work, items(), threads=2, name="t"):
        results.append(result)
        assert len(taken) <= len(results) + 2
    assert results == [i * i for i in range(20)]
    assert most == 2


def test_side_by_side_raises_what_the_work_or_the_items_raise_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())

    def work(item: int) -> int:
        if item == 3:
            raise OSError("the third")
        return item

    got = []
    with pytest.raises(OSError, match="the third"):
        for result in side_by_side(work, iter(range(100)), threads=2, name="t"):
            got.append(result)
    assert got == [0, 1, 2]

    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(side_by_side(work, items(), threads=2, name="t"))
    stream = side_by_side(work, iter([0] * 9), threads=2, name="t")
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before  # another test's thread may end meanwhile
