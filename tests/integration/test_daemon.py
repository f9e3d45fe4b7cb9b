"""The real daemon on a real folder: what a user of the share sees."""

from __future__ import annotations

import json
import shutil
import time
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import media
from tests.daemon import Daemon, once_at


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1.0, size=256)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Good morning Bob.")


def check_receipt(daemon: Daemon, job: str) -> dict[str, Any]:
    """The receipt tells the truth about the files beside it."""
    import hashlib

    receipt = daemon.receipt(job)
    for entry in receipt["files"]:
        data = (daemon.root / "outbox" / job / entry["name"]).read_bytes()
        assert len(data) == entry["size_bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    return receipt


def test_pairs_text_manifests_and_batches_in_one_inbox(tmp_path: Path, clip: Path, voice: Path) -> None:
    daemon = Daemon(tmp_path / "share")
    inbox = daemon.inbox
    name = unicodedata.normalize("NFD", "课程 é 1")  # as macOS would write it
    shutil.copy(clip, inbox / f"{name}.mp4")
    shutil.copy(voice, inbox / f"{unicodedata.normalize('NFC', name)}.wav")
    (inbox / "texts").mkdir()
    shutil.copy(clip, inbox / "texts" / "-hello 'quoted' 😀.mp4")
    (inbox / "texts" / "-hello 'quoted' 😀.txt").write_text("Hello Bob.")
    (inbox / "texts" / ".heygemd.toml").write_text('[options]\nquality = "draft"\n')
    (inbox / "batch").mkdir()
    shutil.copy(clip, inbox / "batch" / "a.mp4")
    media.portrait(inbox / "batch" / "b.png", 256)
    shutil.copy(voice, inbox / "batch" / "both.wav")
    (inbox / "batch" / "two.job.yaml").write_text("version: 1\nvideos: [a.mp4, b.png]\naudio: both.wav\npriority: 5\n")
    (inbox / "notes.docx").write_text("not media")
    assert daemon.once() == 0, daemon.log.read_text()

    plain = unicodedata.normalize("NFC", name)
    receipt = check_receipt(daemon, plain)
    assert receipt["state"] == "done"
    item = receipt["items"][0]
    assert item["engine"] == "rewrite"
    video = daemon.root / "outbox" / plain / f"{plain}.mp4"
    facts = media.probe(video)
    assert abs(int(facts["nb_read_frames"]) / 25 - media.sound_seconds(voice)) <= 0.04

    spoken = "-hello 'quoted' 😀".removeprefix("-").strip()
    found = [p.name for p in (daemon.root / "outbox").iterdir() if "quoted" in p.name]
    assert len(found) == 1 and spoken in found[0]
    assert check_receipt(daemon, found[0])["options"] == {"quality": "draft"}

    batch = check_receipt(daemon, "two")
    assert [i["name"] for i in batch["items"]] == ["a", "b"]  # type: ignore[index, attr-defined]
    with zipfile.ZipFile(daemon.root / "outbox/two/two.zip") as archive:
        assert sorted(archive.namelist()) == ["a.mp4", "b.mp4"]
        assert archive.testzip() is None

    assert daemon.files("inbox") == {"notes.docx", "texts/.heygemd.toml"}
    assert daemon.files("failed") == set()
    assert len(daemon.files("archive")) == 8
    assert not any((daemon.root / ".state/work").iterdir())
    assert {e["event.action"] for e in daemon.events()} >= {
        "job.claimed",
        "job.planned",
        "segment.finished",
        "job.finished",
    }


def test_bad_input_fails_alone_with_one_clear_error(tmp_path: Path, clip: Path, voice: Path) -> None:
    daemon = Daemon(tmp_path / "share", INBOX__PARTNER_TIMEOUT_SECONDS="1")
    inbox = daemon.inbox
    (inbox / "text.mp4").write_text("#EXTM3U\nfile:///etc/passwd\n")
    shutil.copy(voice, inbox / "text.wav")
    shutil.copy(clip, inbox / "good.mp4")
    shutil.copy(voice, inbox / "good.wav")
    shutil.copy(clip, inbox / "lonely.mp4")
    (inbox / "typo.job.json").write_text(json.dumps({"version": 1, "video": "good.mp4", "adio": "x.wav"}))
    (inbox / "missing.job.json").write_text(json.dumps({"version": 1, "video": "nowhere.mp4", "text": "hi"}))
    (inbox / "climb.job.json").write_text(json.dumps({"version": 1, "video": "../../../etc/passwd", "text": "hi"}))
    (inbox / "link.mp4").symlink_to(clip)
    (inbox / "link.job.json").write_text(json.dumps({"version": 1, "video": "link.mp4", "text": "hi"}))
    assert daemon.once() == 1
    codes = {
        p.parent.name: json.loads(p.read_text())["error"]["type"] for p in (daemon.root / "failed").glob("*/error.json")
    }
    assert codes["text"] == "UnreadableMediaError"
    assert codes["typo"] == "ManifestError"
    assert codes["climb"] in ("ManifestError", "UnsafePathError")
    assert codes["link"] == "UnsafePathError"
    assert "adio" in daemon.error("typo")["error"]["message"]
    assert (daemon.root / "failed/text/text.mp4").exists()
    for path in daemon.root.rglob("*.json"):
        assert "root:x:0" not in path.read_text()


def test_killed_in_the_middle_it_goes_on_with_the_unfinished_segments(tmp_path: Path, clip: Path) -> None:
    voice = media.speech(tmp_path / "long.wav", "One two three four five. " * 5)
    still = once_at(tmp_path, "render.frame=stop@60")  # in the third segment
    with Daemon(tmp_path / "share", SCHEDULER__SEGMENT_SECONDS="1", **still) as daemon:
        shutil.copy(clip, daemon.inbox / "talk.mp4")
        shutil.copy(voice, daemon.inbox / "talk.wav")
        daemon.start()
        daemon.wait_still()
        daemon.wait(lambda: len(daemon.events("segment.finished")) >= 2, what="two segments")
        daemon.kill()
        before = {e["heygemd.segment.number"] for e in daemon.events("segment.finished")}
        # Durable before it is told: a kill in between costs the word, not the segment.
        durable = {int(path.stem) for path in daemon.state.glob("work/*/items/*/segments/[0-9]*.mp4")}
        assert daemon.once() == 0
        done = [e["heygemd.segment.number"] for e in daemon.events("segment.finished")]
        assert len(done) == len(set(done)), "a finished segment was rendered twice"
        assert before < set(done)
        receipt = check_receipt(daemon, "talk")
        assert receipt["state"] == "done"
        assert set(done) | durable == set(range(receipt["items"][0]["segments"]))
        assert daemon.events("job.resumed")


def test_cancel_retry_pause_and_resume(tmp_path: Path, clip: Path) -> None:
    voice = media.speech(tmp_path / "long.wav", "One two three four five. " * 6)
    still = once_at(tmp_path, "render.frame=stop@30")  # so that it is not over before the command has started
    with Daemon(tmp_path / "share", SCHEDULER__SEGMENT_SECONDS="1", **still) as daemon:
        daemon.start()
        daemon.wait(lambda: daemon.events("daemon.ready"))
        assert daemon.cli("pause").returncode == 0
        shutil.copy(clip, daemon.inbox / "talk.mp4")
        shutil.copy(voice, daemon.inbox / "talk.wav")
        status = daemon.wait_state("talk", "queued")
        assert "paused" in status["reason"]
        why = daemon.cli("why", str(daemon.inbox / "talk.mp4"))
        assert "talk" in why.stdout
        assert daemon.cli("resume").returncode == 0
        daemon.wait_still()
        daemon.wait_state("talk", "rendering")
        answer = daemon.cli("cancel", "talk")
        assert answer.returncode == 0, answer.stderr
        daemon.wait_state("talk", "cancelled")
        assert daemon.files("failed") >= {"talk/talk.mp4", "talk/talk.wav", "talk/error.json"}
        answer = daemon.cli("retry", "talk")
        assert answer.returncode == 0, answer.stderr
        daemon.wait_state("talk", "done")
        assert check_receipt(daemon, "talk")["state"] == "done"
        assert daemon.files("failed") == set()
        typo = daemon.cli("cancel", "tlak")
        assert typo.returncode == 2
        assert daemon.stop() == 0
        assert daemon.events("daemon.stopped")


def test_the_same_name_twice_makes_two_results(tmp_path: Path, clip: Path, voice: Path) -> None:
    daemon = Daemon(tmp_path / "share")
    for folder in ("", "other"):
        (daemon.inbox / folder).mkdir(exist_ok=True)
        shutil.copy(clip, daemon.inbox / folder / "talk.mp4")
        shutil.copy(voice, daemon.inbox / folder / "talk.wav")
    assert daemon.once() == 0
    shutil.copy(clip, daemon.inbox / "talk.mp4")
    shutil.copy(voice, daemon.inbox / "talk.wav")
    assert daemon.once() == 0
    assert {p.name for p in (daemon.root / "outbox").iterdir()} == {"talk", "talk-2", "talk-3"}


def test_a_lost_worker_is_replaced_and_the_job_ends_well(tmp_path: Path, clip: Path) -> None:
    import os
    import signal

    voice = media.speech(tmp_path / "long.wav", "One two three four five. " * 5)
    still = once_at(tmp_path, "render.frame=stop@30")
    with Daemon(tmp_path / "share", SCHEDULER__SEGMENT_SECONDS="1", **still) as daemon:
        shutil.copy(clip, daemon.inbox / "talk.mp4")
        shutil.copy(voice, daemon.inbox / "talk.wav")
        daemon.start(once=True)
        os.kill(daemon.wait_still(), signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(240) == 0
        assert daemon.events("worker.died")
        assert daemon.events("segment.retried")
        assert check_receipt(daemon, "talk")["state"] == "done"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_sigterm_drains_and_leaves_no_process(tmp_path: Path, clip: Path) -> None:
    voice = media.speech(tmp_path / "long.wav", "One two three four five. " * 5)
    with Daemon(tmp_path / "share", SCHEDULER__SEGMENT_SECONDS="1") as daemon:
        shutil.copy(clip, daemon.inbox / "talk.mp4")
        shutil.copy(voice, daemon.inbox / "talk.wav")
        daemon.start()
        daemon.wait(lambda: daemon.events("segment.finished"), what="a segment")
        workers = [event["heygemd.worker.pid"] for event in daemon.events("worker.started")]
        children = daemon.children()
        assert children
        assert daemon.stop() == 0
        assert [pid for pid in workers if alive(pid)] == [], "it has waited for each"
        until = time.monotonic() + 60
        while any(alive(pid) for pid in children):  # what workers had started was killed with them, and dies
            assert time.monotonic() < until
            time.sleep(0.05)
        assert daemon.once() == 0
        assert check_receipt(daemon, "talk")["state"] == "done"


def test_it_can_be_stopped_while_the_share_is_away(tmp_path: Path) -> None:
    """`systemctl stop` of a daemon that waits for its share is no failure; `--once` without its share is one."""
    with Daemon(tmp_path / "share", state=tmp_path / "state", log=tmp_path / "log") as daemon:
        assert daemon.once() == 0
        (daemon.root / ".heygemd-root").unlink()  # what is left where a share was unmounted
        daemon.start()
        daemon.wait(lambda: daemon.events("daemon.degraded"), what="the wait for the share")
        assert daemon.stop() == 0
        assert daemon.events("daemon.stopped")[-1]["process.exit_code"] == 0
        assert daemon.once() == 75
