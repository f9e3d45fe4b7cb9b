"""What landmarks of a few frames teach about all of them: how far the mouth is open, in pixels.

Curves and flow follow a mouth well, but their pixels are a fifth too small on average and off by up to six; landmarks
cost a good part of a second a frame. So a few frames are looked at, and the rest is read from them by a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heygemd.faces.lipflow import MouthMotion

Doubles = NDArray[np.float64]

LEAST_FRAMES = 8
"""Fewer say too little."""
LEAST_R = 0.4
"""Landmarks that agree less than this with what the picture shows follow something else, or nothing. Ten halves of real
clips have .77 and more."""
_EVEN_WEIGHT = 16.0
"""How strongly curves and flow are held to equal shares, in frames."""


@dataclass(frozen=True)
class Fit:
    """`opening` (n,) canonical pixels in every frame; `error` (canonical pixels), how far from it the landmarks are in
    the middle of their frames, and `r`, how well they agree with what curves and flow had said."""

    opening: Doubles
    error: float
    r: float


def frames_to_look_at(at: NDArray[np.int64], opening: Doubles, likely: Sequence[int], most: int) -> list[int]:
    """Of the rows `at`, up to `most`: those in `likely`, and then equally many spread over time and over the openings.

    `opening` (n,): as measured so far, for every row.
    """
    if len(at) <= most:
        return [int(row) for row in at]
    wanted = [int(row) for row in likely][: most // 2]
    times = max(2, (most - len(wanted)) // 2)
    spread = [int(at[k]) for k in np.unique(np.rint(np.linspace(0, len(at) - 1, times)).astype(int))]
    picked = list(dict.fromkeys([*spread, *wanted]))
    taken = set(picked)
    left = [int(at[k]) for k in np.argsort(opening[at], kind="stable") if int(at[k]) not in taken]
    room = min(most - len(picked), len(left))
    return picked + [left[k] for k in np.unique(np.rint(np.linspace(0, len(left) - 1, room)).astype(int))]


def fit_opening(motion: MouthMotion, frames: Sequence[int], seen: Doubles) -> Fit:
    """The opening in every frame from curves and flow, as landmarks have it in some. `seen` (k,): theirs."""
    rows = np.asarray(frames, np.int64)
    r = _correlation(motion.opening[rows], seen)
    plain = np.column_stack([np.ones_like(motion.opening), motion.opening])
    slope = max(float(_solved(plain[rows], seen, np.zeros(2), np.full(2, 1e-6))[1]), 0.0)
    parts = np.column_stack([_deviations(motion.by_curves), _deviations(motion.by_flow)])
    even = slope * float(np.std(motion.opening)) / max(float(np.std(parts.sum(axis=1))), 1e-6)
    full = np.column_stack([np.ones(len(parts)), parts])
    weights = np.array([1e-6, _EVEN_WEIGHT, _EVEN_WEIGHT])
    solution = _solved(full[rows], seen, np.array([0.0, even, even]), weights)
    opening = np.maximum(full @ solution, 0.0)
    return Fit(opening, float(np.median(np.abs(opening[rows] - seen))), r)


def _solved(x: Doubles, y: Doubles, expected: Doubles, held: Doubles) -> Doubles:
    """Least squares that leaves outliers aside (Huber) and is `held` to what is `expected`."""
    weight = np.ones(len(y))
    solution: Doubles = expected
    for _ in range(10):
        left = (x * weight[:, None]).T @ x + np.diag(held)
        solution = np.asarray(np.linalg.solve(left, (x * weight[:, None]).T @ y + held * expected))
        off = np.abs(y - x @ solution)
        usual = 1.5 * max(1.4826 * float(np.median(off)), 0.5)
        weight = usual / np.maximum(off, usual)
    return solution


def _correlation(a: Doubles, b: Doubles) -> float:
    return float(np.mean(_deviations(a) * _deviations(b)))


def _deviations(values: Doubles) -> Doubles:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6))
