"""What systemd and Prometheus see of a real daemon while one of its workers stands still."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon, once_at
from tests.ports import free_port


class Manager:
    """Listens where systemd would; `heard`: (seconds, datagram)."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.2)
        self.heard: list[tuple[float, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                self.heard.append((time.monotonic(), self.socket.recv(65536).decode()))
            except TimeoutError:
                continue

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.socket.close()

    def when(self, word: str) -> list[float]:
        return [at for at, text in self.heard if word in text.split("\n")]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    listener = Manager(tmp_path / "notify")
    yield listener
    listener.close()


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def ended(daemon: Daemon, how: str) -> list[int]:
    """Pids of workers that hung or died."""
    return [event["heygemd.worker.pid"] for event in daemon.events(f"worker.{how}")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wedged_worker_costs_neither_the_job_nor_the_watchdog(tmp_path: Path, manager: Manager) -> None:
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=1.0, size=256)
    voice = media.speech(tmp_path / "voice.wav", "One two three four five. " * 5)
    port = free_port()
    settings = {
        "SCHEDULER__SEGMENT_SECONDS": "1",
        "SCHEDULER__HEARTBEAT_TIMEOUT_SECONDS": "15",
        "METRICS__PORT": str(port),
        **once_at(tmp_path, "render.frame=stop@30"),  # in the second segment
    }
    with Daemon(tmp_path / "share", **settings) as daemon:
        daemon.start()
        daemon.wait(lambda: manager.when("READY=1"), what="READY")
        first = daemon.events("worker.started")
        assert first, "READY without a worker that answered"
        assert len(manager.when("READY=1")) == 1
        shutil.copy(clip, daemon.inbox / "talk.mp4")
        shutil.copy(voice, daemon.inbox / "talk.wav")
        wedged = daemon.wait_still()
        since = time.monotonic()
        daemon.wait(lambda: wedged in ended(daemon, "hung"), what="its end")
        meanwhile = [at for at in manager.when("WATCHDOG=1") if at > since]
        assert len(meanwhile) >= 5, "systemd would have lost patience"
        daemon.wait_state("talk", "done")
        assert not daemon.events("watchdog.starved")

        values = scrape(port)
        frames = sum(line["heygemd.frames"] for line in daemon.events("segment.finished"))
        assert values['heygemd_frames_total{device="cpu"}'] == frames > 0
        assert values['heygemd_jobs_ended_total{outcome="done"}'] == 1
        # Others may have stood still as well, where the machine did.
        assert values['heygemd_worker_ends_total{device="cpu",reason="hung"}'] == len(ended(daemon, "hung"))
        assert values["heygemd_ready"] == 1
        assert values["heygemd_degraded"] == 0
        assert values['heygemd_device_up{device="cpu"}'] == 1
        assert (
            0
            < values['heygemd_device_budget_bytes{device="cpu"}']
            <= values['heygemd_device_memory_bytes{device="cpu"}']
        )
        for stage in ("staging", "preparing", "rendering", "finishing", "publishing"):
            assert values[f'heygemd_stage_duration_seconds_count{{stage="{stage}"}}'] >= 1, stage
        assert values['heygemd_disk_free_bytes{disk="share"}'] > 0
        now = time.time()
        assert now - 60 < values["heygemd_scan_timestamp_seconds"] <= now
        assert now - 60 < values["heygemd_watchdog_ping_timestamp_seconds"] <= now

        def same() -> bool:
            told = json.loads((daemon.root / "status" / ".figures.json").read_text())["metrics"]
            return bool(told['heygemd_frames_total{device="cpu"}'] == frames)

        daemon.wait(same, what="the figures on the share")
        assert daemon.cli("pause").returncode == 0
        daemon.wait(lambda: scrape(port)['heygemd_queue_paused{cause="operator"}'] == 1, what="the pause")
        assert daemon.cli("resume").returncode == 0
        daemon.wait(lambda: scrape(port)['heygemd_queue_paused{cause="operator"}'] == 0, what="its end")
        assert daemon.stop() == 0
    assert manager.when("STOPPING=1")


def test_a_port_that_is_taken_is_one_error_and_exit_code_2(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with Daemon(tmp_path / "share", METRICS__PORT=port) as daemon:
            assert daemon.once() == 2, "2: trying again changes nothing, says the unit"
            lines = daemon.events()
    assert [line["event.action"] for line in lines] == ["daemon.failed"]
    assert lines[0]["error.code"] == "HG-1010"
    assert port in lines[0]["error.message"]
