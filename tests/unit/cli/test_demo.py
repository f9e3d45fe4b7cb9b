"""`demo`: the sample, and what happens when the daemon does not do its part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heygemd.cli import demo
from heygemd.cli.common import Globals
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool.inbox import Inbox
from heygemd.spool.layout import Layout
from heygemd.spool.lock import daemon_lock

from .conftest import Run, write_status


def test_the_sample_is_a_pair_with_a_picture(layout: Layout) -> None:
    from PIL import Image

    assert demo.make_sample(layout, "Hello") == "astronaut"
    (drop,) = Inbox(layout, InboxSettings(settle_scans=1, settle_seconds=0), LimitSettings()).scan(frozenset()).ready
    assert drop.name == "astronaut"
    with Image.open(layout.inbox / "astronaut.png") as image:
        assert image.size == (512, 512)
        assert image.mode == "RGB"
        assert len(set(image.convert("L").tobytes())) > 200, "a photograph, not a flat picture"


def test_a_second_sample_has_a_new_name(layout: Layout) -> None:
    assert demo.make_sample(layout, "x") == "astronaut"
    assert demo.make_sample(layout, "x") == "astronaut-2", "the first still lies in the inbox"
    write_status(layout, "astronaut-3", "failed")
    (layout.outbox / "astronaut-4").mkdir()
    assert demo.make_sample(layout, "x") == "astronaut-5"


def test_the_sentence_lasts_about_six_seconds(tmp_path: Path) -> None:
    wav = tmp_path / "s.wav"
    subprocess.run(["espeak-ng", "-w", str(wav), demo.SENTENCE], check=True)
    assert 4.5 < (wav.stat().st_size - 44) / 2 / 22050 < 7.5


def test_it_fails_with_the_daemons_reason(heygemd: Run, on: list[str], layout: Layout) -> None:
    with daemon_lock(layout.lock):
        done = heygemd("demo", *on, "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == error["exit_code"] != 0
    assert "another heygemd" in error["message"]


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    log.write_text('{"log.level": "info", "message": "fine"}\n')
    assert demo._last_words(log) is None
    log.write_text('{"log.level": "error", "message": "m", "error.message": "no room"}\n{"log.level": "info"}\n')
    found = demo._last_words(log)
    assert found is not None
    assert "no room" in found.message
    log.write_text("Segmentation fault\n\n")
    found = demo._last_words(log)
    assert found is not None
    assert "Segmentation fault" in found.message


def test_the_daemon_ends_with_the_demo(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the demo ends, no process is left behind."""
    monkeypatch.setattr(sys, "executable", "/bin/sleep")
    monkeypatch.setattr(Globals, "arguments", lambda _self: [])
    popen = subprocess.Popen

    def sleeper(_argv: list[str], **more: object) -> subprocess.Popen[bytes]:
        return popen(["sleep", "600"], **more)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    with pytest.raises(KeyboardInterrupt), demo.daemon(Globals(), layout) as process:
        raise KeyboardInterrupt
    assert process.poll() is not None


@pytest.mark.slow
def test_the_whole_path(heygemd_process: Run, tmp_path: Path) -> None:
    done = heygemd_process("demo", "--root", tmp_path / "demo", "--text", "Hello there.", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key in ("video", "contact_sheet", "receipt"):
        assert Path(found[key]).stat().st_size > 500
    assert json.loads(Path(found["receipt"]).read_text())["state"] == "done"
