"""The driver's phonetic view and the spectrum's balance, on sounds made here."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from heygemd.engines.rewrite.driver.balance import balance
from heygemd.engines.rewrite.driver.cepstra import band_levels, between, cepstra
from heygemd.engines.rewrite.driver.phonetic import listen, log_likelihoods, probabilities

Floats = NDArray[np.float32]
OPEN_A, ROUND_U, SPREAD_I, MURMUR = (730, 1090, 2440), (300, 870, 2240), (270, 2290, 3010), (250,)


def voiced(formants: tuple[int, ...], seconds: float = 0.3) -> Floats:
    """A pulse train at 120 Hz through resonances."""
    sound = np.zeros(round(seconds * 16000))
    sound[:: 16000 // 120] = 1.0
    for hz in formants:
        radius = np.exp(-np.pi * 90 / 16000)
        sound = lfilter([1.0], [1, -2 * radius * np.cos(2 * np.pi * hz / 16000), radius**2], sound)
    return np.asarray(0.1 * sound / np.abs(sound).max(), np.float32)


def sequence(*vowels: tuple[int, ...]) -> Floats:
    hiss = np.random.default_rng(1).standard_normal(len(vowels) * 4800).astype(np.float32)
    return np.concatenate([voiced(vowel) for vowel in vowels]) + 1e-4 * hiss


def means(rows: Floats, count: int) -> NDArray[np.float32]:
    """Of the middle of every one of `count` equal parts."""
    parts = rows[: len(rows) // count * count].reshape(count, -1)
    return np.asarray(parts[:, parts.shape[1] // 4 : -parts.shape[1] // 4].mean(axis=1), np.float32)


def test_balance_rises_with_an_open_mouth_and_with_spreading() -> None:
    sound = sequence(OPEN_A, MURMUR, OPEN_A, SPREAD_I, ROUND_U, SPREAD_I)
    found = balance(band_levels(sound), 180)
    opening, width = means(found[:, 0], 6), means(found[:, 1], 6)
    assert opening[[0, 2]].min() > opening[1] + 0.5
    assert width[[3, 5]].min() > width[4] + 0.5


def test_probabilities_are_some_and_use_what_comes_after() -> None:
    generator = np.random.default_rng(4)
    logs = generator.normal(0, 40, (300, 126)).astype(np.float32)
    found = probabilities(logs)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-4)
    logs[200:] = 0
    assert np.abs(probabilities(logs)[199] - found[199]).max() > 1e-4
    assert probabilities(np.zeros((0, 126), np.float32)).shape == (0, 126)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = sequence(OPEN_A, ROUND_U, SPREAD_I, MURMUR)
    levels = band_levels(sound)
    features = cepstra(levels)
    whole = log_likelihoods(features)
    monkeypatch.setattr("heygemd.engines.rewrite.driver.cepstra._BLOCK_ROWS", 37)
    monkeypatch.setattr("heygemd.engines.rewrite.driver.phonetic._BLOCK_ROWS", 29)
    assert np.allclose(band_levels(sound), levels, atol=1e-4)
    assert np.allclose(log_likelihoods(features), whole, atol=0.05)
    assert features.shape == (120, 39)


@pytest.mark.parametrize("seconds", [0.0, 0.004, 0.02, 0.03])
def test_next_to_nothing(seconds: float) -> None:
    sound = np.full(round(seconds * 16000), 0.1, np.float32)
    rows = 2 * -(-len(sound) // 320)
    levels = band_levels(sound)
    tracks = listen(sound, levels, rows)
    assert np.isfinite(np.concatenate([tracks.opening, tracks.width, balance(levels, rows).ravel()])).all()
    assert len(tracks) == rows


def test_bands_by_frequency() -> None:
    assert between(0, 9000) == slice(0, 25)
    assert between(100, 600).stop < between(1500, 3300).start
