"""Pass 2 of a still image's life: eyelids drawn over the eyes, head and shoulders moved a little. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.canvas import HOST, Canvas, Pixels
from heygemd.engines.rewrite.lively import BODY_BOX
from heygemd.engines.rewrite.window import Window
from heygemd.faces import canon
from heygemd.faces.eyes import Lids

Picture = NDArray[np.float32]
LASHES, ABOVE = 2.2, 3.0
"""Canonical pixels below and above the top of the lashes that move with the lid without being stretched."""
FOLD = 14.0
"""Canonical pixels above the upper lashes from where skin comes down; the brow lies beyond."""
GATHER = 2.2
"""More of the lid's new skin comes from its edge than from under the brow: what lay in the fold appears."""
COARSE = 8
RISE_PX, SWAY_PX = 0.9, 1.4
"""Canonical pixels by which breathing lifts the shoulders and swaying moves the top of the head, at most."""


def close_lids(canvas: Canvas, picture: Pixels, matrix: canon.Affine, lids: tuple[Lids, Lids], closed: float) -> None:
    """Draw both upper lids down by `closed` (0..1) of the way, in place. `matrix`: canonical→picture."""
    for eye in lids:
        _close(canvas, picture, matrix, eye, closed)


def _close(canvas: Canvas, picture: Pixels, matrix: canon.Affine, eye: Lids, closed: float) -> None:
    reach = eye.width / 2 + 6.0
    middle = eye.pupil[0] + eye.side * float(eye.arcs[0] + eye.arcs[1]) / 2
    rect = (middle - reach, eye.pupil[1] - 30.0, middle + reach, eye.pupil[1] + 18.0)
    window = Window(HOST, matrix, rect, picture.shape)  # an eye is small: only what is made of it goes to the canvas
    x, y = window.points()
    t = eye.along(x)
    top, bottom = eye.edges(t)
    # Towards the corners the lids meet anyway; beyond them nothing moves.
    bow = np.sqrt(np.clip(1.0 - t * t, 0.0, 1.0))
    lashes = LASHES * bow
    travel = np.float32(closed) * np.maximum(bottom + 0.8 * bow - top - lashes, 0.0)
    edge = top + travel
    height = FOLD + travel
    up = np.clip((edge - ABOVE * bow - y) / height, 0.0, 1.0)
    # What comes down may not turn over: the map stays monotonous.
    power = np.minimum(GATHER, 0.9 * height / np.maximum(travel, 0.1))
    shift = travel * (1.0 - up) ** power
    px, py = window.pixels()
    a = matrix.astype(np.float32)
    lid = canvas.cubic(picture, canvas.put(px - a[0, 1] * shift), canvas.put(py - a[1, 1] * shift))
    soft = max(0.7, 0.9 / canon.scale_of(matrix))
    cover = np.clip((edge + lashes - y) / soft + 0.5, 0.0, 1.0) * np.clip(travel / 0.5, 0.0, 1.0)
    # The lid throws a shadow on the eye.
    shade = 1.0 - 0.25 * np.exp(-np.maximum(y - edge - lashes, 0.0) / 2.0) * np.clip(travel / 2.0, 0.0, 1.0)
    shade = np.where(y < bottom, shade, 1.0)
    shaded = picture[window.slices] * canvas.put(shade[..., None])
    picture[window.slices] = shaded + canvas.put(cover[..., None]) * (lid - shaded)


def breathe(
    canvas: Canvas,
    picture: Pixels,
    matrix: canon.Affine,
    frame: tuple[float, float, float, float],
    breath: float,
    sway: float,
) -> Pixels:
    """The picture with head and shoulders moved. `frame`: left, top, right, bottom of the whole source picture, in
    pixels of this one; nothing moves there, nor on the edge of BODY_BOX."""
    h, w = picture.shape[:2]
    # The field is smooth: worked out on every eighth pixel of both directions.
    px = np.arange(0, w + COARSE, COARSE, dtype=np.float32)[None]
    py = np.arange(0, h + COARSE, COARSE, dtype=np.float32)[:, None]
    back = canon.invert(matrix).astype(np.float32)
    x = back[0, 0] * px + back[0, 1] * py + back[0, 2]
    y = back[1, 0] * px + back[1, 1] * py + back[1, 2]
    x0, y0, x1, y1 = (np.float32(v) for v in BODY_BOX)
    fade = _soft((x - x0) / 70) * _soft((x1 - x) / 70) * _soft((y - y0) / 60) * _soft((y1 - y) / 60)
    margin = np.float32(0.12 * min(frame[2] - frame[0], frame[3] - frame[1]))
    left, top, right, bottom = (np.float32(v) for v in frame)
    fade *= _soft((px - left) / margin) * _soft((right - px) / margin)
    fade *= _soft((py - top) / margin) * _soft((bottom - py) / margin)
    scale = np.float32(canon.scale_of(matrix))
    dx = fade * (scale * np.float32(SWAY_PX * sway)) * np.clip((230.0 - y) / 230.0, 0.0, 1.3)
    dy = fade * (scale * np.float32(RISE_PX * breath)) * np.clip(0.55 + 0.45 * (y - 200.0) / 60.0, 0.55, 1.0)
    coarse = np.stack([px + dx, py + dy], axis=-1)
    fine = canvas.sample(coarse, np.array([[COARSE, 0.0, 0.0], [0.0, COARSE, 0.0]]), (w, h))
    return canvas.cubic(picture, fine)


def _soft(t: NDArray[Any]) -> Picture:
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
