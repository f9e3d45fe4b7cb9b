"""An open mouth's inside, cut out of a frame: where the lips' edges run, where the upper teeth end, what it is worth.

Everything is in texture pixels (`interior.SCALE` for one canonical pixel), whose place is fixed to the skull.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter1d

from heygemd.faces.lips import colours_of
from heygemd.faces.path import best_path

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LIP_ROWS = 4.0
"""So many rows that look more like lip than like teeth or dark end the search."""
_FAR, _NEAR = 20.0, 5.0
"""Rows by which the lips' edges may lie elsewhere than measured, and than their neighbours say."""
ROW = 0.72
"""A row of teeth is judged so far to each side, in half widths of the mouth."""


@dataclass(frozen=True)
class Tints:
    """(3,) RGB each, of the resting frame."""

    skin: Floats
    upper: Floats
    lower: Floats


@dataclass(frozen=True)
class Cut:
    """`texture` (h, w, 3) RGB uint8. `top`, `bottom` (w,): rows where the lips' edges run, equal where there is no
    inside. `edge` (3,): where the upper teeth end, a parabola in -1..1 across the mouth. `whole` 0..1: how much of
    the row of teeth shows; `uneven`: rows by which their edge leaves the parabola; `drop`: how much darker, in
    powers of e, it is below it; `turn`: of the head."""

    texture: NDArray[np.uint8]
    top: Doubles
    bottom: Doubles
    edge: Doubles
    whole: float
    uneven: float
    drop: float
    turn: float

    @property
    def known(self) -> NDArray[np.bool_]:
        """(h, w) a pixel inside the lips' edges."""
        rows = np.arange(len(self.texture))[:, None]
        return np.asarray((rows >= self.top + 2) & (rows <= self.bottom - 2))

    @property
    def height(self) -> float:
        """Rows from lip to lip in the middle of the mouth."""
        middle = len(self.top) // 2
        return float(np.median((self.bottom - self.top)[middle - 12 : middle + 12]))

    @property
    def worth(self) -> float:
        """More of the row of teeth, evenly ended and dark below, seen from the front, in a mouth that is open."""
        teeth = self.whole * (1.0 + 0.5 * min(self.drop, 0.8)) - 0.06 * self.uneven
        return teeth + 0.5 * min(self.height, 28.0) / 28.0 - 6.0 * self.turn


def cut(
    texture: NDArray[np.uint8], top: Doubles, bottom: Doubles, tints: Tints, centre: float, half: float, turn: float
) -> Cut:
    """`texture` (h, w, 3) RGB; `top`, `bottom` (w,): rows where the lips' edges are to within about six rows; `centre`,
    `half`: of the mouth, in texture pixels."""
    ratio, light = colours_of(np.ascontiguousarray(texture[:, :, ::-1]))
    w = light.shape[1]
    across = np.abs(np.arange(w) - centre) / half
    from_upper, from_lower = (_insideness(ratio, light, lip, tints.skin) for lip in (tints.upper, tints.lower))
    either = np.maximum(from_upper, from_lower)
    start = _middle_path(either, (top + bottom) / 2)
    above, below = _edge(from_upper, start, top, -1, _FAR), _edge(from_lower, start, bottom, 1, _FAR)
    # No mouth gets higher towards its corners: what does has run out over the skin, and is looked for once more.
    middle = int(np.clip(round(centre), 12, w - 13))
    tall = float(np.median((below - above)[middle - 12 : middle + 12]))
    most = max(tall, 6.0) * np.clip(1.2 - 0.3 * across**2, 0.0, 1.1) + 4.0
    sound = binary_erosion(below - above <= most, iterations=5, border_value=1) & (across < 0.98)
    if sound.any():
        columns = np.arange(w)
        top, bottom = (np.interp(columns, columns[sound], e[sound].astype(float)) for e in (above, below))
        above, below = _edge(from_upper, start, top, -1, _NEAR), _edge(from_lower, start, bottom, 1, _NEAR)
    sound = _seen(either, start) & (across < 0.98) & (below - above >= 3) & (below - above <= most)
    there = _from_middle(sound, round(centre))
    up = np.asarray(np.where(there, above, start), np.float64)
    down = np.asarray(np.where(there, below, start), np.float64)
    edge, whole, uneven, drop = _teeth(ratio, light, up, down, tints, centre, half)
    return Cut(texture, up, down, edge, whole, uneven, drop, turn)


def _log_colours(rgb: NDArray[Any]) -> tuple[float, float]:
    raised = rgb + 4.0
    return float(np.log(raised[0] / raised[1])), float(np.log(raised @ _LUMA))


def _insideness(ratio: Floats, light: Floats, lip: Floats, skin: Floats) -> Doubles:
    """-1 … 1: more like teeth or the dark between lips than like this lip."""
    lip_ratio, lip_light = _log_colours(lip)
    skin_ratio, _ = _log_colours(skin)
    dark = (lip_light - 0.35 - light) / 0.2
    # Pale lips are hardly redder than skin: what is as red as skin is then no tooth.
    least = min((lip_ratio + skin_ratio) / 2 - 0.02, lip_ratio - 0.12)
    teeth = (least - ratio) / (0.25 * max(lip_ratio - skin_ratio, 0.06))
    return np.asarray(np.tanh(np.maximum(dark, teeth)), np.float64)


def _middle_path(inside: Doubles, usual: Doubles) -> NDArray[np.int64]:
    """(w,) rows that run through the inside from corner to corner, near `usual`."""
    h = len(inside)
    soft = cv2.blur(inside, (5, 5))
    score = soft - 0.5 * ((np.arange(h)[:, None] - usual[None]) / 14.0) ** 2
    return np.clip(best_path(np.asarray(score, np.float64), 1, 0.1), 4, h - 5)


def _seen(inside: Doubles, start: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(w,) columns that are inside about where their middle should be."""
    h, w = inside.shape
    rows = np.clip(start[None] + np.arange(-3, 4)[:, None], 0, h - 1)
    return np.asarray(inside[rows, np.arange(w)[None]].max(axis=0) > 0.2)


def _from_middle(columns: NDArray[np.bool_], middle: int) -> NDArray[np.bool_]:
    """Those from the middle out to where four in a row are missing."""
    out = np.zeros_like(columns)
    for step in (-1, 1):
        missed, column = 0, int(np.clip(middle, 0, len(columns) - 1))
        while 0 <= column < len(columns) and missed < 4:
            missed = 0 if columns[column] else missed + 1
            out[column] = columns[column]
            column += step
    return out


def _edge(inside: Doubles, start: NDArray[np.int64], near: Doubles, sign: int, most: float) -> NDArray[np.int64]:
    """(w,) the row in each column up (`sign` -1) or down to which it is inside, smooth from column to column, within
    `most` rows of `near`."""
    if sign < 0:
        h = len(inside)
        return h - 1 - _edge(inside[::-1], h - 1 - start, h - 1 - near, 1, most)
    rows = np.arange(len(inside))[:, None]
    gained = np.cumsum(np.where(rows > start[None], inside, 0.0), axis=0)
    best = np.maximum.accumulate(gained, axis=0)
    # Skin looks like teeth in colour: what lies beyond a lip is not looked at.
    left = np.maximum.accumulate(best - gained > _LIP_ROWS, axis=0)
    off = np.abs(rows - near[None])
    score = np.where(left | (rows < start[None]), -40.0, gained) - 0.5 * (off / 8.0) ** 2
    score -= 10.0 * np.maximum(off - most, 0.0)
    return best_path(score, 2, 0.05)


def _teeth(
    ratio: Floats, light: Floats, top: Doubles, bottom: Doubles, tints: Tints, centre: float, half: float
) -> tuple[Doubles, float, float, float]:
    """The parabola of the upper teeth's edge, how much of the row shows, how uneven it is, the drop of light at it."""
    h, w = light.shape
    u = (np.arange(w) - centre) / half
    here = np.flatnonzero((np.abs(u) < ROW) & (bottom - top > 5))
    usual = float(np.median((top + 0.4 * (bottom - top))[here])) if len(here) else float(np.median(top))
    if len(here) < 0.5 * ROW * half:
        return np.array([usual, 0.0, 0.0]), 0.0, 0.0, 0.0
    rows = np.arange(h)[:, None]
    soft = gaussian_filter1d(light.astype(np.float64), 1.0, axis=0)
    fall = np.zeros_like(soft)
    fall[3:-3] = soft[:-6] - soft[6:]
    length = rows - top[None]
    # A crown shows by 3 to 10 canonical pixels; at the lower lip the row ends too.
    allowed = (length > 5) & (rows < bottom[None] + 2)
    score = np.where(allowed, fall, -1.0) - 0.5 * (np.maximum(length - 15.0, 0.0) / 8.0) ** 2
    path = best_path(score[:, here], 2, 0.03).astype(float)
    basis = np.stack([np.ones(len(here)), u[here], u[here] ** 2], axis=1)
    weight = np.ones(len(here))
    fit = np.zeros(3)
    hold = np.diag([0.0, 1.0, 0.6])
    for _ in range(4):
        fit = np.linalg.lstsq(np.vstack([basis * weight[:, None], hold]), np.r_[path * weight, 0, 0, 0], rcond=None)[0]
        weight = 1 / (1 + ((basis @ fit - path) / 3.0) ** 2)
    edge = basis @ fit
    drop = float(np.median(fall[np.clip(np.rint(path).astype(int), 0, h - 1), here]))
    skin_ratio, skin_light = _log_colours(tints.skin)
    lip_ratio, _ = _log_colours((tints.upper + tints.lower) / 2)
    white = (ratio < min(0.6 * skin_ratio + 0.4 * lip_ratio, lip_ratio - 0.13)) & (light > skin_light - 0.95)
    tooth = white & (rows > top[None] + 1) & (rows < edge.max() + 4)
    count = np.array([tooth[int(top[c]) : int(edge[k]) + 1, c].sum() for k, c in enumerate(here)])
    tall = float(np.percentile(count, 80))
    shown = np.clip(count / max(0.7 * tall, 5.0), 0.0, 1.0)
    whole = float(shown.sum() / (2 * ROW * half))
    return fit, min(whole, 1.0), float(np.median(np.abs(path - edge))), max(drop, 0.0)
