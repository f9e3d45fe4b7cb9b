"""`status`, `retry`, `cancel`, `pause`, `resume`, `clean`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from heygemd.cli import queue
from heygemd.core.errors import BadInputError, UsageError
from heygemd.spool.control import answer, take_requests
from heygemd.spool.layout import MARKER, Layout
from heygemd.spool.lock import daemon_lock
from heygemd.spool.viewing import all_views

from .conftest import Run, write_status


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is asked is a thread of this very process, however busy the machine is."""
    monkeypatch.setattr(queue, "ANSWER_SECONDS", 120.0)


@contextmanager
def fake_daemon(layout: Layout, *, ok: bool, message: str, **details: object) -> Iterator[list[tuple[str, str | None]]]:
    """Answers the first request; holds the lock, so that it counts as running."""
    heard: list[tuple[str, str | None]] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            for request in take_requests(layout.control):
                heard.append((request.action, request.job))
                answer(layout.control, request.id, ok, message, **details)
            time.sleep(0.02)

    thread = threading.Thread(target=serve)
    with daemon_lock(layout.lock):
        thread.start()
        try:
            yield heard
        finally:
            stop.set()
            thread.join()


def test_status_of_nothing(heygemd: Run, on: list[str]) -> None:
    done = heygemd("status", *on)
    assert done.returncode == 0
    assert "daemon not running" in done.stdout
    assert json.loads(heygemd("status", *on, "--json").stdout)["jobs"] == []


def test_status_puts_first_what_matters(layout: Layout) -> None:
    write_status(layout, "old", "done", updated="2026-01-01T00:00:00Z")
    write_status(layout, "new", "failed", updated="2026-01-02T00:00:00Z")
    write_status(layout, "second", "queued", position=2)
    write_status(layout, "first", "queued", position=1)
    write_status(layout, "now", "rendering", percent=40.0)
    (layout.status / "broken.json").write_text("{")
    (layout.status / "foreign.json").write_text("[1]")
    assert [view["job"] for view in all_views(layout)] == ["now", "first", "second", "new", "old"]


def test_status_on_a_terminal(heygemd: Run, on: list[str], layout: Layout) -> None:
    write_status(
        layout, "课程", "rendering", percent=41.7, eta_seconds=75, devices=["cuda:0"], reason="frames are made"
    )
    write_status(layout, "b\x1b[2J", "queued", position=1, reason="waits")
    layout.pause_file.touch()
    shown = heygemd("status", *on).stdout
    line = next(line for line in shown.splitlines() if line.startswith("课程"))
    for part in ("rendering", "42", "1 min 15 s", "cuda:0", "frames are made"):
        assert part in line
    assert "paused: a file PAUSE lies on the share" in shown
    assert "\x1b[2J" not in shown


def test_status_shows_the_newest_that_ended(heygemd: Run, on: list[str], layout: Layout) -> None:
    for number in range(20):
        write_status(layout, f"job{number:02d}", "done", updated=f"2026-01-{number + 1:02d}", where=f"outbox/{number}/")
    shown = heygemd("status", *on).stdout
    assert "job19" in shown
    assert "job00" not in shown
    assert "5 more that ended" in shown
    assert "job00" in heygemd("status", *on, "--all").stdout


def test_status_of_one(heygemd: Run, on: list[str], layout: Layout) -> None:
    view = write_status(layout, "a", "failed", reason="no face", error=BadInputError("no face").to_dict())
    assert json.loads(heygemd("status", "a", *on, "--json").stdout) == view
    shown = heygemd("status", "a", *on).stdout
    assert "no face" in shown
    assert "HG-1000" in shown
    wrong = heygemd("status", "b", *on)
    assert wrong.returncode == 2
    assert "there is no job b" in wrong.stderr


def test_requests_reach_the_daemon(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_daemon(layout, ok=True, message="a is queued again") as heard:
        queue.ask(layout, "retry", "id-a", as_json=False)
        assert heard == [("retry", "id-a")]
    assert capsys.readouterr().out.strip() == "a is queued again"


def test_a_refusal_is_the_error_that_the_daemon_names(layout: Layout) -> None:
    error = BadInputError("a is done already").to_dict()
    with fake_daemon(layout, ok=False, message="x", error=error), pytest.raises(BadInputError, match="done already"):
        queue.ask(layout, "retry", "id-a", as_json=False)
    with fake_daemon(layout, ok=False, message="no"), pytest.raises(UsageError, match="no"):
        queue.ask(layout, "retry", "id-a", as_json=False)


def test_asking_when_no_daemon_runs(heygemd: Run, on: list[str], layout: Layout) -> None:
    done = heygemd("pause", *on, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["pending"] is True
    (request,) = take_requests(layout.control)
    assert request.action == "pause", "it happens when the daemon starts"


def test_asking_where_none_ever_ran(heygemd: Run) -> None:
    done = heygemd("resume", "--root", "nowhere")
    assert done.returncode == 2
    assert "no daemon has run with this state folder yet" in done.stderr


def test_a_job_that_is_not_there(heygemd: Run, on: list[str], layout: Layout) -> None:
    write_status(layout, "lecture", "failed")
    done = heygemd("retry", "lectur", *on)
    assert done.returncode == 2
    assert "did you mean lecture?" in done.stderr
    assert take_requests(layout.control) == ()


def test_clean(heygemd: Run, on: list[str], layout: Layout) -> None:
    folder = layout.archive / "2020-01-01" / "old"
    folder.mkdir(parents=True)
    (folder / "v.mp4").write_bytes(b"x" * 1000)
    marker = {"job_id": "1", "job": "old", "kind": "archive", "files": ["v.mp4"], "made_seconds": 1.0}
    (folder / MARKER).write_text(json.dumps(marker))
    for path in (folder / "v.mp4", folder / MARKER, folder, folder.parent):
        os.utime(path, (1, 1))
    dry = json.loads(heygemd("clean", *on, "--dry-run", "--json").stdout)
    assert [(r["kind"], r["job"]) for r in dry["removals"]] == [("archive", "old")]
    assert folder.exists(), "a dry run removes nothing"
    shown = heygemd("clean", *on, "--dry-run").stdout
    assert "archive/2020-01-01/old" in shown
    done = heygemd("clean", *on)
    assert done.returncode == 0, done.stderr
    assert "1 folders" in done.stdout
    assert not folder.exists()


def test_watch_follows_until_it_is_interrupted(
    heygemd: Run, on: list[str], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_status(layout, "a", "queued", position=1)
    looks = 0

    def sleep(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        write_status(layout, "a", "rendering", percent=10.0 * looks)

    monkeypatch.setattr(queue.time, "sleep", sleep)
    done = heygemd("status", *on, "--watch")
    assert done.returncode == 0, "Ctrl-C is the way out"
    assert "rendering" in done.stdout
