"""The mel spectrogram against the public implementation's numbers, and against librosa."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.media import mel

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2].parent / "shared" / "golden" / "mel_public.npz"


def waveform(seed: int) -> NDArray[np.float32]:
    r = np.random.default_rng(seed)
    t = np.arange(64000) / 16000
    w = 0.4 * np.sin(2 * np.pi * (120 + 40 * np.sin(2 * np.pi * 1.3 * t)) * t)
    w += 0.2 * np.sin(2 * np.pi * (500 + 1500 * t / 4) * t) + 0.05 * r.standard_normal(64000)
    return (w * (0.2 + 0.8 * (np.sin(2 * np.pi * 3 * t) > 0))).astype(np.float32)


def test_agrees_with_the_public_implementation() -> None:
    golden = np.load(HERE / "golden_mel.npz")
    ours = mel.mel_spectrogram(waveform(int(golden["seed"])))
    assert ours.shape == (80, 321)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours[::3, ::5], golden["mel"], atol=1e-4)
    np.testing.assert_allclose(ours[:, [0, 1, 2, -3, -2, -1]], golden["edges"], atol=1e-4)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared golden numbers are not beside the checkout")
def test_agrees_with_all_of_the_shared_numbers() -> None:
    golden = np.load(SHARED)
    np.testing.assert_allclose(mel.mel_spectrogram(waveform(int(golden["seed"]))), golden["mel"], atol=1e-4)


def test_filters_are_librosas() -> None:
    filters = pytest.importorskip("librosa.filters")
    theirs = filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    np.testing.assert_allclose(mel.mel_filters(), theirs, atol=1e-7)


def test_pieces_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = waveform(3)
    whole = mel.mel_spectrogram(sound)
    monkeypatch.setattr(mel, "_CHUNK_COLUMNS", 7)
    np.testing.assert_array_equal(mel.mel_spectrogram(sound), whole)


def test_reflection_changes_only_the_edges() -> None:
    sound = waveform(4)
    zeros, mirrored = mel.mel_spectrogram(sound), mel.mel_spectrogram(sound, padding="reflect")
    np.testing.assert_array_equal(zeros[:, 2:-2], mirrored[:, 2:-2])
    assert np.abs(zeros[:, 0] - mirrored[:, 0]).max() > 0.01
    padded = np.pad(np.concatenate((sound[:1], sound[1:] - 0.97 * sound[:-1])), 400, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    first = np.abs(np.fft.rfft(padded[:800] * window)) @ mel.mel_filters().T
    np.testing.assert_allclose(
        mirrored[:, 0], np.clip(8 * (20 * np.log10(first) - 20 + 100) / 100 - 4, -4, 4), atol=1e-3
    )


@pytest.mark.parametrize("samples", [0, 1, 199, 200, 401, 16000])
def test_any_length_gives_one_column_every_200_samples(samples: int) -> None:
    out = mel.mel_spectrogram(np.zeros(samples, np.float32))
    assert out.shape == (80, 1 + samples // 200)
    assert np.all(out == mel.SILENCE)


def test_refuses_stereo() -> None:
    with pytest.raises(ValueError, match="mono"):
        mel.mel_spectrogram(np.zeros((2, 100), np.float32))
