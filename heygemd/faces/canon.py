"""The canonical face: one coordinate frame, 256 px square, in which every face has its eyes at the same place.

A canonical→source transform is a (2, 3) affine matrix: it takes canonical points to source pixels. The proportions are
those of adult faces: pupils 72 px apart, so that forehead, chin and cheeks lie inside the square.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZE = 256
EYES = np.array([[92.0, 80.0], [164.0, 80.0]])
"""Where the pupils are: the one on the left of the picture, then the one on the right."""
EYE_DISTANCE = 72.0
MOUTH_DROP = 1.03
"""From between the eyes down to the mouth, in distances between the eyes (.98 to 1.12 on the faces measured)."""
HAAR_EYES = np.array([[0.306, 0.402], [0.684, 0.394]])
"""Where the frontal cascade's box has the pupils, in widths and heights of the box (medians over six clips)."""

Points = NDArray[np.float64]
Affine = NDArray[np.float64]


def similarity(source: Points, target: Points) -> Affine:
    """The rotation, uniform scale and shift that takes two points to two others."""
    ds, dt = source[1] - source[0], target[1] - target[0]
    length = float(ds @ ds)
    a = float(ds @ dt) / length
    b = float(ds[0] * dt[1] - ds[1] * dt[0]) / length
    turn = np.array([[a, -b], [b, a]])
    return np.hstack([turn, (target[0] - turn @ source[0])[:, None]])


def apply(matrix: Affine, points: Points) -> Points:
    """(n, 2) points through a (2, 3) transform."""
    moved: Points = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def compose(outer: Affine, inner: Affine) -> Affine:
    """The transform that does `inner`, then `outer`."""
    return np.hstack([outer[:, :2] @ inner[:, :2], (outer[:, :2] @ inner[:, 2] + outer[:, 2])[:, None]])


def invert(matrix: Affine) -> Affine:
    """The way back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.hstack([back, (-back @ matrix[:, 2])[:, None]])


def scale_of(matrix: Affine) -> float:
    """How many target pixels one source pixel becomes: the root of the area ratio."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def from_eyes(eyes: Points) -> Affine:
    """Canonical→picture for pupils at `eyes` (2, 2), the picture's left one first."""
    return similarity(EYES, eyes)


def eyes_from_box(box: NDArray[np.float32]) -> Points:
    """Where the pupils are likely to be in a frontal detection box (x0, y0, x1, y1)."""
    low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    return low + HAAR_EYES * (high - low)
