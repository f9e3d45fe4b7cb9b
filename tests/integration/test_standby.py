"""Two real daemons with their own state folders on one share: one works, the other takes over, nothing comes twice."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon

pytestmark = pytest.mark.slow

TAKEOVER_SECONDS = "2"


class Sharing(Daemon):
    """One of several daemons on a share, with a state folder and a log of its own."""

    def __init__(self, root: Path, name: str, **settings: str) -> None:
        super().__init__(root, SERVICE__TAKEOVER_SECONDS=TAKEOVER_SECONDS, **settings)
        self.state = root.parent / f"state-{name}"
        self.log = root.parent / f"{name}.log"

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable, "-m", "heygemd.cli", "--root", str(self.root), "--state", str(self.state), *arguments,
        ]  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1.0, size=256)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Good morning Bob.")


def check_each_once(one: Sharing, two: Sharing, jobs: set[str]) -> None:
    """Every job is in the outbox and the archive once, whoever made it; nothing failed; each was claimed once."""
    assert {path.name for path in (one.root / "outbox").iterdir()} == jobs
    assert one.files("failed") == set()
    assert {path.rpartition("/")[2] for path in one.files("archive")} == {
        f"{job}{ending}" for job in jobs for ending in (".mp4", ".wav")
    }
    assert len(one.files("archive")) == 2 * len(jobs)
    claims = [e["heygemd.job.name"] for d in (one, two) for e in d.events("job.claimed")]
    assert sorted(claims) == sorted(jobs)
    for job in jobs:
        assert one.receipt(job)["state"] == "done"
    assert not list((one.root / ".heygemd-owner" / "jobs").iterdir())


def test_the_second_daemon_goes_on_when_the_first_is_killed_and_stands_by_when_it_is_back(
    tmp_path: Path, clip: Path, voice: Path
) -> None:
    root = tmp_path / "share"
    with Sharing(root, "one") as one, Sharing(root, "two") as two:
        one.start()
        one.wait(lambda: one.events("daemon.ready"))
        for event in one.events("worker.started"):  # what it is given is not done when its daemon is killed
            os.kill(event["heygemd.worker.pid"], signal.SIGSTOP)
        one.drop(clip, voice, "a", "b")
        one.wait(lambda: len(one.events("job.staged")) == 2, what="both jobs in work")
        # Only now: where the machine stands still for longer than the takeover takes, the first loses the share before.
        two.start()
        two.wait(lambda: two.events("daemon.standby"))
        ids = {e["heygemd.job.name"]: e["heygemd.job.id"] for e in one.events("job.claimed")}
        one.kill()
        two.wait(lambda: two.events("daemon.took_over"), what="the takeover")
        for job in ("a", "b"):
            two.wait_state(job, "done", "failed")
            assert two.receipt(job)["job_id"] == ids[job]
        one.start()  # its journal still holds what it was killed over
        one.wait(lambda: one.events("daemon.standby"), what="the first stands by")
        assert two.stop() == 0
        one.wait(lambda: one.events("daemon.took_over"), what="the way back")
        handed_over = {e["heygemd.job.name"] for e in one.events("job.handed_over")}
        one.wait(lambda: not list((root / ".heygemd-owner" / "jobs").iterdir()), what="the last claim released")
        assert one.stop() == 0
    assert handed_over and handed_over <= {"a", "b"}
    check_each_once(one, two, {"a", "b"})


@pytest.mark.skipif(
    os.environ.get("HEYGEMD_TEST_CLUSTER") != "1", reason="NOT RUN: needs HEYGEMD_TEST_CLUSTER=1 (twenty seconds)"
)
def test_an_owner_that_was_paused_wakes_and_does_nothing_any_more(tmp_path: Path, clip: Path, voice: Path) -> None:
    root = tmp_path / "share"
    with Sharing(root, "one") as one, Sharing(root, "two") as two:
        one.drop(clip, voice, "a", "b")
        one.start()
        one.wait(lambda: one.events("job.prepared"), what="a job in work")
        two.start()
        two.wait(lambda: two.events("daemon.standby"))
        assert one.process is not None
        os.kill(one.process.pid, signal.SIGSTOP)
        two.wait(lambda: two.events("daemon.took_over"), what="the takeover")
        os.kill(one.process.pid, signal.SIGCONT)  # its workers have gone on rendering meanwhile
        one.wait(lambda: one.events("daemon.gave_up"), what="it notices")
        one.wait(lambda: one.events("daemon.standby"))
        for job in ("a", "b"):
            two.wait_state(job, "done", "failed")
        two.wait(lambda: not list((root / ".heygemd-owner" / "jobs").iterdir()), what="the last claim released")
        assert one.stop() == 0 and two.stop() == 0
    check_each_once(one, two, {"a", "b"})


def test_a_daemon_that_was_not_told_of_the_others_refuses(tmp_path: Path) -> None:
    root = tmp_path / "share"
    with Sharing(root, "one") as one:
        one.start()
        one.wait(lambda: one.events("daemon.ready"))
        stranger = Sharing(root, "stranger")
        stranger.settings["SERVICE__TAKEOVER_SECONDS"] = "0"
        assert stranger.once() == 2
        assert "takeover_seconds" in stranger.log.read_text()
        assert one.stop() == 0
        assert stranger.once() == 0, "they have let go: now it is free"
