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
    for _ in range(100):
        if not share_holds_threads():
            break
        time.sleep(0.05)
    assert not share_holds_threads()


def test_what_is_nearly_done_is_waited_for() -> None:
    done: list[int] = []
    work = SharePool[str]()
    work.start("stage", "job", lambda: done.append(1))
    work.close()
    assert done == [1]
