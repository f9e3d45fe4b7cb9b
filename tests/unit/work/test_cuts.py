"""Segments are cut in pauses, and where the mouth rests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from heygemd.core.plan import PlanRequest, cut
from heygemd.engines.base import SPEECH_RATE, Analysis, Speech, engine_names, load_engine
from heygemd.work import cuts
from heygemd.work.cuts import cut_cost, loudness

FRAMES = 250


def speech(*quiet: tuple[int, int]) -> Speech:
    """Ten seconds of noise with silent stretches, given in frames."""
    samples = np.random.default_rng(0).normal(0, 0.2, FRAMES * SPEECH_RATE // 25).astype(np.float32)
    for first, stop in quiet:
        samples[first * SPEECH_RATE // 25 : stop * SPEECH_RATE // 25] = 0
    return Speech(samples, FRAMES, Fraction(25))


def border(cost: np.ndarray) -> int:
    request = PlanRequest(FRAMES, Fraction(25), 640, 480, 6.0, 3000, cost)
    (first, _) = cut(request)
    return first.stop_frame


def test_the_cut_moves_into_a_pause() -> None:
    assert 134 <= border(cut_cost(speech((133, 138)), None)) <= 137


def test_of_two_pauses_the_one_with_a_still_mouth_is_taken() -> None:
    moving = np.ones(FRAMES, np.float32)
    moving[134:138] = 0.0
    both = speech((113, 118), (133, 138))
    assert 134 <= border(cut_cost(both, moving)) <= 136
    moving[:] = 1.0
    moving[114:118] = 0.0
    assert 114 <= border(cut_cost(both, moving)) <= 116


def test_both_sides_of_the_cut_rest() -> None:
    moving = np.ones(FRAMES, np.float32)
    moving[120:126] = 0.0
    cost = cut_cost(speech((0, FRAMES)), moving)
    assert list(np.flatnonzero(cost == 0.0)) == list(range(120, 125)), "the last one moves on into a busy frame"


def test_silence_and_stillness_cost_nothing_and_all_costs_are_bounded() -> None:
    still = np.zeros(FRAMES, np.float32)
    assert not cut_cost(speech((0, FRAMES)), still).any()
    lively = cut_cost(speech(), np.random.default_rng(1).random(FRAMES).astype(np.float32))
    assert lively.shape == (FRAMES,) and lively.dtype == np.float32
    assert lively.min() >= 0 and lively.max() <= 2.0
    assert loudness(speech()).shape == (FRAMES,)


def test_hours_of_speech_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    said = speech((50, 90), (240, FRAMES))
    whole = loudness(said)
    for frames in (1, 7, FRAMES - 1):
        monkeypatch.setattr(cuts, "_FRAMES_AT_ONCE", frames)
        np.testing.assert_allclose(loudness(said), whole, atol=1e-6)
    short = Speech(said.samples[: SPEECH_RATE // 2], FRAMES, Fraction(25))
    assert loudness(short)[20:].max() == 0.0, "behind the end of the speech it is silent"


def test_every_engine_says_when_its_mouth_moves() -> None:
    """A mouth that opens at frame 30 moves there and nowhere else; one that is not touched does not move."""
    assert set(engine_names()) >= {"rewrite", "wav2lip"}
    step = (np.arange(60) >= 30).astype(np.float32)
    ones, zeros = np.ones(60, np.float32), np.zeros(60, np.float32)
    rewrite = {"opening": 9 * step, "width": ones, "teeth": zeros, "gate": ones}
    mel = np.repeat((-4.0 + 6 * (np.arange(80 * 4) >= 128))[None], 80, axis=0).astype(np.float32)
    wav2lip = {"mel": mel, "first_column": (4 * np.arange(60)).astype(np.int32), "weight": ones}
    for name, arrays, gate, at in (("rewrite", rewrite, "gate", [30]), ("wav2lip", wav2lip, "weight", [30])):
        speed = load_engine(name).mouth_speed(Analysis(arrays))
        assert list(np.flatnonzero(speed)) == at, name
        assert not load_engine(name).mouth_speed(Analysis({**arrays, gate: zeros})).any()
