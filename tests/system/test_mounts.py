"""A share that fails, goes away, comes back or has another clock: degraded, nothing deleted, no exit."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heygemd.spool.layout import Layout
from heygemd.spool.status import prune_status
from tests import media
from tests.daemon import Daemon
from tests.system.fuse import Mount


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    if shutil.which("fusermount3") is None and not os.environ.get("CI"):
        pytest.skip("fusermount3 is not installed (apt install fuse3)")
    if platform.machine() != "x86_64" or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("no /dev/fuse here, or another machine than x86-64")
    made = Mount(tmp_path / "backing", tmp_path / "share", tmp_path / "fault")
    if not made.mount():
        made.unmount()
        pytest.skip("FUSE cannot mount here")
    yield made
    made.unmount()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    return (
        media.moving_portrait(folder / "clip.mp4", seconds=0.3, size=96),
        media.speech(folder / "voice.wav", "Bob."),
    )


def drop(folder: Path, files: tuple[Path, Path], name: str) -> None:
    shutil.copy(files[0], folder / f"{name}.mp4")
    shutil.copy(files[1], folder / f"{name}.wav")


def count(daemon: Daemon, event: str) -> int:
    return len(daemon.events(event))


def outage(daemon: Daemon, begin: Callable[[], object], end: Callable[[], object], what: str) -> None:
    """From one end to the other: it says so once, and lives."""
    before = count(daemon, "daemon.degraded"), count(daemon, "daemon.recovered")
    begin()
    daemon.wait(lambda: count(daemon, "daemon.degraded") > before[0], what=f"degraded by {what}")
    time.sleep(1.2)
    assert daemon.process is not None and daemon.process.poll() is None
    end()
    daemon.wait(lambda: count(daemon, "daemon.recovered") > before[1], what=f"recovered from {what}")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_kind_of_outage(tmp_path: Path, mount: Mount, files: tuple[Path, Path]) -> None:
    share, fault = mount.mountpoint, mount.fault
    with Daemon(share, state=tmp_path / "state", log=tmp_path / "log") as daemon:
        daemon.start()
        daemon.wait(lambda: daemon.events("daemon.ready"), what="the daemon")
        assert daemon.events("watch.started")[0]["event.reason"] == "polling", "FUSE promises no events"
        drop(share / "inbox", files, "first")
        daemon.wait_state("first", "done")

        for code in ("EIO", "ESTALE"):
            outage(daemon, lambda code=code: fault.write_text(code), lambda: fault.write_text(""), code)
        (mount.backing / "inbox/kept.mp4").write_bytes(files[0].read_bytes())

        def away() -> None:
            mount.unmount()
            assert not os.path.ismount(share)

        def back() -> None:
            assert not list(share.iterdir()), "nothing was made below the bare mount point"
            assert mount.mount()

        outage(daemon, away, back, "an unmount")
        outage(daemon, mount.crash, lambda: (mount.unmount(), mount.mount()), "a dead server")
        assert (share / "inbox/kept.mp4").exists(), "nothing was taken for deleted"
        assert (share / "outbox/first/first.json").exists()

        for seconds in (86400, -86400 * 365):  # the server's clock is a day ahead, a year behind
            fault.write_text(f"skew {seconds}")
            drop(share / "inbox", files, f"skew{abs(seconds)}")
            daemon.wait_state(f"skew{abs(seconds)}", "done", "failed")
            assert daemon.status(f"skew{abs(seconds)}")["state"] == "done", daemon.error(f"skew{abs(seconds)}")
        fault.write_text("")

        # in the middle of a job: it waits and ends whole
        drop(share / "inbox", files, "last")
        daemon.wait(lambda: any(e["heygemd.job.name"] == "last" for e in daemon.events("job.claimed")), what="a claim")
        fault.write_text("EIO")
        time.sleep(2.0)
        fault.write_text("")
        daemon.wait_state("last", "done", "failed")
        assert daemon.status("last")["state"] == "done", daemon.error("last")
        assert not daemon.events("job.failed")
        assert daemon.stop() == 0
    results = {path.name for path in (mount.backing / "outbox").iterdir()}
    assert results == {"first", "skew86400", "skew31536000", "last"}
    left = list(mount.backing.rglob("*.part"))
    assert {path.parent.name for path in left} <= {"status"}, "a share that fails in a write lets nothing be removed"
    for path in left:
        os.utime(path, (0, 0))
    prune_status(Layout(mount.backing, tmp_path / "state"), results)
    assert not list(mount.backing.rglob("*.part")), "the hourly clean-up takes it"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_share_that_does_not_answer_is_told_and_holds_no_stop_up(tmp_path: Path, mount: Mount) -> None:
    with Daemon(mount.mountpoint, state=tmp_path / "state", log=tmp_path / "log") as daemon:
        daemon.start()
        daemon.wait(lambda: daemon.events("daemon.ready"), what="the daemon")
        outage(daemon, mount.freeze, mount.thaw, "a silent server")
        assert "does not answer" in daemon.events("daemon.degraded")[0]["message"]
        mount.freeze()
        time.sleep(2.0)  # threads of the daemon hang in the kernel now
        try:
            assert daemon.stop() == 0
        finally:
            mount.thaw()
    assert daemon.events("daemon.stopped")
