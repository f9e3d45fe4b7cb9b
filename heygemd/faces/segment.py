"""Skin, upper lip, mouth, lower lip, skin: the five stretches of a column of pixels through a mouth.

A segment model (a hidden semi-Markov model): each stretch has its colours, its likely length and its likely place, and
the best four boundaries of a column are found exactly, for thousands of columns at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SKIN_ABOVE, UPPER_LIP, DARK, TEETH, LOWER_LIP, SKIN_BELOW = range(6)
_LENGTHS = ((24, 2), (36, 0), (28, 4))  # most and least pixels of upper lip, mouth and lower lip
_NEVER = np.float32(-1e9)


@dataclass(frozen=True)
class Colours:
    """Means and deviations, (6, 2) each, of the six classes in (log red over green, log luminance)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def bell(values: NDArray[np.float64], centre: float | NDArray[np.float64], deviation: float) -> Floats:
    """Log of an unnormalised Gaussian."""
    return np.asarray(-0.5 * ((values - centre) / deviation) ** 2, np.float32)


def likelihoods(columns: Floats, colours: Colours) -> tuple[Floats, Floats]:
    """`columns` (n, t, 2) → log likelihoods of the five stretches (n, t, 5) and of the six classes (n, t, 6).

    Pixels are not independent and no class explains everything, so the likelihoods are tempered and floored.
    """
    mean, deviation = colours.mean.astype(np.float32), colours.deviation.astype(np.float32)
    scaled = (columns[:, :, None] - mean) / deviation
    classes = np.float32(-0.5) * (scaled * scaled).sum(axis=-1) - np.log(deviation).sum(axis=-1)
    classes = np.maximum(classes, classes.max(axis=-1, keepdims=True) - 5.0)
    mouth = np.maximum(classes[..., DARK], classes[..., TEETH])
    five = np.stack([classes[..., SKIN_ABOVE], classes[..., UPPER_LIP], mouth, classes[..., LOWER_LIP]], axis=-1)
    five = np.concatenate([five, classes[..., SKIN_BELOW:]], axis=-1)
    return np.asarray(0.6 * five, np.float32), np.asarray(classes, np.float32)


def boundaries(likely: Floats, places: list[Floats], lengths: list[Floats]) -> tuple[NDArray[np.int64], Floats]:
    """The best four boundaries of each column, and by how much they beat "all skin".

    `likely` (n, t, 5); `places`: four (n or 1, t + 1) log priors of the boundaries; `lengths`: three (t + 1,) log
    priors of the lengths of upper lip, mouth and lower lip.
    """
    n = len(likely)
    sums = np.concatenate([np.zeros((n, 1, 5), np.float32), np.cumsum(likely, axis=1, dtype=np.float32)], axis=1)
    score = sums[:, :, 0] + places[0]
    backs = []
    for stretch, (most, least) in enumerate(_LENGTHS):
        score, back = _extend(score, sums[:, :, stretch + 1], lengths[stretch], most, least)
        score = score + places[stretch + 1]
        backs.append(back)
    score = score + sums[:, -1:, 4] - sums[:, :, 4]
    rows = np.arange(n)
    fourth = score.argmax(axis=1)
    third = backs[2][rows, fourth]
    second = backs[1][rows, third]
    first = backs[0][rows, second]
    gain = score[rows, fourth] - sums[:, -1][:, [0, 4]].max(axis=1)
    return np.stack([first, second, third, fourth], axis=-1), np.asarray(gain, np.float32)


def _extend(score: Floats, sums: Floats, lengths: Floats, most: int, least: int) -> tuple[Floats, NDArray[np.int64]]:
    n, ends = score.shape
    out = np.full((n, ends), _NEVER, np.float32)
    back = np.zeros((n, ends), np.int64)
    start_score = score - sums
    rows = np.arange(n)
    for end in range(least, ends):
        first = max(0, end - most)
        options = start_score[:, first : end - least + 1] + lengths[end - np.arange(first, end - least + 1)]
        best = options.argmax(axis=1)
        out[:, end] = options[rows, best] + sums[:, end]
        back[:, end] = first + best
    return out, back


def learn(columns: Floats, start: Colours, places: list[Floats], lengths: list[Floats]) -> tuple[Colours, list[Floats]]:
    """Colours and lip thicknesses of one mouth, from a sample of its columns (n, t, 2), by hard EM with priors."""
    mean, deviation = start.mean.copy(), start.deviation.copy()
    floor = np.array([0.12 * (start.deviation[SKIN_ABOVE, 0] / 0.35), 0.06])
    lengths = list(lengths)
    ticks = np.arange(columns.shape[1] + 1.0)
    rows = np.arange(columns.shape[1])[None]
    for _ in range(5):
        likely, classes = likelihoods(columns, Colours(mean, deviation))
        found, _gain = boundaries(likely, places, lengths)
        stretch = sum((rows >= found[:, k : k + 1]).astype(np.int64) for k in range(4))
        mouth = np.where(classes[..., DARK] >= classes[..., TEETH], DARK, TEETH)
        label = np.choose(
            stretch,
            [
                np.full_like(mouth, SKIN_ABOVE),
                np.full_like(mouth, UPPER_LIP),
                mouth,
                np.full_like(mouth, LOWER_LIP),
                np.full_like(mouth, SKIN_BELOW),
            ],
        )
        for k in range(6):
            pixels = columns[label == k]
            if len(pixels) < 5:
                continue
            # The mouth's own classes are seen rarely or never: they are held more strongly.
            held = len(columns) * (8 if k in (DARK, TEETH) else 2)
            middle = np.median(pixels, axis=0)
            spread = 1.3 * np.median(np.abs(pixels - middle), axis=0)
            mean[k] = (len(pixels) * middle + held * start.mean[k]) / (len(pixels) + held)
            variance = (len(pixels) * spread**2 + held * start.deviation[k] ** 2) / (len(pixels) + held)
            deviation[k] = np.maximum(np.sqrt(variance), floor)
        upper = float(np.clip(np.median(found[:, 1] - found[:, 0]), 4, 14))
        lower = float(np.clip(np.median(found[:, 3] - found[:, 2]), 6, 18))
        lengths[0], lengths[2] = bell(ticks, upper, 2.5), bell(ticks, lower, 3.0)
    return Colours(mean, deviation), lengths
