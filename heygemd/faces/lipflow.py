"""How a mouth moves, by optical flow against one frame of its own: what lip curves miss, and its width.

Curves say how wide open a mouth is, in pixels, but quiver; flow is smooth and true in shape, but knows no zero.
Together they follow independent landmarks with r .79 to .96 (opening) and .38 to .90 (width) on ten half clips of five
speakers, where curves alone reach .62 to .93 in opening.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter

from heygemd.core.heartbeat import beat
from heygemd.faces.lips import CROP_BOX, HEIGHT, WIDTH, LipCurves, colours_of

_BESIDE, _ON = (0, 14, 9), (-6, 8, 7)
"""Windows at a corner of the mouth: from, to (pixels outward), half height."""


@dataclass(frozen=True)
class MouthMotion:
    """`opening`: (n,) canonical pixels, at least 0 · `width`: (n,) in deviations of its own, 0 the mean.

    What the opening is made of: `by_curves` (n,), the lips' edges; `by_flow` (n,), the lower lip against the upper one.
    """

    opening: NDArray[np.float64]
    width: NDArray[np.float64]
    by_curves: NDArray[np.float64]
    by_flow: NDArray[np.float64]


def mouth_motion(rows: NDArray[np.int64], crop: Callable[[int], NDArray[np.uint8]], curves: LipCurves) -> MouthMotion:
    """The motion of one shot's mouth. `crop(frame)`: CROP_BOX with the mouth held in place; `curves`: of `rows`."""
    rough = curves.opening if len(rows) < 3 else median_filter(curves.opening, 3, mode="nearest")
    flow = cv2.DISOpticalFlow_create(  # type: ignore[attr-defined] # not in its stubs
        cv2.DISOPTICAL_FLOW_PRESET_FAST
    )
    corners = np.rint(curves.corners - CROP_BOX[0]).astype(int)
    middle = int(corners.mean())
    lips = np.median(curves.rows[:, curves.rows.shape[1] // 2], axis=0) - CROP_BOX[1]
    level = int(np.rint((lips[1] + lips[2]) / 2))
    # Half open: every other look of the mouth is near it.
    reference = _grey(crop(int(rows[np.argmin(np.abs(rough - np.percentile(rough, 35)))])))
    lowered, spread, beside, on = (np.zeros(len(rows)) for _ in range(4))
    for i, row in enumerate(rows):
        beat()
        picture = crop(int(row))
        moved = flow.calc(reference, _grey(picture), None)
        lower = moved[_span(level + 10, level + 26, HEIGHT), middle - 10 : middle + 10, 1]
        upper = moved[_span(level - 14, level - 4, HEIGHT), middle - 10 : middle + 10, 1]
        lowered[i] = np.median(lower) - np.median(upper)
        beside[i] = _apart(moved, corners, level, _BESIDE)
        on[i] = _apart(moved, corners, level, _ON)
        spread[i] = _spread(picture, lips, float(corners.mean()))
    opening = rough
    if len(rows) > 12 and float(np.std(rough)) > 0.3:
        even = _deviations(rough) + _deviations(lowered)
        opening = np.maximum(rough.mean() + float(np.std(rough)) * _deviations(even), 0.0)
    calm = median_filter(spread, 3, mode="nearest") if len(rows) >= 3 else spread
    width = _deviations(_deviations(calm) + _deviations(beside) + _deviations(on))
    return MouthMotion(opening, width, rough, lowered)


def _apart(moved: NDArray[np.float32], corners: NDArray[np.int64], level: int, window: tuple[int, int, int]) -> float:
    """How much further apart the corners are than in the reference."""
    start, stop, half = window
    rows = _span(level - half, level + half, HEIGHT)
    left = moved[rows, _span(corners[0] - stop, corners[0] - start, WIDTH), 0]
    right = moved[rows, _span(corners[1] + start, corners[1] + stop, WIDTH), 0]
    return float(np.median(right) - np.median(left))


def _spread(picture: NDArray[np.uint8], lips: NDArray[np.float64], middle: float) -> float:
    """How far redness and darkness of the mouth reach to the sides, as a root mean square."""
    ratio, light = colours_of(picture)
    rows = _span(int(lips[0]) - 2, int(lips[3]) + 4, HEIGHT)
    red = np.percentile(ratio[rows], 85, axis=0) - np.percentile(ratio[rows], 25, axis=0)
    dark = np.percentile(light[rows], 60, axis=0) - np.percentile(light[rows], 5, axis=0)
    seen = gaussian_filter1d(red + dark, 1.5)
    x = np.arange(WIDTH) - middle
    weight = np.clip(seen - np.percentile(seen, 30), 0.0, None) * (np.abs(x) < 48)
    return float(np.sqrt((weight * x * x).sum() / max(float(weight.sum()), 1e-6)))


def _span(start: int, stop: int, size: int) -> slice:
    """Never empty, inside the crop."""
    low = int(np.clip(start, 0, size - 2))
    return slice(low, int(np.clip(stop, low + 1, size)))


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6))
