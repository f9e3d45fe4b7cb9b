"""Band levels without steady noise, and the mel cepstra that pocketsphinx's English acoustic model was trained on.

The analysis follows the model's own `feat.params`: 25 mel bands from 130 to 6800 Hz, noise suppressed as in PNCC (Kim
and Stern, 2016), cosine transform, liftered by 22, the mean removed. Rows at TRACK_RATE; row k begins at k / 100 s.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Floats

NUM_CEPSTRA = 13

_HOP = SPEECH_RATE // TRACK_RATE
_WINDOW = 410
_FFT = 512
_BANDS = 25
_LOWEST_HZ, _HIGHEST_HZ = 130.0, 6800.0
_PREEMPHASIS = 0.97
_LIFTER = 22
_FULL_SCALE = 32768.0  # the model knows sound in steps of 16 bits
_FLOOR = 1e-4
_BLOCK_ROWS = 2048
_LOCAL_SECONDS = 60
_AUDIBLE = 45.0 * np.log(10) / 10  # rows 45 dB below the loud ones are no part of what the channel sounds like


def band_levels(samples: Floats, gain: float = 1.0) -> Floats:
    """(rows, 25) natural-log band powers of `samples` times `gain`, noise suppressed; rows = ceil(n / 160)."""
    power = _unmasked(_band_power(samples, gain))
    return np.asarray(np.log(power + np.float32(_FLOOR)), np.float32)


def cepstra(levels: Floats) -> Floats:
    """(rows, 39) of (rows, 25) levels: cepstra less their mean over the minute around, first and second differences."""
    static = _centred(levels @ _cosines(), levels.mean(axis=1))
    padded = np.pad(static, ((3, 3), (0, 0)), mode="edge") if len(static) else np.zeros((6, NUM_CEPSTRA), np.float32)

    def moved(rows: int) -> Floats:
        return padded[3 + rows : len(padded) - 3 + rows]

    first = moved(2) - moved(-2)
    second = (moved(3) - moved(-1)) - (moved(1) - moved(-3))
    return np.concatenate([static, first, second], axis=1).astype(np.float32)


def _corners_hz() -> NDArray[np.float64]:
    """(27,) equally spaced on the mel scale."""
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    return np.asarray(700 * (10 ** (np.linspace(lowest, highest, _BANDS + 2) / 2595) - 1), np.float64)


def between(low_hz: float, high_hz: float) -> slice:
    """The bands of `band_levels` whose centres lie between."""
    centres = _corners_hz()[1:-1]
    return slice(int(np.searchsorted(centres, low_hz)), int(np.searchsorted(centres, high_hz)))


@lru_cache(maxsize=1)
def _filters() -> Floats:
    """(257, 25): triangles of area 1 whose corners lie on the transform's own frequencies."""
    step = SPEECH_RATE / _FFT
    edges = np.floor(_corners_hz() / step + 0.5) * step
    hz = np.arange(_FFT // 2 + 1)[:, None] * step
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    heights = np.maximum(0, np.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)))
    return np.asarray(heights * 2 / (high - low), np.float32)


@lru_cache(maxsize=1)
def _cosines() -> Floats:
    """(25, 13): the orthonormal cosine transform, liftered."""
    order = np.arange(NUM_CEPSTRA)
    waves = np.cos(np.pi * order * (np.arange(_BANDS)[:, None] + 0.5) / _BANDS) * np.sqrt(2 / _BANDS)
    waves[:, 0] /= np.sqrt(2)
    return np.asarray(waves * (1 + _LIFTER / 2 * np.sin(np.pi * order / _LIFTER)), np.float32)


def _band_power(samples: Floats, gain: float) -> Floats:
    """(rows, 25), rows = ceil(n / 160); beyond the end there is silence. Memory beside the result is one block's."""
    rows = -(-len(samples) // _HOP)
    window = np.hamming(_WINDOW).astype(np.float32)
    scale = np.float32(gain * _FULL_SCALE)
    found = np.empty((rows, _BANDS), np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        first, last = start * _HOP, (stop - 1) * _HOP + _WINDOW
        before = samples[first - 1 : first] if first else samples[:1]
        piece = np.concatenate([before, samples[first:last]]) * scale
        piece = np.pad(piece, (0, last - first + 1 - len(piece)))
        edged = piece[1:] - np.float32(_PREEMPHASIS) * piece[:-1]
        frames = np.lib.stride_tricks.sliding_window_view(edged, _WINDOW)[::_HOP]
        found[start:stop] = np.abs(np.fft.rfft(frames * window, _FFT)).astype(np.float32) ** 2 @ _filters()
    return found


def _unmasked(power: Floats) -> Floats:
    """`power` without steady noise and without what a louder sound just before masks: at most 13 dB are taken away."""
    rows, bands = power.shape
    if not rows:
        return power
    gains = np.empty_like(power)
    smoothed = np.maximum(power[0], 1e-3)
    noise = smoothed / 20
    floor = noise.copy()
    peak = np.zeros(bands, np.float32)
    for row in range(rows):
        smoothed = np.maximum(0.7 * smoothed + 0.3 * power[row], 1e-3)
        noise = _followed(noise, smoothed)
        signal = np.maximum(smoothed - noise, 1.0)
        floor = _followed(floor, signal)
        peak = peak * 0.85
        masked = np.where(signal < peak, peak * 0.2, signal)
        peak = np.maximum(peak, signal)
        gains[row] = np.clip(np.maximum(masked, floor) / smoothed, 1 / 20, 20)
    sums = np.cumsum(np.pad(gains, ((0, 0), (1, 0))), axis=1)
    first, last = np.maximum(np.arange(bands) - 4, 0), np.minimum(np.arange(bands) + 5, bands)
    return np.asarray(power * (sums[:, last] - sums[:, first]) / (last - first), np.float32)


def _followed(level: Floats, value: Floats) -> Floats:
    """A floor that rises slowly and falls fast."""
    return np.asarray(np.where(value >= level, 0.995 * level + 0.005 * value, 0.5 * level + 0.5 * value), np.float32)


def _centred(rows: Floats, level: NDArray[np.float32]) -> Floats:
    """Without the mean over the audible rows of the minute around each row."""
    if not len(rows):
        return rows
    audible = level > np.percentile(level, 95) - _AUDIBLE
    reach = _LOCAL_SECONDS * TRACK_RATE // 2
    first = np.clip(np.arange(len(rows)) - reach, 0, max(0, len(rows) - 2 * reach))
    last = np.minimum(first + 2 * reach, len(rows))
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows * audible[:, None], axis=0, dtype=np.float64)])
    counts = np.concatenate([[0], np.cumsum(audible)])
    number = np.maximum(counts[last] - counts[first], 1)[:, None]
    return np.asarray(rows - (sums[last] - sums[first]) / number, np.float32)
