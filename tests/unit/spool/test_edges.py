"""The smaller edges: layout and sentinel, control files, status files, watch hints, failpoints."""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import heygemd
from heygemd import failpoints
from heygemd.core.errors import HeygemdError, ShareAwayError
from heygemd.spool.control import answer, send, sweep_answers, take_requests, wait_answer
from heygemd.spool.layout import SENTINEL, Layout
from heygemd.spool.status import prune_status, remove_status, write_status
from heygemd.spool.watch import Watch, choose_mode

from .conftest import Desk

# layout


def test_the_first_start_makes_everything(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "new/share", tmp_path / "new/state")
    layout.ensure()
    layout.ensure()
    layout.check_share()
    assert {p.name for p in layout.root.iterdir()} == {"inbox", "outbox", "failed", "archive", "status", SENTINEL}


def test_an_inbox_that_was_there_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "share/inbox").mkdir(parents=True)
    (tmp_path / "share/inbox/a.mp4").touch()
    Layout(tmp_path / "share", tmp_path / "state").ensure()
    assert (tmp_path / "share/inbox/a.mp4").exists()


def test_a_bare_mount_point_is_never_taken_for_the_share(layout: Layout) -> None:
    mounted = layout.root.rename(layout.root.with_name("elsewhere"))
    layout.root.mkdir()
    for act in (layout.ensure, layout.check_share):
        with pytest.raises(ShareAwayError, match="not mounted"):
            act()
    assert not any(layout.root.iterdir()), "nothing is made below a bare mount point"
    layout.root.rmdir()
    with pytest.raises(ShareAwayError):
        layout.ensure()
    mounted.rename(layout.root)
    layout.ensure()


def test_another_share_is_told_apart_and_a_new_state_adopts_a_known_share(layout: Layout, tmp_path: Path) -> None:
    (layout.root / SENTINEL).write_text('{"share": "another"}')
    with pytest.raises(ShareAwayError, match="another share"):
        layout.check_share()
    shutil.rmtree(layout.state)
    layout.ensure()
    layout.check_share()
    (layout.root / SENTINEL).write_text("{")
    with pytest.raises(ShareAwayError, match="damaged"):
        layout.check_share()
    layout.seen.write_text("[]")
    layout.sentinel.write_text('{"share": "another"}')
    with pytest.raises(HeygemdError, match="unreadable"):
        layout.check_share()


# control


def test_requests_come_in_order_and_stay_until_answered(layout: Layout) -> None:
    first = send(layout.control, "cancel", "课程 1")
    second = send(layout.control, "clean", dry_run=True)
    requests = take_requests(layout.control)
    assert [(r.id, r.action, r.job, r.arguments) for r in requests] == [
        (first, "cancel", "课程 1", {}),
        (second, "clean", None, {"dry_run": True}),
    ]
    assert take_requests(layout.control) == requests
    answer(layout.control, first, True, "cancelled", job="x")
    assert [r.id for r in take_requests(layout.control)] == [second]
    got = wait_answer(layout.control, first, 5.0)
    assert got is not None and got.ok and got.details == {"job": "x"}
    assert wait_answer(layout.control, second, 0.0) is None
    answer(layout.control, second, False, "no")
    assert sweep_answers(layout.control) == 0 and sweep_answers(layout.control, older_than_seconds=-1) == 1
    assert list(layout.control.iterdir()) == []


@pytest.mark.parametrize("data", ["", "[]", '{"action": "format"}', '{"action": "retry", "job": 3}', "\x00" * 100_000])
def test_files_that_are_no_requests_are_set_aside(layout: Layout, data: str) -> None:
    (layout.control / f"{1:020d}-00000000.request").write_text(data)
    (layout.control / "notes.txt").write_text("x")
    assert take_requests(layout.control) == ()
    assert {p.suffix for p in layout.control.iterdir()} == {".broken", ".txt"}


# status


def test_status_files(desk: Desk) -> None:
    job = desk.job("课程 1")
    write_status(desk.layout, job, {"percent": 12.5})
    path = desk.layout.status / "课程 1.json"
    assert json.loads(path.read_text()) == {"job": "课程 1", "job_id": job.id, "state": "queued", "percent": 12.5}
    (desk.layout.status / "theirs.json").write_text("{}")
    (desk.layout.status / "课程 1.txt").write_text("x")
    (desk.layout.status / "link.json").symlink_to(path)
    stale, young = desk.layout.status / ".heygemd-1.part", desk.layout.status / ".heygemd-2.part"
    stale.touch()
    young.touch()
    os.utime(stale, (1, 1))
    old = job.evolve(name="old")
    write_status(desk.layout, old, {})
    assert prune_status(desk.layout, {"课程 1"}) == ("old",)
    assert (desk.layout.status / "link.json").is_symlink()
    assert not (desk.layout.status / "old.json").exists() and path.exists()
    assert (desk.layout.status / "theirs.json").exists() and young.exists() and not stale.exists()
    remove_status(desk.layout, "课程 1")
    remove_status(desk.layout, "课程 1")
    assert not path.exists()


# watch


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("mode", ["events", "polling"])
def test_hints_come_and_dead_threads_are_replaced(layout: Layout, mode: str) -> None:
    poked = threading.Event()
    watch = Watch(layout.inbox, poked.set, wanted=mode, poll_seconds=0.05)  # type: ignore[arg-type]
    assert watch.start() and watch.healthy() and watch.mode == mode
    try:
        (layout.inbox / "sub").mkdir()
        assert wait_for(poked.is_set)
        time.sleep(0.3)
        poked.clear()
        (layout.inbox / "sub/a.mp4").write_bytes(b"x")
        assert wait_for(poked.is_set), "also in folders that came later"
        assert not watch.check()
        emitter = next(iter(watch._observer.emitters))  # type: ignore[union-attr]
        emitter.stop()
        emitter.join(120)
        assert not watch.healthy(), "the observer alone would say that it lives"
        assert watch.check() and watch.healthy()
        poked.clear()
        (layout.inbox / "b.mp4").write_bytes(b"x")
        assert wait_for(poked.is_set)
    finally:
        watch.stop()
    assert not watch.healthy()


def test_a_stop_is_no_error_in_the_log(layout: Layout, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(layout.inbox, lambda: None, wanted="events")
    assert watch.start()
    emitter = next(iter(watch._observer.emitters))  # type: ignore[union-attr]
    watch.stop()
    emitter.queue_events(0.01)  # as its thread does when it is stopped between two looks
    logging.getLogger("watchdog.observers.inotify").error("anything else is told")
    assert [record.getMessage() for record in caplog.records] == ["anything else is told"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "none", lambda: None)
    assert not watch.start() and watch.problem is not None and not watch.healthy()
    (tmp_path / "none").mkdir()
    assert watch.check() and watch.healthy() and watch.problem is None
    watch.stop()


def test_network_mounts_are_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.spool.watch.fs_type", lambda path: "nfs4")
    assert choose_mode(tmp_path, "auto") == "polling" and choose_mode(tmp_path, "events") == "events"


# failpoints


def test_every_failpoint_is_declared_and_stands_somewhere() -> None:
    root = Path(heygemd.__file__).parent
    used = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in failpoints.NAMES:
                used.add((node.value, path.name))
    standing = {name for name, file in used if file != "failpoints.py"}
    assert standing == set(failpoints.NAMES)


def test_counts_and_actions() -> None:
    failpoints.failpoint("stage.copy")
    failpoints.arm("stage.copy=eio@2, stage.end=enospc@2+")
    failpoints.failpoint("stage.copy")
    with pytest.raises(OSError, match=r"stage\.copy"):
        failpoints.failpoint("stage.copy")
    failpoints.failpoint("stage.copy")
    failpoints.failpoint("stage.end")
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            failpoints.failpoint("stage.end")
    with pytest.raises(ValueError, match="not declared"):
        failpoints.failpoint("nowhere")
    for wrong in ("stage.copy", "stage.copy=explode"):
        with pytest.raises(ValueError, match="HEYGEMD_FAILPOINT"):
            failpoints.arm(wrong)
    assert os.environ.get("HEYGEMD_FAILPOINT") is None
