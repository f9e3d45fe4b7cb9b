"""`submit`: whole files, sums that hold, the manifest last, and a wait that ends by the result."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path

import pytest

from heygemd.cli.follow import follow
from heygemd.cli.foreground import Bar
from heygemd.core.errors import BadInputError, HeygemdError, NoFaceError, ShareAwayError, TryLaterError
from heygemd.core.manifest import parse_manifest
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool import submission as submitting
from heygemd.spool.inbox import Inbox
from heygemd.spool.layout import Layout

from .conftest import Run, write_status


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    video, audio = tmp_path / "课 'x'.MP4", tmp_path / "-speech.wav"
    video.write_bytes(b"video" * 1000)
    audio.write_bytes(b"audio" * 1000)
    return video, audio


def test_what_is_put_is_one_job_for_the_inbox(layout: Layout, pair: tuple[Path, Path]) -> None:
    video, audio = pair
    job, files = submitting.put(
        layout,
        video=video,
        audio=audio,
        text=None,
        name="a/b",
        folder="in/side",
        priority=3,
        options={"quality": "best"},
    )
    assert job == "a_b"
    manifest = parse_manifest(json.loads(files[-1].read_text()), "m")
    assert manifest.priority == 3
    assert manifest.options == {"quality": "best"}
    for name, digest in manifest.sha256.items():
        assert hashlib.sha256((files[-1].parent / name).read_bytes()).hexdigest() == digest
    assert sorted(p.name for p in (layout.inbox / "in" / "side").iterdir()) == [
        "a_b.audio.wav",
        "a_b.job.json",
        "a_b.video.mp4",
    ]
    settings = InboxSettings(settle_scans=1, settle_seconds=0)
    (drop,) = Inbox(layout, settings, LimitSettings()).scan(frozenset()).ready
    assert drop.name == "a_b"
    assert drop.priority == 3
    assert {file.role for file in drop.inputs} == {"video", "audio", "manifest"}


def test_without_the_manifest_it_is_nobodys_job(layout: Layout, pair: tuple[Path, Path]) -> None:
    *_, manifest = submitting.put(layout, video=pair[0], audio=pair[1], text=None, name="x")[1]
    manifest.unlink()
    scan = Inbox(layout, InboxSettings(settle_scans=1, settle_seconds=0), LimitSettings()).scan(frozenset())
    assert scan.ready == ()
    assert scan.refused == ()


def test_names_that_are_taken(layout: Layout, pair: tuple[Path, Path]) -> None:
    video, _ = pair
    for folder in ("a", "A-3"):
        (layout.outbox / folder).mkdir()
    write_status(layout, "a-2", "done")
    assert submitting.put(layout, video=video, audio=None, text="hi", name="a")[0] == "a-4"
    assert submitting.put(layout, video=video, audio=None, text="hi", name="a")[0] == "a-5"


def test_a_failed_copy_leaves_nothing(layout: Layout, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("heygemd.files.os.fsync", full)
    with pytest.raises(HeygemdError, match="No space left"):
        submitting.put(layout, video=pair[0], audio=pair[1], text=None, name="x")
    assert list(layout.inbox.iterdir()) == []


def test_what_cannot_be_put(layout: Layout, pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"must not climb out"):
        submitting.put(layout, video=pair[0], audio=None, text="x", name="x", folder="../outbox")
    with pytest.raises(ShareAwayError):
        submitting.put(Layout(tmp_path / "no", tmp_path / "no"), video=pair[0], audio=None, text="x", name="x")


def test_the_command(heygemd: Run, on: list[str], layout: Layout, pair: tuple[Path, Path]) -> None:
    done = heygemd("submit", *on, pair[0], "--text", "Hello", "--name", "j", "-O", "quality=draft", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["job"] == "j"
    manifest = json.loads((layout.inbox / "j.job.json").read_text())
    assert manifest["text"] == "Hello"
    assert manifest["options"] == {"quality": "draft"}
    plain = heygemd("submit", *on, pair[0], "--", pair[1])
    assert plain.returncode == 0, plain.stderr
    assert "-speech: submitted" in plain.stdout
    assert "Traceback" not in plain.stderr


def test_waiting_until_it_is_done(layout: Layout) -> None:
    bar = Bar(None, quiet=True)

    def daemon() -> None:
        time.sleep(0.3)
        write_status(layout, "a", "rendering", percent=50.0)
        time.sleep(0.3)
        write_status(layout, "a", "done", where="outbox/a/")

    thread = threading.Thread(target=daemon)
    thread.start()
    view = follow(layout, "a", bar, timeout_seconds=200)
    thread.join()
    assert view["state"] == "done"


def test_waiting_ends(layout: Layout) -> None:
    with pytest.raises(TryLaterError, match="not done in time"):
        follow(layout, "a", Bar(None, quiet=True), timeout_seconds=0)
    with pytest.raises(HeygemdError, match="ended before a was done"):
        follow(layout, "a", Bar(None, quiet=True), alive=lambda: False)


def test_the_wait_exits_by_the_result(heygemd: Run, on: list[str], layout: Layout, pair: tuple[Path, Path]) -> None:
    error = NoFaceError("x.mp4: no face").to_dict()

    def daemon() -> None:
        while not (layout.inbox / "j.job.json").exists():
            time.sleep(0.05)
        write_status(layout, "j", "failed", error=error)

    thread = threading.Thread(target=daemon, daemon=True)
    thread.start()
    done = heygemd("submit", *on, pair[0], "--text", "x", "--name", "j", "--wait", "--timeout", "200", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "HG-1006"
