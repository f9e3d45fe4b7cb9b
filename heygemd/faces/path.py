"""The best way through a picture from side to side, one row in each column: dynamic programming (Viterbi)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_path(score: NDArray[np.float64], most: int, cost: float) -> NDArray[np.int64]:
    """(w,) the row in each column of the path through `score` (h, w) that gains most; it moves by up to `most` rows
    from column to column, at `cost` each."""
    h, w = score.shape
    total = score[:, 0].copy()
    backs = np.zeros((w, h), np.int64)
    padded = np.full(h + 2 * most, -np.inf)
    for column in range(1, w):
        padded[most : most + h] = total
        options = np.stack([padded[most + d : most + d + h] - cost * abs(d) for d in range(-most, most + 1)])
        choice = options.argmax(axis=0)
        backs[column] = choice - most
        total = options[choice, np.arange(h)] + score[:, column]
    path = np.zeros(w, np.int64)
    path[-1] = int(total.argmax())
    for column in range(w - 1, 0, -1):
        path[column - 1] = path[column] + backs[column][path[column]]
    return path
