"""Disks that say no, without disks: what waits, what fails, and what is heard again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heygemd.core import errors
from heygemd.core.job import JobState
from heygemd.core.options import Options
from heygemd.service import room
from heygemd.service.room import WorkRoom, render_bytes, used_bytes
from heygemd.spool.lock import daemon_lock, daemon_notice, daemon_pid
from tests.unit.service.fakes import Rig, prepared

GB = 10**9


def disk(monkeypatch: pytest.MonkeyPatch, *, total: int, free: int) -> None:
    found = SimpleNamespace(f_frsize=1000, f_blocks=total // 1000, f_bavail=free // 1000)
    monkeypatch.setattr(os, "statvfs", lambda _path: found)


def test_what_can_never_fit_fails_and_what_does_not_fit_now_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, total=100 * GB, free=10 * GB)
    work = WorkRoom(tmp_path, reserve_bytes=GB)
    work.require("a job", 9 * GB)
    with pytest.raises(errors.DiskFullError, match="9,000,000,000 are free"):
        work.require("a job", 9 * GB + 1)
    with pytest.raises(errors.LimitError, match="there are 99,000,000,000 in all"):
        work.require("a job", 99 * GB + 1)


def test_the_quota_counts_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"x" * 500_000)
    used = used_bytes(tmp_path)
    assert used >= 500_000
    work = WorkRoom(tmp_path, quota_bytes=used + 1000)
    work.require("a job", 1000)
    with pytest.raises(errors.DiskFullError, match="max_work_bytes"):
        work.require("a job", 1001)
    with pytest.raises(errors.LimitError):
        work.require("a job", used + 1001)


def test_a_lossless_render_needs_more() -> None:
    item = prepared(1000)
    assert render_bytes(item) > 2 * 0.01 * 1000 * 640 * 480
    lossless = prepared(1000)
    object.__setattr__(lossless, "options", Options(quality="lossless"))
    assert render_bytes(lossless) > 10 * render_bytes(item)


def run_until(rig: Rig, condition: Callable[[], Any]) -> None:
    for _ in range(1000):
        rig.step()
        rig.clock.now += 0.05
        if condition():
            return
    raise AssertionError("it never happened")


def test_a_pause_that_somebody_asked_for_outlives_a_full_disk(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.dispatcher.pauses.pause("asked for")
    rig.dispatcher.pauses.pause("the disk is full", for_seconds=5.0)
    assert rig.dispatcher.pauses.reason == "asked for"
    rig.clock.now += 6
    rig.dispatcher.step(0.0)
    assert rig.dispatcher.pauses.reason == "asked for"
    assert [f["reason"] for n, f in rig.events if n == "queue.resumed"] == ["the disk is full"]
    rig.dispatcher.pauses.resume()
    assert rig.dispatcher.pauses.reason is None
    rig.dispatcher.close()


@pytest.mark.parametrize("method", ["segment_done", "count_attempt", "set_plan", "finish", "update"])
def test_the_journal_refuses_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A full state disk: every call of the journal fails twice, the queue says so, and nothing is done twice."""
    rig = Rig(tmp_path)
    left = [2]
    original = getattr(rig.journal, method)

    def refuse(*arguments: Any, **keywords: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise errors.DiskFullError("journal: database or disk is full")
        return original(*arguments, **keywords)

    monkeypatch.setattr(rig.journal, method, refuse)
    rig.submit("one")
    rig.submit("two")
    run_until(rig, lambda: len(rig.dispatcher.ended) == 2)
    assert {job.state for job in rig.dispatcher.ended} == {JobState.DONE}
    assert len(rig.journal.done) == 8
    assert all(count == 1 for task, count in rig.executor.tries.items() if "render" in task), rig.executor.tries
    assert {"queue.paused", "job.waiting"} & set(rig.names())
    rig.dispatcher.close()


def test_one_job_without_room_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    rig.submit("first")
    run_until(rig, lambda: any(n == "job.staged" for n in rig.names()))
    full = errors.DiskFullError("copy of second: no room")
    rig.door.stage_errors = [full] * 3
    rig.executor.hold = True  # the first is at work
    rig.submit("second")
    run_until(rig, lambda: "job.waiting" in rig.names())
    assert rig.dispatcher.pauses.reason is None
    rig.executor.hold = False
    run_until(rig, lambda: len(rig.dispatcher.ended) == 2)
    assert {job.state for job in rig.dispatcher.ended} == {JobState.DONE}
    assert rig.names().count("job.waiting") <= 1, "told once"
    rig.dispatcher.close()


def test_a_job_that_fits_no_disk_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    monkeypatch.setattr(room, "_BYTES_PER_PIXEL", 1e9)
    rig.submit("huge")
    run_until(rig, lambda: rig.dispatcher.ended)
    assert rig.dispatcher.ended[0].state is JobState.FAILED
    assert isinstance(rig.door.delivered[0][2], errors.LimitError)
    rig.dispatcher.close()


def test_the_lock_carries_a_line_for_status(tmp_path: Path) -> None:
    path = tmp_path / "daemon.lock"
    assert daemon_notice(path) is None
    with daemon_lock(path) as lock:
        size = path.stat().st_size
        assert daemon_notice(path) is None
        lock.tell("no room:\non the disk " + "x" * 5000)
        assert (daemon_notice(path) or "").startswith("no room: on the disk xxx")
        assert daemon_pid(path) == os.getpid()
        assert path.stat().st_size == size, "overwritten in place: a full disk lets nothing grow"
        lock.tell(None)
        assert daemon_notice(path) is None
        lock.tell("left behind")
    assert daemon_notice(path) is None
