"""Disks that fill: the queue waits with a reason and goes on by itself; nothing fails, nothing is lost."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon

MIB = 2**20


def mounted(folder: Path, options: str) -> bool:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "heygemd-test", str(folder)], capture_output=True)
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB. Mounting takes root and its capability, which containers often lack."""
    folder = tmp_path / "disk"
    if os.geteuid() != 0 or not mounted(folder, "size=6m"):
        pytest.skip("a tmpfs cannot be mounted here (needs root and CAP_SYS_ADMIN)")
    yield folder
    for _ in range(50):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} cannot be unmounted: something of the daemon lives")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=0.4, size=320)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Good morning.")


def fill(disk: Path, leave_bytes: int) -> Path:
    found = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(b"\0" * max(0, found.f_bavail * found.f_frsize - leave_bytes))
    return filler


def lossless(share: Path) -> None:
    """Segments of a size that a small disk notices."""
    (share / "inbox" / ".heygemd.toml").write_text('[options]\nquality = "lossless"\n')


NO_MINIMUM = {"LOG__LEVEL": "debug", "SERVICE__MIN_FREE_STATE_BYTES": "0", "SERVICE__MIN_FREE_SHARE_BYTES": "0"}


@pytest.mark.slow
def test_the_state_disk_fills_while_ffmpeg_writes(tmp_path: Path, small_disk: Path, clip: Path, voice: Path) -> None:
    with Daemon(tmp_path / "share", state=small_disk / "state", **NO_MINIMUM) as daemon:
        lossless(daemon.root)
        daemon.drop(clip, voice, "talk")
        daemon.start()
        daemon.wait(lambda: daemon.events("segment.started"), what="a segment")
        filler = fill(small_disk, 8192)
        daemon.wait(lambda: daemon.events("queue.paused"), what="the pause")
        shown = daemon.cli("status")
        assert "paused:" in shown.stdout, shown.stdout
        assert not daemon.events("job.failed")
        filler.unlink()
        assert daemon.wait_state("talk", "done", "failed")["state"] == "done", daemon.error("talk")
        assert daemon.events("queue.resumed")
        assert daemon.stop() == 0
    paused = daemon.events("queue.paused")[0]["event.reason"]
    assert "space" in paused.lower() or "full" in paused.lower(), paused


@pytest.mark.slow
def test_the_share_has_no_room_for_the_result(tmp_path: Path, small_disk: Path, clip: Path, voice: Path) -> None:
    with Daemon(small_disk / "share", state=tmp_path / "state", log=tmp_path / "log", **NO_MINIMUM) as daemon:
        lossless(daemon.root)
        daemon.drop(clip, voice, "talk")
        daemon.start()
        daemon.wait(lambda: daemon.events("segment.started"), what="a segment")
        filler = fill(small_disk, 8192)
        daemon.wait(lambda: daemon.events("queue.paused"), what="the pause")
        assert "results of talk" in daemon.events("queue.paused")[0]["event.reason"]
        assert not (daemon.root / "outbox/talk/talk.json").exists(), "no result before it is whole"
        filler.unlink()
        daemon.wait_state("talk", "done")
        assert daemon.stop() == 0


@pytest.mark.slow
def test_little_room_pauses_before_anything_is_written(
    tmp_path: Path, small_disk: Path, clip: Path, voice: Path
) -> None:
    with Daemon(
        tmp_path / "share", state=small_disk / "state",
        SERVICE__MIN_FREE_STATE_BYTES=str(5 * MIB), SERVICE__MIN_FREE_SHARE_BYTES="0",
    ) as daemon:  # fmt: skip
        filler = fill(small_disk, 4 * MIB)
        daemon.start()
        daemon.wait(lambda: daemon.events("disk.low"), what="the warning")
        daemon.drop(clip, voice, "talk")
        daemon.wait_state("talk", "queued", "staging")
        filler.unlink()
        daemon.wait_state("talk", "done")
        assert daemon.stop() == 0
    assert not daemon.events("job.failed")
