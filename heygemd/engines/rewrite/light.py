"""How the light on a face has changed since its resting frame, told by small pictures of the skin around the mouth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.canvas import Canvas, Pixels
from heygemd.engines.rewrite.inside import KEY_BOX
from heygemd.faces import canon

Picture = NDArray[np.float32]
SIZE = (44, 40)
"""Columns and rows of the picture of KEY_BOX in which colours of reference and frame are compared."""
STEP = (KEY_BOX[2] - KEY_BOX[0]) / SIZE[0], (KEY_BOX[3] - KEY_BOX[1]) / SIZE[1]
"""Canonical pixels from one of its pixels to the next."""


def coarse(image: Picture, matrix: canon.Affine) -> Picture:
    """What of a frame lies under KEY_BOX, small. `matrix`: canonical → frame."""
    to_canonical = np.array([[STEP[0], 0.0, KEY_BOX[0] + STEP[0] / 2], [0.0, STEP[1], KEY_BOX[1] + STEP[1] / 2]])
    soft = cv2.blur(image, (max(1, round(STEP[0] * canon.scale_of(matrix))),) * 2)
    out: Picture = cv2.warpAffine(
        soft,
        canon.compose(matrix, to_canonical),
        SIZE,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return out


def points() -> tuple[Picture, Picture]:
    """Canonical x (1, columns) and y (rows, 1) of the small picture's pixels."""
    x = KEY_BOX[0] + (np.arange(SIZE[0])[None] + 0.5) * (KEY_BOX[2] - KEY_BOX[0]) / SIZE[0]
    y = KEY_BOX[1] + (np.arange(SIZE[1])[:, None] + 0.5) * (KEY_BOX[3] - KEY_BOX[1]) / SIZE[1]
    return x.astype(np.float32), y.astype(np.float32)


def at(canvas: Canvas, field: Picture, left: Pixels, top: Pixels, *, beyond: bool) -> Pixels:
    """The small `field` at places so many canonical pixels right of and under KEY_BOX's corner; `beyond` as in
    `Canvas.linear`."""
    return canvas.linear(canvas.put(field), left / STEP[0] - 0.5, top / STEP[1] - 0.5, beyond=beyond)


def change(now: Picture, then: Picture, ring: Picture) -> Picture:
    """What the light adds to colours since `then`: first as a factor that varies evenly over the face, then what is
    left of it. `ring`: how much each pixel counts as skin beside the mouth."""
    relit = then * (even_gain(now, then, ring) - 1.0)
    return np.asarray(relit + _light(now - then - relit, ring), np.float32)


def _light(difference: Picture, ring: Picture) -> Picture:
    """A smooth field that has the ring's colour differences, without what is not skin on either side."""
    far = np.abs(difference).mean(axis=2)
    weight = ring * np.exp(-((far / 22.0) ** 2))
    stacked = np.dstack([difference * weight[..., None], weight])
    wide = cv2.GaussianBlur(stacked, (0, 0), 5.0, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(wide[..., :3] / (wide[..., 3:] + 0.02), np.float32)


def even_gain(now: Picture, then: Picture, ring: Picture) -> Picture:
    """(rows, columns, 1): a factor between two small pictures whose logarithm is a plane, by the skin of the ring.

    Where a third of the ring is neck or background, or a beard moved, the fit leaves it aside."""
    rows, columns = ring.shape
    used = ring > 0.3
    ratio = np.log((now[used].sum(axis=1) + 12.0) / (then[used].sum(axis=1) + 12.0)).astype(np.float64)
    y, x = (v / n * 2 - 1 for v, n in zip(np.nonzero(used), (rows, columns), strict=True))
    basis = np.stack([np.ones(len(x)), x, y], axis=1)
    plane = np.array([float(np.median(ratio)), 0.0, 0.0])
    hold = np.diag([0.0, 0.15, 0.3]) * len(x) ** 0.5
    for width in (0.4, 0.25, 0.15, 0.15):
        weight = ring[used] / (1 + ((basis @ plane - ratio) / width) ** 2)
        left = np.vstack([basis * weight[:, None], hold])
        plane = np.linalg.lstsq(left, np.concatenate([ratio * weight, np.zeros(3)]), rcond=None)[0]
    at_x = np.arange(columns)[None] / columns * 2 - 1
    at_y = np.arange(rows)[:, None] / rows * 2 - 1
    level = plane[0] + plane[1] * at_x + plane[2] * at_y
    return np.asarray(np.exp(np.clip(level, -1.2, 1.2)), np.float32)[..., None]


def gain(change: Picture, even: Picture) -> Picture:
    """What a difference in the light of the skin is as a factor, for what lies behind the lips."""
    return np.clip((even + change) / np.maximum(even, 8.0), 0.4, 2.0)
