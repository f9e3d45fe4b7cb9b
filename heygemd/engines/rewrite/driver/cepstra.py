"""Band levels without steady noise, and the mel cepstra that pocketsphinx's English acoustic model was trained on.

The analysis follows the model's own `feat.params`: 25 mel bands from 130 to 6800 Hz, noise suppressed as in PNCC (Kim
and Stern, 2016), cosine transform, liftered by 22, the mean removed. Rows at TRACK_RATE; row k begins at k / 100 s.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heygemd.core.heartbeat import beat
from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Floats
from heygemd.engines.rewrite.driver.features import sums_around

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
    found = np.empty((-(-len(samples) // _HOP), _BANDS), np.float32)
    unmasked = _Unmasked()
    for start, power in _band_power(samples, gain):
        found[start : start + len(power)] = np.log(unmasked.next(power) + np.float32(_FLOOR))
    return found


def static_cepstra(levels: Floats) -> Floats:
    """(rows, 13) of (rows, 25) levels, less their mean over the audible rows of the minute around."""
    rows = np.asarray(levels @ _cosines(), np.float32)
    if not len(rows):
        return rows
    level = levels.mean(axis=1)
    audible = level > np.percentile(level, 95) - _AUDIBLE

    def terms(start: int, stop: int) -> NDArray[np.float64]:
        counted = audible[start:stop, None]
        return np.concatenate([rows[start:stop] * counted, counted], axis=1).astype(np.float64)

    found = np.empty_like(rows)
    for block, sums in sums_around(len(rows), _LOCAL_SECONDS * TRACK_RATE // 2, terms):
        found[block] = rows[block] - sums[:, :-1] / np.maximum(sums[:, -1:], 1)
    return found


def with_differences(static: Floats, start: int, stop: int) -> Floats:
    """(stop - start, 39): those rows of (rows, 13) cepstra with their first and second differences."""
    if not len(static):
        return np.zeros((stop - start, 3 * NUM_CEPSTRA), np.float32)
    near = static[np.clip(np.arange(start - 3, stop + 3), 0, len(static) - 1)]

    def moved(rows: int) -> Floats:
        return near[3 + rows : len(near) - 3 + rows]

    first = moved(2) - moved(-2)
    second = (moved(3) - moved(-1)) - (moved(1) - moved(-3))
    return np.concatenate([moved(0), first, second], axis=1)


def cepstra(levels: Floats) -> Floats:
    """(rows, 39) of (rows, 25) levels: cepstra less their mean over the minute around, first and second differences."""
    return with_differences(static_cepstra(levels), 0, len(levels))


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


def _band_power(samples: Floats, gain: float) -> Iterator[tuple[int, Floats]]:
    """First row and (n, 25) of blocks of ceil(samples / 160) rows; beyond the end there is silence."""
    rows = -(-len(samples) // _HOP)
    window = np.hamming(_WINDOW).astype(np.float32)
    scale = np.float32(gain * _FULL_SCALE)
    for start in range(0, rows, _BLOCK_ROWS):
        beat()
        stop = min(start + _BLOCK_ROWS, rows)
        first, last = start * _HOP, (stop - 1) * _HOP + _WINDOW
        before = samples[first - 1 : first] if first else samples[:1]
        piece = np.concatenate([before, samples[first:last]]) * scale
        piece = np.pad(piece, (0, last - first + 1 - len(piece)))
        edged = piece[1:] - np.float32(_PREEMPHASIS) * piece[:-1]
        frames = np.lib.stride_tricks.sliding_window_view(edged, _WINDOW)[::_HOP]
        yield start, np.abs(np.fft.rfft(frames * window, _FFT)).astype(np.float32) ** 2 @ _filters()


class _Unmasked:
    """Blocks of power, one after the other, without steady noise and without what a louder sound just before masks: at
    most 13 dB are taken away."""

    def __init__(self) -> None:
        self._state: tuple[Floats, Floats, Floats, Floats] | None = None  # smoothed, noise, floor, peak

    def next(self, power: Floats) -> Floats:
        """(n, 25) of (n, 25), n at least 1."""
        bands = power.shape[1]
        gains = np.empty_like(power)
        if self._state is None:
            smoothed = np.maximum(power[0], 1e-3)
            self._state = smoothed, smoothed / 20, smoothed / 20, np.zeros(bands, np.float32)
        smoothed, noise, floor, peak = self._state
        for row in range(len(power)):
            smoothed = np.maximum(0.7 * smoothed + 0.3 * power[row], 1e-3)
            noise = _followed(noise, smoothed)
            signal = np.maximum(smoothed - noise, 1.0)
            floor = _followed(floor, signal)
            peak = peak * 0.85
            masked = np.where(signal < peak, peak * 0.2, signal)
            peak = np.maximum(peak, signal)
            gains[row] = np.clip(np.maximum(masked, floor) / smoothed, 1 / 20, 20)
        self._state = smoothed, noise, floor, peak
        sums = np.cumsum(np.pad(gains, ((0, 0), (1, 0))), axis=1)
        first, last = np.maximum(np.arange(bands) - 4, 0), np.minimum(np.arange(bands) + 5, bands)
        return np.asarray(power * (sums[:, last] - sums[:, first]) / (last - first), np.float32)


def _followed(level: Floats, value: Floats) -> Floats:
    """A floor that rises slowly and falls fast."""
    return np.asarray(np.where(value >= level, 0.995 * level + 0.005 * value, 0.5 * level + 0.5 * value), np.float32)
