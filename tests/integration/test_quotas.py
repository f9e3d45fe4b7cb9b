"""Quotas: the disk has room and says so (`df`), and yet nothing more may be written. Real ones, of btrfs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon

NO_MINIMUM = {"LOG__LEVEL": "debug", "SERVICE__MIN_FREE_STATE_BYTES": "0", "SERVICE__MIN_FREE_SHARE_BYTES": "0"}


@dataclass(frozen=True)
class Limited:
    """A folder with a quota of its own on a disk that is nearly empty."""

    folder: Path

    def limit(self, most: str) -> None:
        btrfs("qgroup", "limit", most, str(self.folder))

    def used_bytes(self) -> int:
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if path.is_file())


def btrfs(*arguments: str) -> None:
    subprocess.run(["btrfs", *arguments], check=True, capture_output=True)


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Limited]:
    for tool in ("btrfs", "mkfs.btrfs"):
        if shutil.which(tool) is None:
            assert not os.environ.get("CI"), "btrfs-progs is not installed"
            pytest.skip("NOT RUN: btrfs-progs is not installed")
    disk, image = tmp_path / "disk", tmp_path / "image"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    mounting = subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True, text=True)
    if mounting.returncode != 0:
        pytest.skip(f"NOT RUN: btrfs cannot be mounted here (root, a loop device, the kernel): {mounting.stderr}")
    btrfs("quota", "enable", str(disk))
    btrfs("subvolume", "create", str(disk / "limited"))
    yield Limited(disk / "limited")
    for _ in range(50):
        if subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{disk} cannot be unmounted: something of the daemon lives")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    clip = media.moving_portrait(folder / "clip.mp4", seconds=0.4, size=320)
    return clip, media.speech(folder / "voice.wav", "Good morning.")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["state", "share"])
def test_a_quota_pauses_the_queue_until_there_is_more(
    tmp_path: Path, limited: Limited, pair: tuple[Path, Path], side: str
) -> None:
    share, state = tmp_path / "share", tmp_path / "state"
    share, state = (share, limited.folder / "state") if side == "state" else (limited.folder / "share", state)
    with Daemon(share, state=state, log=tmp_path / "log", **NO_MINIMUM) as daemon:
        (daemon.root / "inbox" / ".heygemd.toml").write_text('[options]\nquality = "lossless"\n')
        daemon.drop(*pair, "talk")
        daemon.start()
        daemon.wait(lambda: daemon.events("segment.started"), what="a segment")
        limited.limit(str(limited.used_bytes() + 200_000))
        daemon.wait(lambda: daemon.events("queue.paused"), what="the pause")
        assert "paused:" in (shown := daemon.cli("status").stdout), shown
        assert not daemon.events("job.failed")
        limited.limit("none")
        assert daemon.wait_state("talk", "done", "failed")["state"] == "done", daemon.error("talk")
        assert daemon.events("queue.resumed")
        assert daemon.stop() == 0
    reason = daemon.events("queue.paused")[0]["event.reason"]
    assert "quota exceeded" in reason, reason
    assert ("talk" if side == "share" else str(state)) in reason, reason  # of its result, or of all its results
