"""Where the mouth sits in each frame, against the eyes that the tracker holds on to.

When a head turns or nods, the mouth moves against the eyes. The base of the nose and the skin above the lips go with
the mouth and hardly move in speech, so their place says where the mouth is.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from heygemd.core.heartbeat import beat
from heygemd.faces.lips import CROP_BOX, HEIGHT, WIDTH

Crop = Callable[[int], NDArray[np.uint8]]
REACH = 14
"""Canonical pixels that a mouth may be away from where the reference has it."""


def follow_mouth(
    frames: NDArray[np.int64], crop: Crop, reference: int, centre: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shifts (n, 2) against frame `reference`, and how well each fits (n,), -1..1.

    `crop(frame)`: the picture of CROP_BOX, BGR. `centre`: middle of the mouth in crop pixels.
    """
    x = int(np.clip(centre[0], 28 + REACH, WIDTH - 28 - REACH))
    low = int(np.clip(centre[1] - 8, 24, 60))
    top = 10
    left, right = x - 28, x + 28
    template = _plain(crop(reference))[top:low, left:right]
    found = np.zeros((len(frames), 2))
    match = np.zeros(len(frames))
    for i, index in enumerate(frames):
        beat()
        area = _plain(crop(int(index)))[: low + REACH, left - REACH : right + REACH]
        scores = cv2.matchTemplate(area, template, cv2.TM_CCOEFF_NORMED)
        _, match[i], _, (px, py) = cv2.minMaxLoc(scores)
        found[i] = px + _peak(scores[py], px) - REACH, py + _peak(scores[:, px], py) - top
    if len(frames) >= 5:
        found = median_filter(found, (5, 1), mode="nearest")
    return found, match


def shifted(crop: Crop, shifts: dict[int, NDArray[np.float64]]) -> Crop:
    """Crops with the mouth brought to where the reference frame has it."""

    def one(frame: int) -> NDArray[np.uint8]:
        dx, dy = (float(v) for v in shifts[frame])
        matrix = np.array([[1.0, 0.0, -dx], [0.0, 1.0, -dy]])
        moved = cv2.warpAffine(crop(frame), matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.uint8)

    return one


def _plain(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.0), np.float32)


def _peak(scores: NDArray[np.float32], at: int) -> float:
    """Offset of the top of the parabola through three scores."""
    if not 0 < at < len(scores) - 1:
        return 0.0
    a, b, c = (float(v) for v in scores[at - 1 : at + 2])
    bend = a - 2 * b + c
    return float(np.clip(0.5 * (a - c) / bend, -0.5, 0.5)) if bend < -1e-9 else 0.0


assert CROP_BOX[2] - CROP_BOX[0] > 2 * (28 + REACH)  # noqa: S101  the template and its reach fit into a crop
