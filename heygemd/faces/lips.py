"""Measuring a mouth without trained weights: where it is, how wide, and where the lips run in every frame.

Input are crops of the canonical frame (`CROP_BOX`, one pixel each). What carries it is log(red / green): lips have it
high, teeth lower than skin, at any exposure and, by and large, any complexion; the dark inside is told by luminance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from heygemd.faces import canon
from heygemd.faces.segment import Colours, Floats, bell, boundaries, learn, likelihoods

CROP_BOX = (64, 112, 192, 224)
"""x0, y0, x1, y1 in the canonical frame."""
WIDTH, HEIGHT = CROP_BOX[2] - CROP_BOX[0], CROP_BOX[3] - CROP_BOX[1]
COLUMNS = 13
SPAN = 1.2
"""Columns reach this far, in usual half widths of a mouth, to each side."""
HALF_WIDTH = 0.40 * canon.EYE_DISTANCE
_ABOVE, _BELOW = 24, 42
_WIDE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (21, 21))
_TALL = cv2.getStructuringElement(cv2.MORPH_RECT, (3, 25))


@dataclass(frozen=True)
class LipCurves:
    """Lips in n frames, in canonical pixels.

    `columns` (13,) x of the columns measured; `rows` (n, 13, 4) y of: top of the upper lip, its lower edge, upper edge
    of the lower lip, its bottom; `gain` (n, 13) how much likelier the column is lips than bare skin (nats);
    `corners` (2,) x of the mouth's corners over all frames.
    """

    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    gain: Floats
    corners: NDArray[np.float64]

    @property
    def opening(self) -> NDArray[np.float64]:
        """(n,) inner opening in the middle of the mouth, canonical pixels."""
        middle = self.rows[:, COLUMNS // 2 - 1 : COLUMNS // 2 + 2]
        return np.asarray(np.median(middle[:, :, 2] - middle[:, :, 1], axis=1))


def colours_of(crop: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """log(red / green) and log luminance of a BGR crop, each (h, w)."""
    soft = cv2.GaussianBlur(crop, (0, 0), 0.8).astype(np.float32) + 4.0
    ratio = np.log(soft[..., 2] / soft[..., 1])
    light = np.log(0.114 * soft[..., 0] + 0.587 * soft[..., 1] + 0.299 * soft[..., 2])
    return ratio, light


def centre_of(crops: NDArray[np.uint8], eyes: canon.Points) -> NDArray[np.float64]:
    """Middle of the mouth over all crops, in pixels of the crop: red and darker than its surroundings, near its place.

    `eyes`: pupils in canonical pixels, which say where a mouth is to within a twelfth of their distance.
    """
    total = np.zeros((HEIGHT, WIDTH), np.float64)
    for crop in crops[:: max(1, len(crops) // 60)]:
        ratio, light = colours_of(crop)
        red = ratio - cv2.morphologyEx(ratio, cv2.MORPH_OPEN, _TALL)
        dark = cv2.morphologyEx(light, cv2.MORPH_CLOSE, _WIDE) - light
        for feature in (red, dark):
            total += np.clip(feature / (np.percentile(feature[25:70, 20:108], 98) + 1e-3), 0, 1)
    total /= total.max()
    total = np.clip(total - np.median(total[20:75, 10:118]), -0.2, 1.0)
    across = eyes[1] - eyes[0]
    down = np.array([-across[1], across[0]])
    place = eyes.mean(axis=0) + canon.MOUTH_DROP * down - np.array(CROP_BOX[:2])
    # Something as wide and as tall as a mouth, with plain skin around it; teeth in the middle do not matter.
    response = cv2.GaussianBlur(total, (0, 0), sigmaX=18.0, sigmaY=8.0)
    response -= 0.6 * cv2.GaussianBlur(total, (0, 0), sigmaX=23.0, sigmaY=19.0)
    response /= response[25:65, 34:94].max() + 1e-6
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    response -= 0.12 * (((xs - place[0]) / 6.0) ** 2 + ((ys - place[1]) / 6.0) ** 2)
    inside = response[24 : HEIGHT - _BELOW, 30 : WIDTH - 30]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return np.array([column + 30.0, row + 24.0])


def measure(crops: NDArray[np.uint8], eyes: canon.Points) -> LipCurves:
    """Lip curves of every crop (n, 112, 128, 3) BGR of one shot."""
    centre = centre_of(crops, eyes)
    few = len(crops) < 5
    top = max(0, int(centre[1]) - _ABOVE)
    bottom = min(HEIGHT, int(centre[1]) + _BELOW)
    offsets = np.linspace(-SPAN, SPAN, COLUMNS)
    columns = np.clip(centre[0] + offsets * HALF_WIDTH, 3, WIDTH - 4)
    lines = np.stack([_lines(crop, columns, top, bottom) for crop in crops])
    middle = COLUMNS // 2
    centre_lines = lines[:, middle - 1 : middle + 2].reshape(-1, bottom - top, 2)
    start = _first_colours(centre_lines)
    at = np.arange(bottom - top + 1.0) + top - centre[1]
    ticks = np.arange(bottom - top + 1.0)
    # Neighbouring pixels say the same: what looks like a very long mouth is nearly always a beard.
    gap = np.asarray(-0.12 * ticks - np.where(ticks > 0, 0.5, 0.0) - 0.06 * np.maximum(ticks - 20, 0) ** 2, np.float32)
    sample = centre_lines[:: max(1, len(centre_lines) // 500)]
    colours, lengths = learn(sample, start, _places(at, 1.0, few), [bell(ticks, 8.0, 3.0), gap, bell(ticks, 11.0, 4.0)])
    n = len(crops)
    likely, _ = likelihoods(lines.reshape(n * COLUMNS, bottom - top, 2), colours)
    likely = likely.reshape(n, COLUMNS, bottom - top, 5)
    thick = [float(lengths[0].argmax()), float(lengths[2].argmax())]
    thin = np.sqrt(np.maximum(0.15, 1 - 0.8 * offsets**2))

    def lip_lengths(column: int) -> list[Floats]:
        upper, lower = (max(3.0, t * thin[column]) for t in thick)
        taper = np.asarray(gap - 0.2 * ticks * (1 - thin[column]), np.float32)
        return [bell(ticks, upper, 2.5), taper, bell(ticks, lower, 3.0)]

    first = [
        boundaries(likely[:, c], _places(at - 2 * offsets[c] ** 2, float(thin[c]), few), lip_lengths(c))
        for c in range(COLUMNS)
    ]
    rows = np.stack([f[0] for f in first], axis=1).astype(np.float64)
    gain = np.stack([f[1] for f in first], axis=1)
    rows = _again(likely, np.broadcast_to(np.median(rows, axis=0), rows.shape), (3.5, 4.0, 7.0, 7.0), lip_lengths)
    near = median_filter(rows, (5, 3, 1), mode="nearest")
    loose = [bell(ticks, thick[0], 6.0), gap, bell(ticks, thick[1], 6.0)]
    rows = _again(likely, near, (2.5, 2.5, 2.5, 2.5), lambda _column: loose)
    corner = np.array(CROP_BOX[:2], np.float64)
    return LipCurves(
        columns + corner[0], _plausible(rows) + top + corner[1], gain, _corners(columns, gain, centre[0]) + corner[0]
    )


def _lines(crop: NDArray[np.uint8], columns: NDArray[np.float64], top: int, bottom: int) -> Floats:
    """(columns, t, 2): both colours along each column, averaged over five pixels across."""
    ratio, light = (cv2.blur(c[top:bottom], (5, 1)) for c in colours_of(crop))
    at = np.rint(columns).astype(int)
    return np.stack([ratio[:, at].T, light[:, at].T], axis=-1)


def _first_colours(lines: Floats) -> Colours:
    skin_light = float(np.median(lines[:, :10, 1]))
    skin_ratio = float(np.median(np.concatenate([lines[:, :8, 0], lines[:, -12:, 0]], axis=1)))
    red = max(float(np.median(np.percentile(lines[..., 0], 88, axis=1))) - skin_ratio, 0.08)
    reddish = lines[..., 1][lines[..., 0] > skin_ratio + 0.6 * red]
    lip_light = float(np.median(reddish)) if reddish.size else skin_light  # a picture in black and white
    dark = min(float(np.percentile(lines[..., 1], 1.5)) + 0.1, lip_light - 0.6)
    mean = [
        [skin_ratio, skin_light],
        [skin_ratio + 0.8 * red, lip_light - 0.1],
        [skin_ratio + 0.8 * red, dark],
        [skin_ratio - 0.15 * red, skin_light - 0.1],
        [skin_ratio + 0.7 * red, max(lip_light, skin_light - 0.25)],
        [skin_ratio, skin_light - 0.1],
    ]
    deviation = [
        [0.35 * red, 0.2],
        [0.4 * red, 0.25],
        [0.8 * red, 0.3],
        [0.3 * red, 0.3],
        [0.4 * red, 0.25],
        [0.35 * red, 0.25],
    ]
    return Colours(np.array(mean), np.array(deviation))


def _places(at: NDArray[np.float64], thin: float, few: bool) -> list[Floats]:
    """Where the four boundaries are likely, by distance from the mouth's centre.

    `few`: one picture or hardly more, without other frames to correct it. A smile's upper lip is then held nearer to
    its place, or the shadow under the nose is taken for it, and lip and skin between them for the mouth.
    """
    upper, edge = (3.5, 4.5) if few else (6.0, 7.0)
    spec = ((-9.0 * thin, upper, 1.0), (-2.0, edge, 1.0), (5.0 * thin, 9.0, 0.7), (15.0 * thin, 9.0, 0.7))
    return [(weight * bell(at, centre, width))[None] for centre, width, weight in spec]


def _again(
    likely: Floats, near: NDArray[np.float64], widths: tuple[float, ...], lip_lengths: Callable[[int], list[Floats]]
) -> NDArray[np.float64]:
    ticks = np.arange(likely.shape[2] + 1.0)[None]
    rows = [
        boundaries(likely[:, c], [bell(ticks, near[:, c, k, None], w) for k, w in enumerate(widths)], lip_lengths(c))[0]
        for c in range(likely.shape[1])
    ]
    return np.stack(rows, axis=1).astype(np.float64)


def _plausible(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns whose lower lip leapt to the chin take what their neighbours in time and place have."""
    if len(rows) < 5:
        return rows
    usual = median_filter(rows, (25, 3, 1), mode="nearest")
    leapt = np.abs(rows[:, :, 3] - usual[:, :, 3]) > 14
    opened = rows[:, :, 2] - rows[:, :, 1] > 16
    shares = (leapt & opened).mean(axis=1, keepdims=True)
    # A mouth that opens wide does so in most columns and moves the bottom of the lip; a lone leap is an error.
    wrong = leapt & (shares < 0.5)
    return np.where(wrong[:, :, None], usual, rows)


def _corners(columns: NDArray[np.float64], gain: Floats, middle: float) -> NDArray[np.float64]:
    mean = np.median(gain, axis=0)
    level = 0.2 * max(float(mean.max()), 1.0)
    fine = np.linspace(columns[0], columns[-1], 241)
    lips = np.interp(fine, columns, mean) > level
    centre = int(np.argmin(np.abs(fine - middle)))
    left = centre
    while left > 0 and lips[left - 1]:
        left -= 1
    right = centre
    while right < len(fine) - 1 and lips[right + 1]:
        right += 1
    # Lips fade before they meet, by about 3 px; the proportions of faces are worth as much as the evidence.
    seen = np.array([fine[left] - 3.0, fine[right] + 3.0])
    usual = np.array([middle - HALF_WIDTH, middle + HALF_WIDTH])
    return np.asarray((seen + usual) / 2, np.float64)
