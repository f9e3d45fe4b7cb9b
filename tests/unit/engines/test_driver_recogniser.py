"""The inner layers of the phoneme recogniser that the package hama carries, and the driver with and without it."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.cli.checks import tools
from heygemd.core.errors import EngineUnavailableError
from heygemd.engines.rewrite.driver import drive, fit_personal, network, recogniser

FPS = Fraction(25)


def babble(seconds: float, seed: int = 4) -> NDArray[np.float32]:
    """A buzz through two resonances that wander, with pauses: something between speech and nothing."""
    generator = np.random.default_rng(seed)
    count = round(seconds * 16000)
    time = np.arange(count) / 16000
    sound = np.zeros(count)
    for low, high in ((300, 800), (900, 2300)):
        places = generator.uniform(low, high, round(seconds * 6) + 2)
        centre = np.interp(time * 6, np.arange(len(places)), places)
        for number in range(1, 30):
            sound += np.sin(2 * np.pi * 110 * number * time) * np.exp(-(((110 * number - centre) / 120) ** 2))
    syllables = np.clip(
        np.interp(time * 5, np.arange(round(seconds * 5) + 2), generator.uniform(-0.2, 1, round(seconds * 5) + 2)), 0, 1
    )
    return np.asarray(0.03 * sound * syllables, np.float32)


@pytest.fixture
def installed() -> None:
    if recogniser.weights_file() is None:
        if os.environ.get("CI"):
            pytest.fail(f"{recogniser.PACKAGE} {recogniser.VERSION} is not installed")
        pytest.skip(f"{recogniser.PACKAGE} {recogniser.VERSION} is not installed")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recogniser, "weights_file", lambda: None)


@pytest.mark.usefixtures("installed")
def test_layers_are_those_of_the_packages_own_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the fourth block and the last projection the same phonemes come out as from the package itself."""
    engine = pytest.importorskip("hama.asr").ASRModel()
    sound = babble(3)
    feeds = {engine._waveform_input_name: sound[None], engine._waveform_lengths_input_name: np.array([len(sound)])}
    theirs = np.asarray(engine.session.run([engine._log_probs_output_name], feeds)[0])[0]
    monkeypatch.setattr(recogniser, "LAYERS", 4)
    rows = -(-len(sound) // 320)
    last = recogniser.layers(sound, 1.0, 0, rows)[:, -recogniser.WIDTH :]
    kept = recogniser._weights()
    ours = last @ kept["acoustic_model.model.proj.weight"][:, :, 0].T + kept["acoustic_model.model.proj.bias"]
    ours -= np.log(np.exp(ours).sum(axis=1, keepdims=True))
    within = slice(0, rows - 30)  # theirs ends with the sound, ours looks a second into the silence behind it
    assert np.mean(ours[within].argmax(axis=1) == theirs[:rows][within].argmax(axis=1)) > 0.9
    assert np.corrcoef(ours[within].ravel(), theirs[:rows][within].ravel())[0, 1] > 0.98


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("samples", [1, 159, 320, 321, 1000, 16000])
def test_rows_of_little_sound(samples: int) -> None:
    rows = -(-samples // 320)
    found = recogniser.layers(np.full(samples, 0.1, np.float32), 1.0, 0, rows)
    assert found.shape == (rows, recogniser.NUM_FEATURES)
    assert np.isfinite(found).all()


@pytest.mark.usefixtures("installed")
def test_where_a_recording_is_cut_hardly_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = babble(12)
    rows = 600
    whole = network.hear_recognised(sound, 1.0, rows)
    monkeypatch.setattr(network, "RECOGNISED_ROWS", 170)
    cut = network.hear_recognised(sound, 1.0, rows)
    assert np.corrcoef(whole.opening, cut.opening)[0, 1] > 0.95
    assert len(network.hear_recognised(sound[:0], 1.0, 0).opening) == 0


@pytest.mark.usefixtures("installed")
def test_the_receipt_names_what_listened() -> None:
    motion = drive(babble(3), 75, FPS)
    assert motion.summary["driver"] == "phonetic, spectral balance, recogniser"
    assert tools._recogniser().level == "ok"


@pytest.mark.usefixtures("absent")
def test_without_the_package_the_spectrum_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    motion = drive(babble(3), 75, FPS)
    assert motion.summary["driver"] == "phonetic, spectral balance, network"
    assert motion.opening.std() > 0.05
    finding = tools._recogniser()
    assert finding.level == "warn"
    assert "hama" in finding.message


def test_other_weights_are_not_taken_for_those_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser.weights_file.cache_clear()
    monkeypatch.setattr(recogniser, "_SHA256", "0" * 64)
    assert recogniser.weights_file() is None
    recogniser.weights_file.cache_clear()
    monkeypatch.setattr(recogniser, "PACKAGE", "no_such_package_here")
    assert recogniser.weights_file() is None
    recogniser.weights_file.cache_clear()


@pytest.mark.usefixtures("absent")
def test_what_was_learned_with_the_package_is_not_used_without_it() -> None:
    sound = babble(6)
    truth = drive(sound, 150, FPS)
    personal = fit_personal(sound, truth.opening, truth.width, FPS)
    assert personal is not None
    assert not personal.recognised
    with pytest.raises(EngineUnavailableError, match="hama"):
        drive(sound, 150, FPS, personal=replace(personal, recognised=True))
