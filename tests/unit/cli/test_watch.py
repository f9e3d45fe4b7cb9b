"""`status --watch` and `status --check`: the daemon's figures, live, on a terminal, in a pipe and as JSON lines."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from heygemd.cli import queue
from heygemd.files import write_json
from heygemd.ops.exposition import Figures
from heygemd.ops.metrics import METRICS
from heygemd.spool.layout import Layout
from heygemd.spool.lock import daemon_lock
from tests.unit.cli.conftest import Run, write_status


def tell(layout: Layout, *, age_seconds: float = 0.0, **gauges: float) -> Figures:
    """Figures on the share, as the daemon writes them."""
    figures = Figures()
    figures.add_device("cuda:0")
    figures.set("heygemd_ready", gauges.get("ready", 1))
    figures.set("heygemd_watchdog_ping_timestamp_seconds", time.time() - gauges.get("silent", 0))
    figures.set("heygemd_scan_timestamp_seconds", time.time() - 3)
    figures.set("heygemd_inbox_files", 7)
    figures.set("heygemd_disk_free_bytes", 80 * 2**30, disk="share")
    for name, value in {
        "up": 1,
        "slots": 2,
        "slots_used": 1,
        "reserved_bytes": 3 * 2**30,
        "budget_bytes": 20 * 2**30,
        "used_bytes": 4 * 2**30,
        "memory_bytes": 24 * 2**30,
    }.items():
        figures.set(f"heygemd_device_{name}", value, device="cuda:0")
    job = {"job": "a", "job_id": "1", "segment": 0, "device": "cuda:0"}
    done = {"frames": 750, "duration_seconds": 10.0, "predicted_bytes": 2**30, "measured_bytes": 900 * 2**20}
    figures.hear("segment.finished", job | done)
    figures.hear("segment.retried", job | {"rung": "split"})
    figures.hear("worker.died", {"device": "cuda:0", "reason": "killed"})
    figures.hear("job.finished", {"duration_seconds": 20.0})
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age_seconds))
    write_json(layout.figures, {"version": 1, "updated": at, "metrics": figures.values()}, durable=False)
    return figures


def test_the_figures_are_shown(heygemd: Run, on: list[str], layout: Layout) -> None:
    tell(layout)
    write_status(layout, "lecture", "rendering", percent=40.0)
    with daemon_lock(layout.lock):
        shown = heygemd("status", *on).stdout
    for part in (
        "7 files in the inbox",
        "share 80.0 GiB",
        "1 done · 0 failed",
        "750 frames",
        "1 segments tried again (1 for memory)",
        "workers died 1, hung 0",
    ):
        assert part in shown
    row = next(line for line in shown.splitlines() if line.startswith("cuda:0")).split("  ")
    assert [cell.strip() for cell in row if cell.strip()] == [
"cuda:0", "1/2", "3.0 of 20.0 GiB", "4.0 of 24.0 GiB", "75.0", "0.9 of 1.0 GiB predicted",
    ]  # fmt: skip
    assert "lecture" in shown


def test_old_figures_are_not_shown(heygemd: Run, on: list[str], layout: Layout) -> None:
    tell(layout, age_seconds=3600)
    assert "cuda:0" not in heygemd("status", *on).stdout
    with daemon_lock(layout.lock):
        assert "no figures for a minute" in heygemd("status", *on).stdout


@pytest.mark.parametrize("text", ["{", "[]", '{"updated": 5, "metrics": {}}', '{"updated": "x", "metrics": {"a": []}}'])
def test_a_damaged_file_does_no_harm(heygemd: Run, on: list[str], layout: Layout, text: str) -> None:
    layout.figures.write_text(text)
    assert heygemd("status", *on).returncode == 0
    assert json.loads(heygemd("status", *on, "--json").stdout)["figures"] is None


def test_json_has_every_figure(heygemd: Run, on: list[str], layout: Layout) -> None:
    figures = tell(layout)
    told = json.loads(heygemd("status", *on, "--json").stdout)["figures"]
    assert told["metrics"] == pytest.approx(figures.values())
    assert {series.partition("{")[0] for series in told["metrics"]} & set(METRICS)


@pytest.mark.parametrize(
    ("running", "given", "problem"),
    [
        (True, {}, None),
        (False, {}, "no daemon runs"),
        (True, None, "no figures yet"),
        (True, {"age_seconds": 300.0}, "told its figures 5 min"),
        (True, {"ready": 0}, "not ready"),
        (True, {"silent": 120.0}, "no worker answers"),
    ],
)
def test_check(
    heygemd: Run, on: list[str], layout: Layout, running: bool, given: dict[str, Any] | None, problem: str | None
) -> None:
    if given is not None:
        tell(layout, **given)
    if running:
        with daemon_lock(layout.lock):
            done = heygemd("status", *on, "--check")
            told = json.loads(heygemd("status", *on, "--check", "--json").stdout)
    else:
        done = heygemd("status", *on, "--check")
        told = json.loads(heygemd("status", *on, "--check", "--json").stdout)
    assert done.returncode == (0 if problem is None else 1)
    assert (problem or "well") in done.stdout
    assert told["ok"] == (problem is None)


def test_json_lines(heygemd: Run, on: list[str], layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def sleep(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        write_status(layout, "a\nb", "rendering", percent=10.0 * looks)

    monkeypatch.setattr(queue.time, "sleep", sleep)
    done = heygemd("status", *on, "--watch", "--json")
    assert done.returncode == 0
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(document["jobs"]) for document in documents] == [0, 1, 1]
    assert documents[2]["jobs"][0]["percent"] == 20


def test_in_a_pipe_only_what_is_new_is_written(
    heygemd: Run, on: list[str], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def sleep(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 5:
            raise KeyboardInterrupt
        if looks == 3:
            write_status(layout, "a", "queued", position=1)

    monkeypatch.setattr(queue.time, "sleep", sleep)
    done = heygemd("status", *on, "--watch")
    assert done.stdout.count("daemon not running") == 2
    assert "\x1b" not in done.stdout, "a pipe wants no colours and no cursor movements"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_left_clean(on: list[str], layout: Layout, tmp_path: Path, number: signal.Signals) -> None:
    tell(layout)
    write_status(layout, "lecture", "rendering", percent=40.0)
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-m", "heygemd.cli", *on, "status", "--watch"],
        stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=tmp_path, close_fds=True,
        # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(slave)
    seen = b""

    def read_until(word: bytes | None) -> None:
        nonlocal seen
        until = time.monotonic() + 120
        while word is None or word not in seen:
            assert time.monotonic() < until, seen
            if not select.select([master], [], [], 0.5)[0]:
                continue
            try:
                seen += os.read(master, 65536)
            except OSError:  # the other side has closed
                return

    try:
        read_until(b"\x1b[?25l")
        read_until(b"lecture")
        write_status(layout, "lecture", "rendering", percent=87.0)
        read_until(b"87")
        process.send_signal(number)
        read_until(None)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l"), "the cursor stays hidden"
    assert b"\x1b[?1049h" not in seen, "the last picture stays on the screen"
    assert b"Traceback" not in seen
