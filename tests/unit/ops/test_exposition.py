"""What is counted, where it is shown, and that the table, the page and the samples say the same."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.errors import ConfigError, DiskFullError, OutOfMemoryError
from heygemd.core.settings import LogSettings, MetricsSettings
from heygemd.ops import logs
from heygemd.ops.events import EVENTS
from heygemd.ops.exposition import Figures, exposed
from heygemd.ops.logs import get_logger, log_event
from heygemd.ops.metrics import LABELS, METRICS, document, series_names
from tests.ports import free_port

REPO = Path(__file__).parents[3]
JOB = {"job": "a", "job_id": "1"}


def say(name: str, **fields: Any) -> None:
    log_event(get_logger(), name, **fields)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Errors only: what is counted must not depend on what is shown."""
    logs.configure(LogSettings(level="error"))
    yield
    logs.configure(LogSettings())


@pytest.fixture
def figures() -> Iterator[Figures]:
    found = Figures()
    with logs.told_to(found.hear):
        yield found


def test_a_job_from_claim_to_end(figures: Figures) -> None:
    say("job.staged", **JOB, num_bytes=5, duration_seconds=0.5)
    say("job.prepared", **JOB, frames=100, duration_seconds=3.0)
    say("segment.started", **JOB, segment=0, device="cpu", predicted_bytes=200)
    say(
        "segment.finished",
        **JOB,
        segment=0,
        device="cpu",
        frames=100,
        duration_seconds=4.0,
        predicted_bytes=200,
        measured_bytes=150,
        step_seconds={"decode": 1.0, "encode": 2.0},
    )
    say("job.assembled", **JOB, duration_seconds=0.25)
    say("job.published", **JOB, path="outbox/a/", duration_seconds=0.125)
    say("job.finished", **JOB, duration_seconds=8.0)
    values = figures.values()
    stages = ("staging", "preparing", "rendering", "finishing", "publishing")
    assert [values[f'heygemd_stage_duration_seconds_sum{{stage="{s}"}}'] for s in stages] == [0.5, 3, 4, 0.25, 0.125]
    assert [values[f'heygemd_stage_duration_seconds_count{{stage="{s}"}}'] for s in stages] == [1] * 5
    assert values['heygemd_jobs_ended_total{outcome="done"}'] == 1
    assert values["heygemd_job_duration_seconds_sum"] == 8
    assert values['heygemd_frames_total{device="cpu"}'] == 100
    assert values['heygemd_frames_per_second{device="cpu"}'] == 25
    assert values['heygemd_step_seconds_total{step="encode"}'] == 2
    assert values['heygemd_segment_predicted_bytes{device="cpu"}'] == 200
    assert values['heygemd_segment_measured_bytes{device="cpu"}'] == 150
    assert values["heygemd_segment_memory_ratio_sum"] == 0.75
    assert values['heygemd_segments_total{device="cpu",outcome="done"}'] == 1
    assert values['heygemd_events_total{action="segment.started",level="debug"}'] == 1, "counted, though not shown"


def test_what_goes_wrong(figures: Figures) -> None:
    full = OutOfMemoryError("no room on the card")
    say("segment.failed", **JOB, segment=0, device="cuda:0", error=full)
    say("segment.failed", **JOB, segment=0, device="cuda:0", error=full.to_dict())
    say("segment.failed", **JOB, segment=0, device="cuda:0", error=OSError("what"))
    say("segment.retried", **JOB, segment=0, device="cuda:0", reason="with half the batch", rung="smaller")
    say("job.failed", **JOB, error=full)
    say("job.cancelled", **JOB)
    say("worker.started", worker=1, device="cuda:0")
    say("worker.died", worker=1, device="cuda:0", reason="Segmentation fault | at 0x1234 in /srv/secret.mp4")
    say("worker.hung", worker=2, device="cuda:0", reason="hung")
    say("worker.ended", worker=3, device="cuda:0", reason="idle")
    values = figures.values()
    assert values['heygemd_out_of_memory_total{device="cuda:0"}'] == 2
    assert values['heygemd_segments_total{device="cuda:0",outcome="failed"}'] == 3
    assert values['heygemd_segment_retries_total{rung="smaller"}'] == 1
    assert values['heygemd_segment_retries_total{rung="split"}'] == 0, "there from the start: rate() needs the 0"
    assert values[f'heygemd_job_failures_total{{code="{OutOfMemoryError.code}"}}'] == 1
    assert values['heygemd_jobs_ended_total{outcome="cancelled"}'] == 1
    ends = {reason: values[f'heygemd_worker_ends_total{{device="cuda:0",reason="{reason}"}}'] for reason in ENDS}
    assert ends == {"died": 1, "hung": 1, "idle": 1}
    assert "secret" not in figures.text().decode(), "a label holds a text that somebody else wrote"


ENDS = ("died", "hung", "idle")


def test_every_event_can_be_heard(figures: Figures) -> None:
    """Whatever fields an event has: listening never makes logging fail."""
    samples: dict[str, Any] = {"error": DiskFullError("full"), "duration_seconds": 1.5, "step_seconds": {"decode": 1.0}}
    for event in EVENTS.values():
        least = {name: samples.get(name, 1) for name in event.needs}
        say(event.name, **least)
        say(event.name, **least | {name: samples.get(name, 1) for name in event.may})
    counted = sum(v for name, v in figures.values().items() if name.startswith("heygemd_events_total"))
    assert counted == 2 * len(EVENTS)


def test_jobs_and_files_make_no_series(figures: Figures) -> None:
    """A thousand jobs later there are as many series as after one."""
    say("job.finished", **JOB, duration_seconds=1.0)
    before = len(figures.values())
    for number in range(1000):
        job = {"job": f"job {number}", "job_id": str(number)}
        say("job.claimed", **job, path=f"{number}.mp4")
        say("job.finished", **job, duration_seconds=1.0, path=f"outbox/{number}")
    assert len(figures.values()) == before


def test_nothing_is_heard_after_leaving() -> None:
    found = Figures()
    with logs.told_to(found.hear):
        say("config.reloaded")
    say("config.reloaded")
    assert found.values()['heygemd_events_total{action="config.reloaded",level="info"}'] == 1


# ------------------------------------------------------------------------------------------------ port and file


def never(*arguments: object, **_fields: object) -> None:
    raise AssertionError(arguments)


def test_the_port_shows_them_and_is_free_afterwards() -> None:
    port = free_port()
    settings = MetricsSettings(port=port)
    for _again in range(2):
        with exposed(settings, never):
            say("config.reloaded")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain")
        assert 'heygemd_events_total{action="config.reloaded",level="info"} 1.0' in text
        assert "process_resident_memory_bytes" in text
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")


def test_only_this_machine_can_ask() -> None:
    port = free_port()
    with exposed(MetricsSettings(port=port), never):
        found = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True).stdout
    if not found:
        pytest.skip("ss is not here")
    assert f"127.0.0.1:{port}" in found
    assert "0.0.0.0:" not in found.split()[3]


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=f"port {port}: address already in use") as caught,
            exposed(MetricsSettings(port=port), never),
        ):
            raise AssertionError("it started")
    assert "metrics.port" in (caught.value.remedy or "")


def test_no_port_no_file_no_thread() -> None:
    before = set(threading.enumerate())
    with exposed(MetricsSettings(), never):
        assert set(threading.enumerate()) <= before


def test_a_file_for_node_exporter(tmp_path: Path) -> None:
    path = tmp_path / "heygemd.prom"
    umask = os.umask(0o077)
    try:
        with exposed(MetricsSettings(textfile=str(path), textfile_seconds=1), never):
            until = time.monotonic() + 120
            while not path.exists():
                assert time.monotonic() < until
                time.sleep(0.02)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "node_exporter is another user"
    assert "heygemd_build_info" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["heygemd.prom"], "a half-written file beside it"


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    told: list[tuple[object, dict[str, Any]]] = []
    done = threading.Event()

    def log(*arguments: object, **fields: Any) -> None:
        told.append((arguments[0], fields))
        done.set()

    missing = tmp_path / "nowhere" / "heygemd.prom"
    with exposed(MetricsSettings(textfile=str(missing), textfile_seconds=1), log):
        assert done.wait(120)
        time.sleep(1.5)  # the next try is over
    assert [name for name, _ in told] == ["metrics.failed"]
    assert str(missing) in str(told[0][1]["error"])


# ------------------------------------------------------------------------------------------------ in step


def test_the_page_has_the_table() -> None:
    page = (REPO / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert document() in page


def test_the_table_is_sound() -> None:
    for metric in METRICS.values():
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert set(metric.labels) <= set(LABELS), metric.name
        for action in re.findall(r"[a-z]+\.[a-z_]+", metric.source):
            assert action in EVENTS, f"{metric.name}: no event {action}"
    assert set(LABELS) == {label for metric in METRICS.values() for label in metric.labels}


def test_every_metric_of_the_table_is_shown_and_no_other() -> None:
    shown = set(re.findall(r"^# TYPE (heygemd_\w+) ", Figures().text().decode(), re.MULTILINE))
    assert shown == set(METRICS)
    assert "heygemd_stage_duration_seconds_bucket" in series_names()


@pytest.mark.skipif(shutil.which("promtool") is None and not os.environ.get("CI"), reason="NOT RUN: no promtool here")
def test_promtool_finds_no_fault(figures: Figures) -> None:
    figures.add_device("cpu")
    test_a_job_from_claim_to_end(figures)
    done = subprocess.run(["promtool", "check", "metrics"], input=figures.text(), capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
