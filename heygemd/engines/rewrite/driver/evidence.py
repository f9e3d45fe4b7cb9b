"""What is known of a recording before anybody's mouth comes into it: three views of it, and where there is speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver import recogniser
from heygemd.engines.rewrite.driver.activity import level_gate
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Tracks, smooth
from heygemd.engines.rewrite.driver.balance import balance
from heygemd.engines.rewrite.driver.cepstra import band_levels
from heygemd.engines.rewrite.driver.features import FEATURE_RATE, Floats, log_mel, normalised
from heygemd.engines.rewrite.driver.network import Heard, at_rate, hear, hear_recognised
from heygemd.engines.rewrite.driver.phonetic import listen

_ENOUGH_ROWS = 50
_BLOCK_ROWS = 8192
_BRIDGED_SECONDS = 1.0
_EDGE_SECONDS = 0.12
_SPEECH_LIKELY = 0.5
_BRIEF_ROWS = 3  # what lasts less than 70 ms is no speech
_USUAL_LEVEL = 0.1


@dataclass(frozen=True)
class Evidence:
    """`heard`: our network's view, rows at FEATURE_RATE; the others have rows at TRACK_RATE.

    `expected`: the phonetic view. `balance` (rows, 2): the spectrum's, for opening and width. `active`: 0…1, speech
    with its short gaps. `recognised`: the network heard a recogniser's layers, not the spectrum.
    """

    heard: Heard
    expected: Tracks
    balance: Floats
    active: Floats
    speech_seconds: float
    recognised: bool

    def views(self) -> tuple[Floats, Floats, Floats]:
        """Opening and width (rows, 2) at FEATURE_RATE, unscaled: the phonetic view, the balance, the network's."""
        rows = len(self.heard.opening)
        expected = np.stack([self.expected.opening, self.expected.width], axis=1)
        heard = np.stack([self.heard.opening, self.heard.width], axis=1)
        return _halved(expected, rows), _halved(self.balance, rows), heard

    def active_rows(self) -> np.ndarray:
        """(rows,) bool at FEATURE_RATE."""
        return np.asarray(self.active[::2][: len(self.heard.opening)] > _SPEECH_LIKELY)


def _halved(rows: Floats, count: int) -> Floats:
    """Rows at TRACK_RATE to `count` at FEATURE_RATE: means of pairs."""
    return np.asarray(rows[: 2 * count].reshape(count, 2, rows.shape[1]).mean(axis=1), np.float32)


def gather(samples: Floats) -> Evidence:
    """Evidence of (n,) float32 speech at 16 kHz. Some 150 MB for an hour, beside the sound."""
    gain = level_gain(samples)
    recognised = recogniser.weights_file() is not None
    if recognised:
        heard = hear_recognised(samples, gain, -(-len(samples) * FEATURE_RATE // SPEECH_RATE))
    else:
        heard = hear(normalised(log_mel(samples, gain)))
    levels = band_levels(samples, gain)
    rows = len(heard.opening) * TRACK_RATE // FEATURE_RATE
    likely = smooth(at_rate(heard.activity, rows, TRACK_RATE), 0.1)
    gate = level_gate(samples, rows)
    voiced = _dilated(_eroded((likely > _SPEECH_LIKELY) & gate, _BRIEF_ROWS), _BRIEF_ROWS)
    seconds = float(voiced.sum()) / TRACK_RATE
    expected, contrast = listen(samples, levels, rows), balance(levels, rows)
    return Evidence(heard, expected, contrast, bridged(voiced), seconds, recognised)


def level_gain(samples: Floats) -> float:
    """What brings the loud parts to a usual level, at most 50 dB: a faint recording is not lost in rounding."""
    size = SPEECH_RATE // 10
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    power = np.einsum("ij,ij->i", blocks, blocks) / size
    loud = float(np.sqrt(np.percentile(power, 95))) if len(power) else 0.0
    return _USUAL_LEVEL / max(loud, _USUAL_LEVEL / 300)


def bridged(active: np.ndarray) -> Floats:
    """0…1: gaps under a second closed (a mouth does not rest in short pauses), edges held a little, then softened."""
    reach = round(_BRIDGED_SECONDS * TRACK_RATE / 2)
    held = _eroded(_dilated(active, reach + 6), reach)
    softened: Floats = np.clip(smooth(held.astype(np.float32), 2 * _EDGE_SECONDS), 0, 1)
    return softened


def _dilated(mask: np.ndarray, reach: int) -> np.ndarray:
    total = np.concatenate([[0], np.cumsum(np.pad(mask.astype(np.int64), reach))])
    return np.asarray(total[2 * reach + 1 :] - total[: -2 * reach - 1] > 0) if len(mask) else mask


def _eroded(mask: np.ndarray, reach: int) -> np.ndarray:
    return ~_dilated(~mask, reach)


def standardised(values: Floats, where: np.ndarray) -> Floats:
    """Zero mean and unit deviation over `where`; nearly constant values stay small instead of blowing up."""
    if not len(values):
        return values
    mean, deviation = moments(values, where)
    return np.asarray((values - mean) / deviation, np.float32)


def moments(values: Floats, where: np.ndarray) -> tuple[Floats, Floats]:
    """Mean and deviation of every column over the rows `where`, over all of them where those are too few. The deviation
    is .02 at least."""
    chosen = np.flatnonzero(where) if where.sum() >= _ENOUGH_ROWS else np.arange(len(values))
    count = max(1, len(chosen))
    total = np.zeros(values.shape[1:])
    for start in range(0, len(chosen), _BLOCK_ROWS):
        total += values[chosen[start : start + _BLOCK_ROWS]].sum(axis=0, dtype=np.float64)
    mean = total / count
    squares = np.zeros_like(mean)
    for start in range(0, len(chosen), _BLOCK_ROWS):
        squares += np.square(values[chosen[start : start + _BLOCK_ROWS]] - mean).sum(axis=0)
    deviation = np.maximum(np.sqrt(squares / count), 0.02)
    return mean.astype(np.float32), deviation.astype(np.float32)
