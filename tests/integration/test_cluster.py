"""The real daemon with a Ray cluster of two nodes on this machine: nodes, workers, head and share come and go."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import media
from tests.cluster import Cluster
from tests.daemon import Daemon

pytestmark = pytest.mark.slow

JOB = {"version": 1, "video": "clip.mp4", "audio": "voice.wav", "options": {"quality": "lossless"}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2) as started:
        yield started


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=2.0, size=256)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "One two three four five six seven eight nine.")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory, clip: Path, voice: Path) -> list[str]:
    """MD5 of every frame as this machine alone renders them, without a cut."""
    daemon = Daemon(tmp_path_factory.mktemp("local") / "share")
    drop(daemon, clip, voice, "job")
    assert daemon.once() == 0, daemon.log.read_text()
    return media.framemd5(result(daemon, "job"))


def drop(daemon: Daemon, clip: Path, voice: Path, name: str) -> None:
    folder = daemon.inbox / name
    folder.mkdir()
    shutil.copy(clip, folder / "clip.mp4")
    shutil.copy(voice, folder / "voice.wav")
    (folder / f"{name}.job.json").write_text(json.dumps(JOB))


def result(daemon: Daemon, job: str) -> Path:
    return daemon.root / "outbox" / job / f"{job}.mp4"


def on_ray(tmp_path: Path, address: str, **settings: str) -> Daemon:
    defaults = {
        "SCHEDULER__EXECUTOR": "ray",
        "SCHEDULER__SEGMENT_SECONDS": "0.5",
        "SCHEDULER__CPU_SLOTS": "1",
        "RAY__ADDRESS": address,
        "RAY__NODE_FOLDER": str(tmp_path / "nodes"),
    }
    return Daemon(tmp_path / "share", **{**defaults, **settings})


def rendered(daemon: Daemon) -> list[dict[str, Any]]:
    return daemon.events("segment.finished")


def node_of(event: dict[str, Any]) -> str:
    return str(event["heygemd.device"]).partition("/")[0]


def workers_of_nodes() -> list[int]:
    """Pids of Ray's processes that hold our workers, on this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "cmdline").read_bytes().startswith(b"ray::SegmentWorker"):
                    found.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def test_a_node_removed_in_mid_render_changes_nothing_of_the_result(
    tmp_path: Path, cluster: Cluster, clip: Path, voice: Path, frames: list[str]
) -> None:
    with on_ray(tmp_path, cluster.address) as daemon:
        drop(daemon, clip, voice, "job")
        daemon.start()
        daemon.wait(lambda: len({node_of(e) for e in rendered(daemon)}) == 2, what="a segment from each node")
        lost = node_of(rendered(daemon)[0])
        cluster.remove(lost)
        daemon.wait_state("job", "done", "failed")
        daemon.stop()
    cluster.add()
    assert media.framemd5(result(daemon, "job")) == frames
    events = rendered(daemon)
    numbers = [event["heygemd.segment.number"] for event in events]
    assert sorted(numbers) == list(range(daemon.receipt("job")["items"][0]["segments"])), "each segment once"
    assert not [p for p in (tmp_path / "share" / ".heygemd-exchange").iterdir() if p.name.startswith("segment-")]


def test_without_the_share_files_travel_over_ray_and_a_killed_worker_is_replaced(
    tmp_path: Path, cluster: Cluster, clip: Path, voice: Path, frames: list[str]
) -> None:
    with on_ray(tmp_path, cluster.address, RAY__SHARE="never", RAY__CHUNK_MIB="1") as daemon:
        drop(daemon, clip, voice, "job")
        daemon.start()
        daemon.wait(lambda: rendered(daemon), what="a segment")
        for pid in workers_of_nodes():
            os.kill(pid, signal.SIGKILL)
        daemon.wait_state("job", "done", "failed")
        daemon.stop()
    assert media.framemd5(result(daemon, "job")) == frames
    assert not (tmp_path / "share" / ".heygemd-exchange").exists()
    assert any("HG-2007" in str(event.get("error.code")) for event in daemon.events("segment.failed"))
