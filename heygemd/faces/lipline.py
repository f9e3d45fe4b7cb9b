"""The line between lips that hardly part: a dark or red ridge, followed from the middle of the mouth to its ends.

Columns of a segment model (`lips.measure`) say where it is to within a few pixels; a lip line is an arch, and a warp
that opens the mouth along a line which is two pixels off takes a strip of one lip along with the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.faces.lips import CROP_BOX, HALF_WIDTH, HEIGHT, WIDTH, colours_of
from heygemd.faces.path import best_path
from heygemd.faces.segment import Floats, bell

Doubles = NDArray[np.float64]
_STEP_COST = 0.02
_LINE_PX = 2.5
_SURE = 0.7
"""A mouth is at least so wide, in usual half widths to each side."""


@dataclass(frozen=True)
class LipLine:
    """Canonical pixels. `x`, `y` (n,): a point in every column from corner to corner; `strength` (n,): how much the
    pixels there look like the line between lips; `corners` (2, 2): x and y of both ends; `parting`: how far the lips
    part in the middle, by the width of what is dark between them; of use for nearly closed mouths only."""

    x: Doubles
    y: Doubles
    strength: Doubles
    corners: Doubles
    parting: float


def line_in(
    crops: NDArray[np.uint8], line: Callable[[Floats], Floats], near: tuple[float, float], closed: bool
) -> LipLine:
    """The line in crops (n, 112, 128, 3) of the same look.

    `line`: y of it at x, roughly; `near`: the corners as `measure` has them, right to within about a dozen pixels;
    `closed`: lips meet nearly, so that it is one ridge all the way. In a smile it is the dark corners.
    """
    ridge = np.asarray(np.mean([_ridge(crop) for crop in crops], axis=0), np.float32)
    lips = np.asarray(np.mean([_between_lips(crop) for crop in crops], axis=0), np.float32)
    middle = (near[0] + near[1]) / 2 - CROP_BOX[0]
    start = round(float(np.clip(middle, 30, WIDTH - 31)))
    level = float(line(np.array([start + CROP_BOX[0]], np.float32))[0]) - CROP_BOX[1]
    if closed:
        usual = line(np.arange(CROP_BOX[0], CROP_BOX[2], dtype=np.float32)) - CROP_BOX[1]
        ridge, level = _held(ridge, lips, np.asarray(usual, np.float32), start)
    ends, paths = zip(*(_line_end(ridge, start, round(level), sign) for sign in (-1, 1)), strict=True)
    centre = (ends[0] + ends[1]) / 2
    half = 0.8 * (ends[1] - ends[0]) / 2 + 0.2 * HALF_WIDTH
    corners = [centre - half, centre + half]
    reached = [int(np.clip(abs(x - start), 0, len(path) - 1)) for x, path in zip(corners, paths, strict=True)]
    heights = [float(np.mean(path[max(0, k - 2) : k + 1])) for k, path in zip(reached, paths, strict=True)]
    left, right = (path[: k + 1] for k, path in zip(reached, paths, strict=True))
    x = np.arange(start - len(left) + 1, start + len(right))
    y = np.concatenate([left[:0:-1], right]).astype(np.float64)
    inside = (x >= 0) & (x < WIDTH)
    x, y = x[inside], y[inside]
    corner = np.array(CROP_BOX[:2], np.float64)
    return LipLine(
        x + corner[0],
        _finer(ridge, x, y) + corner[1],
        np.asarray(ridge[y.astype(int), x], np.float64),
        np.stack([corners, heights], axis=1) + corner,
        _parting(crops, x, y, start),
    )


def _held(ridge: Floats, lips: Floats, usual: Floats, start: int) -> tuple[Floats, float]:
    """The ridge without what leaves the line: a moustache's edge, the shadow under the lower lip. Also its y at
    `start`. `usual` (columns,): about where it runs."""
    reach = int(_SURE * HALF_WIDTH)
    sure = np.arange(max(2, start - reach), min(WIDTH - 2, start + reach + 1))
    path = _path((ridge * (0.4 + lips))[:, sure], usual[sure]).astype(np.float64)
    columns = np.arange(WIDTH)
    beyond = np.maximum(np.maximum(sure[0] - columns, columns - sure[-1]), 0)
    middle = np.interp(columns, sure, path)
    # Beyond where a mouth is for sure it goes on as it came, more or less.
    left, right = (path[:8].mean() - path[0]) / 3.5, (path[-1] - path[-8:].mean()) / 3.5
    middle += 0.5 * beyond * np.where(columns < start, -left, right)
    # Corners drop suddenly rather than rise: what rises is a moustache.
    off = np.arange(HEIGHT)[:, None] - middle[None]
    loose = np.where(off > 0, 2.0 + 0.7 * beyond[None], 1.5 + 0.3 * beyond[None])
    near = np.exp(-0.5 * (off / loose) ** 2)
    return np.asarray(ridge * near, np.float32), float(path[int(np.argmin(np.abs(sure - start)))])


def _ridge(crop: NDArray[np.uint8]) -> Floats:
    """How much each pixel looks like the line between lips: darker or redder than what is above and below."""
    ratio, light = colours_of(crop)
    out = np.zeros((HEIGHT, WIDTH), np.float32)
    here = slice(6, HEIGHT - 6)
    dark = np.minimum(light[:-12], light[12:]) - light[here]
    red = ratio[here] - np.maximum(ratio[:-12], ratio[12:])
    out[here] = np.maximum(dark, 0) + 0.7 * np.maximum(red, 0)
    return np.asarray(cv2.blur(out, (3, 1)), np.float32)


def _parting(crops: NDArray[np.uint8], x: NDArray[np.int64], y: Doubles, start: int) -> float:
    middle = np.abs(x - start) < 0.4 * HALF_WIDTH
    rows = np.clip(y[middle].astype(int)[:, None] + np.arange(-7, 8)[None], 0, HEIGHT - 1)
    widths = []
    for crop in crops:
        light = cv2.GaussianBlur(crop, (0, 0), 0.8).astype(np.float32) @ np.array([0.114, 0.587, 0.299], np.float32)
        across = light[rows, x[middle][:, None]]
        lowest = across[:, 5:10].min(axis=1)
        beside = np.minimum(across[:, :5].max(axis=1), across[:, 10:].max(axis=1))
        widths.append((across < (lowest + beside)[:, None] / 2).sum(axis=1))
    # A line without any width is blurred to about two pixels and a half.
    return max(0.0, float(np.median(widths)) - _LINE_PX)


def _between_lips(crop: NDArray[np.uint8]) -> Floats:
    """0..1: whether both above and below a pixel it is as red as lips are. Under the lower lip there is skin."""
    ratio, _ = colours_of(crop)
    skin, red = (float(v) for v in np.percentile(ratio[20:80, 24:104], (40, 95)))
    out = np.zeros((HEIGHT, WIDTH), np.float32)
    both = np.minimum(ratio[:-10], ratio[10:])
    out[5:-5] = np.clip((both - skin) / max(red - skin, 0.05), 0.0, 1.0)
    return np.asarray(cv2.blur(out, (5, 3)), np.float32)


def _path(score: Floats, usual: Floats) -> NDArray[np.int64]:
    """The row in each column of the path that gains most, from side to side; it bends by a row a column at most.

    `usual` (columns,): about where it runs."""
    rows = np.arange(HEIGHT)[:, None]
    score = score + np.float32(0.04) * bell((rows - usual[None]).astype(np.float64), 0.0, 4.0)
    return best_path(score.astype(np.float64), 1, _STEP_COST)


def _line_end(ridge: Floats, start: int, level: int, sign: int) -> tuple[float, NDArray[np.int64]]:
    """x where the ridge that leaves (`start`, `level`) to one side ends, and its y at every step from there on. It may
    bend by a pixel for each pixel."""
    reach = int(1.5 * HALF_WIDTH)
    steps = np.clip(start + sign * np.arange(reach + 1), 2, WIDTH - 3)
    begin = np.asarray(bell(np.arange(HEIGHT, dtype=np.float64), float(level), 3.0), np.float64)
    path = best_path(np.column_stack([begin, ridge[:, steps]]), 1, _STEP_COST)[1:]
    strength = ridge[path, steps].astype(np.float64)
    # The end is where going on gains no more; the usual width says the rest.
    usual = float(np.median(strength[: int(0.7 * HALF_WIDTH)]))
    gained = np.cumsum(strength / max(usual, 1e-3) - 0.5)
    prior = -0.5 * ((np.arange(reach + 1) - HALF_WIDTH) / 5.0) ** 2
    return float(start + sign * int(np.argmax(gained + prior))), path


def _finer(ridge: Floats, x: NDArray[np.int64], y: Doubles) -> Doubles:
    """Rows between pixels: the centre of gravity of the ridge within two of them."""
    rows = np.clip(y.astype(int)[:, None] + np.arange(-2, 3)[None], 0, HEIGHT - 1)
    weight = ridge[rows, x[:, None]].astype(np.float64) + 1e-4
    return np.asarray((weight * rows).sum(axis=1) / weight.sum(axis=1))
