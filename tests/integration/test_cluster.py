"""The real daemon with a Ray cluster of two nodes on this machine: nodes, workers, head and share come and go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import media
from tests.cluster import QUIET, Cluster, free_port, wait_for_nodes
from tests.daemon import Daemon

pytestmark = pytest.mark.slow
long = pytest.mark.skipif(
    os.environ.get("HEYGEMD_TEST_CLUSTER") != "1", reason="NOT RUN: needs HEYGEMD_TEST_CLUSTER=1 (two minutes more)"
)

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
    assert {str(event["event.reason"]) for event in daemon.events("node.ready")} == {"files travel over the share"}


@long
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
    assert {str(event["event.reason"]) for event in daemon.events("node.ready")} == {"files travel over Ray"}


@long
def test_the_autoscaler_is_told_what_waits_and_when_nothing_does(tmp_path: Path, cluster: Cluster) -> None:
    from ray._raylet import GcsClient

    asked = GcsClient(address=cluster.address)

    def bundles() -> list[dict[str, float]]:
        told = asked.internal_kv_get(b"autoscaler_resource_request", None)
        found: list[dict[str, float]] = json.loads(told or b"[]")
        return found

    executor = cluster.executor(tmp_path)
    try:
        wait_for_nodes(executor, 2)
        for waiting in ([{"cpu": 3 * 2**30, "cuda": 2**30}, {"cpu": 2**30}], []):
            executor.expect(waiting)
            wanted = [{"heygemd_cpu_mib": float(needs["cpu"] // 2**20)} for needs in waiting]
            until = time.monotonic() + 120
            while bundles() != wanted:
                assert time.monotonic() < until, bundles()
                assert executor.poll(0.1) == []
    finally:
        executor.close()


@long
def test_the_daemon_waits_for_a_cluster_and_outlives_its_head(
    tmp_path: Path, clip: Path, voice: Path, frames: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.util import get_node_ip_address

    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", QUIET["RAY_gcs_rpc_server_reconnect_timeout_s"])
    lone = Cluster(nodes=1, port=free_port())
    with on_ray(tmp_path, f"{get_node_ip_address()}:{lone.port}", RAY__SHARE="never") as daemon:
        drop(daemon, clip, voice, "job")
        daemon.start()
        daemon.wait(lambda: "cannot be reached" in str(daemon.status("job").get("reason")), what="a reason to wait")
        assert any("renders wait" in str(event["event.reason"]) for event in daemon.events("daemon.degraded"))
        with lone:
            daemon.wait(lambda: rendered(daemon), what="a segment")
            lone.stop()  # head and node, without a word
            daemon.wait(lambda: daemon.events("segment.failed"), what="the loss is noticed")
            assert daemon.process is not None and daemon.process.poll() is None
            lone.start()
            daemon.wait_state("job", "done", "failed")
            assert daemon.stop() == 0
    assert media.framemd5(result(daemon, "job")) == frames
    assert {event["error.code"] for event in daemon.events("segment.failed")} == {"HG-2007"}
    numbers = [event["heygemd.segment.number"] for event in rendered(daemon)]
    assert len(numbers) == len(set(numbers)), "each segment once"


@long
def test_this_machine_stands_in_for_a_cluster_that_is_away(
    tmp_path: Path, clip: Path, voice: Path, frames: list[str]
) -> None:
    daemon = on_ray(tmp_path, f"127.0.0.1:{free_port()}", RAY__WHEN_LOST="local")
    drop(daemon, clip, voice, "job")
    assert daemon.once() == 0, daemon.log.read_text()
    assert media.framemd5(result(daemon, "job")) == frames
    assert {event["heygemd.device"] for event in rendered(daemon)} == {"cpu"}
    assert any("rendering on this machine" in str(event["event.reason"]) for event in daemon.events("daemon.degraded"))
