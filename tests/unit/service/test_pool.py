"""What a dead share holds must not hold the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from heygemd.service import pool
from heygemd.service.calls import Calls
from heygemd.service.pool import Board, SharePool, share_holds_threads


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Work waits for it."""
    monkeypatch.setattr(pool, "CLOSE_SECONDS", 0.05)
    answers = threading.Event()
    yield answers
    answers.set()


def test_all_close_while_the_share_hangs(share: threading.Event) -> None:
    assert not share_holds_threads()
    calls, work, board = Calls(), SharePool[str](), Board(lambda _job, _view: share.wait())  # type: ignore[arg-type]
    calls.start("scan", share.wait, lambda _value, _error: None)
    work.start("stage", "job", share.wait)
    calls.close()
    work.close()
    board.close()
    assert share_holds_threads()
    share.set()
    until = time.monotonic() + 60
    while share_holds_threads():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_is_nearly_done_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CLOSE_SECONDS", 120.0)
    done: list[int] = []
    begun = threading.Event()

    def last() -> None:
        begun.set()
        time.sleep(0.1)
        done.append(1)

    work = SharePool[str]()
    work.start("stage", "job", last)
    assert begun.wait(60), "what no thread has begun is dropped: it comes again after the start"
    work.close()
    assert done == [1]
