"""Hours of speech: what preparing them takes is predicted, and the sound itself is not in it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.engines.base import LipSyncEngine, PrepareQuery
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.driver import cepstra, drive, evidence, features, network, recogniser
from heygemd.engines.wav2lip import drive as heard
from heygemd.engines.wav2lip.engine import Wav2LipEngine
from heygemd.media.audio import hear, kept_samples
from tests import media

FPS = Fraction(25)
Floats = NDArray[np.float32]


def speech(seconds: int) -> Floats:
    """Syllables of a buzz with noise between them."""
    r = np.random.default_rng(3)
    t = np.arange(seconds * 16000) / 16000
    loud = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, 1) * (np.sin(2 * np.pi * 0.2 * t) > -0.7)
    return (0.2 * loud * np.sign(np.sin(2 * np.pi * 130 * t)) + 0.001 * r.standard_normal(len(t))).astype(np.float32)


def peak_bytes(work: Callable[[], object]) -> int:
    """Most that Python and numpy hold beside what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _rewrite(samples: Floats, seconds: int) -> object:
    return drive(samples, 25 * seconds, FPS)


def _wav2lip(samples: Floats, seconds: int) -> object:
    found = heard.windows(samples, 25 * seconds, FPS, 0.0)
    return heard.speed(heard.gated(found.mel, found.activity), found.first_column, found.activity_of_frames)


@pytest.mark.parametrize(
    ("engine", "work", "lengths"),
    [(RewriteEngine(), _rewrite, (30, 90)), (Wav2LipEngine(), _wav2lip, (60, 240))],
    ids=["rewrite", "wav2lip"],
)
def test_what_speech_takes_is_predicted_at_two_lengths(
    engine: LipSyncEngine,
    work: Callable[[Floats, int], object],
    lengths: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recogniser, "weights_file", lambda: None)  # the rest is the same, and quicker
    for module in (cepstra, evidence, features, network):
        monkeypatch.setattr(module, "_BLOCK_ROWS", 256)  # blocks are constant already in the shorter one
    work(speech(2), 2)  # filters and models are loaded once
    peaks = []
    for seconds in lengths:
        samples = speech(seconds)
        peaks.append(peak_bytes(partial(work, samples, seconds)))
        assert peaks[-1] < engine.prepare_bytes(PrepareQuery(1280, 720, 1, seconds))
    short, long = (engine.prepare_bytes(PrepareQuery(1280, 720, 1, seconds)) for seconds in lengths)
    assert 0.3 * (long - short) < peaks[1] - peaks[0] < long - short, "neither too little nor far too much an hour"


def test_kept_sound_is_the_same_and_takes_no_memory(tmp_path: Path) -> None:
    voice = media.tone(tmp_path / "voice.wav", seconds=120.25)
    info, samples = hear(voice)
    kept: list[Floats] = []
    assert peak_bytes(lambda: kept.append(hear(voice, keep=tmp_path / "kept.f32")[1])) < 0.4 * samples.nbytes
    np.testing.assert_array_equal(kept[0], samples)
    assert len(samples) == round(info.duration_seconds * 16000)
    assert not kept[0].flags.writeable
    longer = kept_samples(tmp_path / "kept.f32", len(samples) + 320)
    np.testing.assert_array_equal(longer[: len(samples)], samples)
    assert len(longer) == len(samples) + 320 and not longer[len(samples) :].any()
    np.testing.assert_array_equal(kept_samples(tmp_path / "kept.f32", 100), samples[:100])
