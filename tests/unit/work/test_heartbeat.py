"""Work of minutes in one piece gives signs of life; what hangs gives none, and the daemon ends it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from skimage import data

from heygemd.core import heartbeat
from heygemd.core.clip import VideoInfo
from heygemd.core.options import Options
from heygemd.engines.base import AnalysisFrame
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.driver import drive
from heygemd.faces.detect import CascadeDetector
from heygemd.files import sha256_of
from heygemd.media import ffmpeg as media_ffmpeg
from heygemd.media.ffmpeg import Child
from heygemd.media.mel import mel_spectrogram
from heygemd.work import worker as worker_module
from heygemd.work.worker import Worker


@pytest.fixture
def beats() -> Iterator[list[int]]:
    """One entry for each sign of life."""
    found: list[int] = []
    heartbeat.listen(lambda: found.append(1))
    yield found
    heartbeat.listen(None)


def test_a_sign_of_life_repeats_the_last_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(worker_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    out = io.StringIO()
    worker = Worker(out)
    worker.alive()
    assert out.getvalue() == "", "there is no task"
    worker.report("motion", 0, 1)
    worker.alive()
    now[0] += 30.0
    worker.alive()
    worker.alive()
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(m["type"], m["values"]["stage"], m["values"]["done"]) for m in said] == [("progress", "motion", 0)] * 2


def test_listening_to_speech_beats_every_few_seconds_of_it(beats: list[int]) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 60 * 16000).astype(np.float32)
    drive(samples, 60 * 25, Fraction(25))
    assert len(beats) >= 6, "hours of it take minutes"
    beats.clear()
    mel_spectrogram(samples)
    assert len(beats) >= 2


def test_measuring_a_mouth_beats_in_every_frame(beats: list[int], tmp_path: Path) -> None:
    portrait = np.ascontiguousarray(data.astronaut()[:400, :, ::-1])
    n = 14
    video = VideoInfo(512, 400, Fraction(25), n, n / 25, "yuv420p")
    analyser = RewriteEngine().analyser(video, Options(), None, tmp_path, CascadeDetector())
    for i in range(n):
        analyser.update(AnalysisFrame(i, portrait, 1.0))
    beats.clear()
    analyser.finish()
    assert len(beats) >= 2 * n, "an hour of video is measured for minutes after its last frame was read"


UNTIL_TOLD = """
import os, sys, time
while not os.path.exists(sys.argv[2]):
    open(sys.argv[1], "{mode}").{step}
    time.sleep(0.02)
print("over")
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there after the third sign of life."""
    monkeypatch.setattr(media_ffmpeg, "_LOOK_SECONDS", 0.05)
    found: list[int] = []
    path = tmp_path / "told"

    def heard() -> None:
        found.append(1)
        if len(found) == 3:
            path.touch()

    heartbeat.listen(heard)
    yield path
    heartbeat.listen(None)


def test_joining_beats_while_the_file_grows(told: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    program = UNTIL_TOLD.format(mode="a", step="write('x')")
    with Child([sys.executable, "-c", program, str(out), str(told)], stdout=False) as child:
        assert child.wait_while_writing(out) == 0


def test_checking_beats_while_it_reads(told: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.bin"
    long.write_bytes(bytes(1 << 20))
    program = UNTIL_TOLD.format(mode="rb", step="read()")
    with Child([sys.executable, "-c", program, str(long), str(told)]) as child:
        assert child.read_all(100, 200.0) == b"over\n"


def test_what_does_nothing_gives_no_sign(beats: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_ffmpeg, "_LOOK_SECONDS", 0.05)
    with Child(["sleep", "0.5"], stdout=False) as child:
        assert child.wait_while_writing(tmp_path / "never.mp4") == 0
    assert beats == []


def test_a_sum_over_a_long_file_beats(beats: list[int], tmp_path: Path) -> None:
    long = tmp_path / "long.bin"
    long.write_bytes(bytes(9 << 20))
    assert sha256_of(long) == hashlib.sha256(long.read_bytes()).hexdigest()
    assert len(beats) >= 3
