"""Disks that fill: the queue waits with a reason and goes on by itself; nothing fails, nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heygemd.cli.checks.share import check_share
from heygemd.config import load_settings
from tests import media
from tests.daemon import Daemon, once_at

MIB = 2**20


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """Mounting takes root and its capability, which containers often lack."""
    folder.mkdir()
    done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"NOT RUN: this cannot be mounted here (root, CAP_SYS_ADMIN, the kernel): {done.stderr}")
    yield
    for _ in range(1200):
        if subprocess.run(["umount", str(folder)], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{folder} cannot be unmounted: something of the daemon lives")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=6m", "heygemd-test"):
        yield tmp_path / "disk"


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
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    with mounted(disk, "-o", "loop", str(image)):
        btrfs("quota", "enable", str(disk))
        btrfs("subvolume", "create", str(disk / "limited"))
        yield Limited(disk / "limited")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=0.4, size=320)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Good morning.")


def fill(disk: Path, leave_bytes: int) -> Path:
    found = os.statvfs(disk)
    filler = disk / "filler"
    try:
        filler.write_bytes(b"\0" * max(0, found.f_bavail * found.f_frsize - leave_bytes))
    except OSError as error:
        assert error.errno == errno.ENOSPC  # somebody else writes there: it is full all the same
    return filler


def lossless(share: Path) -> None:
    """Segments of a size that a small disk notices."""
    (share / "inbox" / ".heygemd.toml").write_text('[options]\nquality = "lossless"\n')


NO_MINIMUM = {"LOG__LEVEL": "debug", "SERVICE__MIN_FREE_STATE_BYTES": "0", "SERVICE__MIN_FREE_SHARE_BYTES": "0"}


def still_at_first(tmp_path: Path) -> dict[str, str]:
    """A second of video is soon over: its worker waits at the first frame until the disk is as the test wants it."""
    return once_at(tmp_path, "render.frame=stop")


@pytest.mark.slow
def test_the_state_disk_fills_while_ffmpeg_writes(tmp_path: Path, small_disk: Path, clip: Path, voice: Path) -> None:
    with Daemon(tmp_path / "share", state=small_disk / "state", **NO_MINIMUM, **still_at_first(tmp_path)) as daemon:
        lossless(daemon.root)
        daemon.drop(clip, voice, "talk")
        daemon.start()
        worker = daemon.wait_still()
        filler = fill(small_disk, 8192)
        os.kill(worker, signal.SIGCONT)
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
    settings = NO_MINIMUM | still_at_first(tmp_path)
    with Daemon(small_disk / "share", state=tmp_path / "state", log=tmp_path / "log", **settings) as daemon:
        lossless(daemon.root)
        daemon.drop(clip, voice, "talk")
        daemon.start()
        worker = daemon.wait_still()
        filler = fill(small_disk, 8192)
        os.kill(worker, signal.SIGCONT)
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


def remount(disk: Path, how: str) -> None:
    for _ in range(2400):  # busy while a file is open for writing
        if subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"{disk} cannot be remounted")


@pytest.mark.slow
def test_a_share_that_becomes_read_only_pauses_the_queue_and_the_doctor_says_so(
    tmp_path: Path, small_disk: Path, clip: Path, voice: Path
) -> None:
    """As the kernel does it to a disk with errors."""
    share = small_disk / "share"
    with Daemon(share, state=tmp_path / "state", log=tmp_path / "log", SERVICE__MIN_FREE_SHARE_BYTES="0") as daemon:
        daemon.start()
        daemon.wait(lambda: daemon.events("daemon.ready"), what="the inbox")
        remount(small_disk, "ro")
        try:
            daemon.wait(
                lambda: any("mounted read-only" in event["message"] for event in daemon.events("queue.paused")),
                what="the reason",
            )
            findings = list(check_share(load_settings(None, {"root": share, "state": tmp_path / "state"})))
        finally:
            remount(small_disk, "rw")
        assert {f.message for f in findings if f.level == "fail"} >= {f"{share / 'inbox'} is mounted read-only"}
        daemon.drop(clip, voice, "talk")
        daemon.wait_state("talk", "done")
        assert daemon.stop() == 0
    assert not daemon.events("job.failed")


@pytest.mark.slow
@pytest.mark.parametrize("side", ["state", "share"])
def test_a_quota_pauses_the_queue_until_there_is_more(
    tmp_path: Path, limited: Limited, clip: Path, voice: Path, side: str
) -> None:
    """The disk has room and says so (`df`), and yet nothing more may be written."""
    share, state = tmp_path / "share", tmp_path / "state"
    share, state = (share, limited.folder / "state") if side == "state" else (limited.folder / "share", state)
    settings = NO_MINIMUM | still_at_first(tmp_path)
    with Daemon(share, state=state, log=tmp_path / "log", **settings) as daemon:
        lossless(daemon.root)
        daemon.drop(clip, voice, "talk")
        daemon.start()
        worker = daemon.wait_still()
        limited.limit(str(limited.used_bytes() + 200_000))
        os.kill(worker, signal.SIGCONT)
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
