"""Log-mel features at 50 rows a second, normalised by the recording's own speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heygemd.core.heartbeat import beat
from heygemd.engines.base import SPEECH_RATE

FEATURE_RATE = 50
"""Rows a second of features and of the network. Row k stands for the time (k + 0.25) / 50 s."""

NUM_BANDS = 40

_HOP = 160
_WINDOW = 400
_FFT = 512
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 7600.0
_FLOOR = 1e-7
_BLOCK_ROWS = 2048
_LOCAL_SECONDS = 60
_PRIOR_ROWS = 50.0
_GATE_DB = 30.0

# Mean and deviation of the training speech's bands, mixed into the statistics of very short recordings.
_PRIOR_SD = 1.6

Floats = NDArray[np.float32]


@lru_cache(maxsize=1)
def _filters() -> Floats:
    """(257, 40): triangles, equally spaced on O'Shaughnessy's mel scale, each of area 1."""

    def mel(hz: float) -> float:
        return float(2595 * np.log10(1 + hz / 700))

    edges = 700 * (10 ** (np.linspace(mel(_LOWEST_HZ), mel(_HIGHEST_HZ), NUM_BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(_FFT, 1 / SPEECH_RATE)[:, None]
    rise = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rise, fall))
    return np.asarray(weights / np.maximum(weights.sum(axis=0), 1e-9), np.float32)


def log_mel(samples: Floats, gain: float = 1.0) -> Floats:
    """(rows, 40) float32 natural-log band powers of `samples` times `gain`; rows = ceil(n / 320).

    Memory beside the result is one block's.
    """
    rows = -(-len(samples) // (2 * _HOP))
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    half = _WINDOW // 2
    found = np.empty((rows, NUM_BANDS), np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        beat()
        count = min(_BLOCK_ROWS, rows - start)
        first = start * 2 * _HOP - half
        last = (start + count) * 2 * _HOP - _HOP + _WINDOW - half
        inside = samples[max(first, 0) : last] * np.float32(gain)
        piece = np.pad(inside, (max(-first, 0), last - max(first, 0) - len(inside)))
        frames = np.lib.stride_tricks.sliding_window_view(piece, _WINDOW)[::_HOP]
        power = np.abs(np.fft.rfft(frames * window, _FFT)).astype(np.float32) ** 2
        bands = np.log(power @ _filters() + _FLOOR)
        found[start : start + count] = bands.reshape(count, 2, NUM_BANDS).mean(axis=1)
    return found


def normalised(bands: Floats) -> Floats:
    """Zero mean and unit variance of each band over the loud rows of the minute around each row.

    Only rows within 30 dB of the loudest count, so that a long silence does not change what speech looks like.
    Recordings under about a second lean on a prior deviation.
    """
    rows = len(bands)
    if not rows:
        return bands
    level = bands.mean(axis=1)
    loud = level > np.percentile(level, 95) - _GATE_DB * np.log(10) / 10
    reach = _LOCAL_SECONDS * FEATURE_RATE // 2
    width = bands.shape[1]

    def terms(start: int, stop: int) -> NDArray[np.float64]:
        kept = bands[start:stop].astype(np.float64) * loud[start:stop, None]
        return np.concatenate([kept, kept * kept, loud[start:stop, None]], axis=1)

    found = np.empty((rows, width), np.float32)
    for block, sums in sums_around(rows, reach, terms):
        number = np.maximum(sums[:, 2 * width :], 1.0)
        mean = sums[:, :width] / number
        variance = np.maximum(sums[:, width : 2 * width] / number - mean**2, 0.0)
        share = number / (number + _PRIOR_ROWS)
        deviation = np.sqrt(share * variance + (1 - share) * _PRIOR_SD**2)
        found[block] = ((bands[block] - mean) / np.maximum(deviation, 0.3)).astype(np.float32).clip(-5, 5)
    return found


def sums_around(
    rows: int, reach: int, terms: Callable[[int, int], NDArray[np.float64]]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Blocks of rows, and for each row of a block the sum of `terms` over the 2 `reach` rows around it, over as many at
    the ends, over all where there are fewer. `terms(start, stop)`: (stop - start, k), asked for once and in order.

    Memory is a block's and the window's: over hours, running sums in float64 would be most of what a recording takes.
    """
    sums = np.zeros((1, terms(0, 0).shape[1]))  # up to before each row from `begin` on
    begin = 0
    for start in range(0, rows, _BLOCK_ROWS):
        beat()
        stop = min(start + _BLOCK_ROWS, rows)
        first = np.clip(np.arange(start, stop) - reach, 0, max(0, rows - 2 * reach))
        last = np.minimum(first + 2 * reach, rows)
        known = begin + len(sums) - 1
        if last[-1] > known:
            more = np.concatenate([sums[-1:], terms(known, int(last[-1]))])
            sums = np.concatenate([sums, np.cumsum(more, axis=0)[1:]])
        yield slice(start, stop), sums[last - begin] - sums[first - begin]
        done = int(first[-1])
        sums, begin = sums[done - begin :].copy(), done
