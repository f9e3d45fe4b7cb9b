"""Mel spectrograms as the Wav2Lip family hears them: numpy only, so that importing costs nothing.

The recipe is fixed by how the networks were trained: pre-emphasis 0.97, 800-point periodic Hann windows every 200
samples at 16 kHz, magnitudes, 80 Slaney bands from 55 to 7600 Hz, decibels clipped to -4..4.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heygemd.core.heartbeat import beat

SAMPLE_RATE = 16000
HOP_SAMPLES = 200
COLUMNS_PER_SECOND = SAMPLE_RATE // HOP_SAMPLES
BANDS = 80
SILENCE = -4.0
"""The value of every band in digital silence."""

_WINDOW = 800
_LOW_HZ, _HIGH_HZ = 55.0, 7600.0
_CHUNK_COLUMNS = 2048


def _hz_to_slaney(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * 27.0 / np.log(6.4))


def _slaney_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


@cache
def mel_filters() -> NDArray[np.float32]:
    """(80, 401): triangles on Slaney's scale, each of unit area in hertz."""
    low, high = _hz_to_slaney(np.array([_LOW_HZ, _HIGH_HZ]))
    edges = _slaney_to_hz(np.linspace(low, high, BANDS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    rising = (bins[None, :] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None, :]) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters = (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    filters.setflags(write=False)
    return filters


def num_columns(num_samples: int) -> int:
    """Columns of the mel of so many samples, without margins."""
    return 1 + num_samples // HOP_SAMPLES


def mel_spectrogram(
    samples: NDArray[np.float32],
    *,
    padding: Literal["zeros", "reflect"] = "zeros",
    margins: tuple[int, int] = (0, 0),
) -> NDArray[np.float32]:
    """(80, 1 + n // 200) float32 in -4..4 of (n,) float32 mono at 16 kHz, with so many columns of silence before and
    after it.

    `padding` is what stands before the first and after the last sample: zeros as librosa does since 0.9, or the sound
    mirrored as in the librosa that the published Wav2Lip pinned; only the first and last two columns differ.
    Raises ValueError when `samples` is not one-dimensional.
    """
    if samples.ndim != 1:
        raise ValueError(f"mel_spectrogram takes mono samples, got shape {samples.shape}")
    mirrored = padding == "reflect" and len(samples) > _WINDOW // 2
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(_WINDOW) / _WINDOW)
    filters = mel_filters()
    columns = num_columns(len(samples))
    before, after = margins
    whole = np.full((BANDS, before + columns + after), SILENCE, np.float32)
    out = whole[:, before : before + columns]
    for start in range(0, columns, _CHUNK_COLUMNS):  # in pieces: an hour of speech is 1.8 GB of spectrum
        beat()
        stop = min(columns, start + _CHUNK_COLUMNS)
        first = start * HOP_SAMPLES - _WINDOW // 2
        sound = _emphasised(samples, first, (stop - 1) * HOP_SAMPLES + _WINDOW // 2, mirrored)
        frames = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::HOP_SAMPLES]
        magnitude = np.abs(np.fft.rfft(frames * window, axis=1))
        mel = magnitude @ filters.T
        decibels = 20.0 * np.log10(np.maximum(1e-5, mel)) - 20.0
        out[:, start:stop] = np.clip(8.0 * (decibels + 100.0) / 100.0 - 4.0, -4.0, 4.0).T
    return whole


def _emphasised(samples: NDArray[np.float32], first: int, stop: int, mirrored: bool) -> NDArray[np.float64]:
    """(stop - first,): samples first .. stop - 1 after the pre-emphasis. Outside of the sound zeros, or its mirror."""
    at = np.arange(first, stop)
    outside = (at < 0) | (at >= len(samples))
    if mirrored:
        at = np.abs(at)
        at = np.where(at >= len(samples), 2 * (len(samples) - 1) - at, at)
    at = np.clip(at, 0, max(0, len(samples) - 1))
    if not len(samples):
        return np.zeros(len(at))
    sound = samples[at].astype(np.float64)
    sound -= np.where(at > 0, 0.97 * samples[np.maximum(at - 1, 0)].astype(np.float64), 0.0)
    if not mirrored:
        sound[outside] = 0.0
    return sound
