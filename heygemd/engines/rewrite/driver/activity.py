"""Where there is speech: a level gate that follows the recording's own noise floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, smooth

_HOP = SPEECH_RATE // TRACK_RATE
_BLOCK_ROWS = 6000
_SILENCE_DB = -85.0
_OPEN_RISE_DB = 9.0


def level_db(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Level in dB of full scale for every row of TRACK_RATE, (ceil(n / 160),), of the first difference of the sound.

    Hum and rumble carry no speech, and the difference weakens them.
    """
    rows = -(-len(samples) // _HOP)
    power = np.zeros(rows)
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        piece = samples[max(start * _HOP - 1, 0) : stop * _HOP]
        edged = np.diff(piece, prepend=piece[:1]) if start == 0 else np.diff(piece)
        edged = np.pad(edged, (0, (stop - start) * _HOP - len(edged))).reshape(-1, _HOP)
        power[start:stop] = np.einsum("ij,ij->i", edged, edged) / _HOP
    return np.asarray(10 * np.log10(power + 1e-12), np.float32)


def level_gate(samples: NDArray[np.float32], rows: int) -> NDArray[np.bool_]:
    """(rows,) bool at TRACK_RATE: loud enough to be speech, by the recording's own noise floor and its loud parts."""
    level = level_db(samples)
    if not len(level):
        return np.zeros(rows, bool)
    smoothed = smooth(level, 0.05)
    loud, floor = np.percentile(smoothed, [95, 5])
    # A recording without pauses has no floor to measure; then 12 dB below its loud parts is the most the gate asks.
    threshold = max(min(floor + _OPEN_RISE_DB, loud - 12), loud - 35, _SILENCE_DB)
    gate = np.zeros(rows, bool)
    gate[: len(smoothed)] = smoothed[:rows] > threshold
    return gate
