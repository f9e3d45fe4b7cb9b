"""Where the lids of both eyes run in one picture, and whether that is to be believed. Canonical pixels.

Two arcs between two corners are fitted to the picture: above them skin is brighter than the lashes, between them
nothing looks like skin (dark lashes and iris, white sclera), below them skin begins again. A fit is a search by
cross-entropy with a fixed seed, so the same picture gives the same lids. On fourteen pictures of seven people the lower
lid is 1.1 pixels, in the mean, from an independent landmark network's; the upper arc, the top of the lashes, is 2.4
above its.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.faces import canon
from heygemd.faces.detect import EyeFinder, Image

Floats = NDArray[np.float64]
PATCH_BOX = (44, 24, 212, 116)
"""What is looked at, in canonical pixels: from above the brows to under the eyes."""
SCALE = 2.0
"""Pixels of the patch for one canonical pixel."""
LEAST_SCALE = 0.4
"""Source pixels for one canonical pixel: with fewer, an eye is under a dozen pixels wide."""

# inner x, outer x (away from the nose), inner y, outer y, height above, height below, slant of both arcs
_USUAL = np.array([-17.0, 15.0, 2.5, 0.0, 7.5, 4.5, -0.1, 0.1])
_SPREAD = np.array([1.1, 1.8, 1.5, 2.5, 2.2, 1.8, 0.15, 0.2])
_SAME = np.array([0.6, 1.0, 1.0, 1.2, 1.0, 0.8, 0.08, 0.1])
"""How far one eye is from the other, mirrored."""
_LEAST, _MOST = np.array([-24, 8, -9, -9, 0.5, 0.5, -0.6, -0.6]), np.array([-8, 24, 9, 9, 14, 12, 0.6, 0.6])
_T = np.linspace(-0.92, 0.92, 19)
_COUNTS = (1 - 0.5 * _T**2) / (1 - 0.5 * _T**2).sum()


@dataclass(frozen=True)
class Lids:
    """One eye. `pupil`: canonical x, y · `side`: -1 for the eye on the left of the picture, 1 for the other ·
    `arcs` (8,): as `_USUAL`, relative to the pupil."""

    pupil: tuple[float, float]
    side: int
    arcs: Floats

    def along(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """-1 at the inner corner … 1 at the outer, for canonical x."""
        inner, outer = self.arcs[:2]
        return np.asarray((self.side * (x - self.pupil[0]) - inner) / (outer - inner) * 2 - 1, np.float32)

    def edges(self, t: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Canonical y of the top of the upper lashes and of the lower lid; both on the chord beyond the corners."""
        upper, lower = _arcs(self.arcs[None], np.clip(t, -1.0, 1.0).reshape(1, -1))
        return (
            np.asarray(upper.reshape(t.shape) + self.pupil[1], np.float32),
            np.asarray(lower.reshape(t.shape) + self.pupil[1], np.float32),
        )

    @property
    def opening(self) -> float:
        return float(self.arcs[4] + self.arcs[5])

    @property
    def width(self) -> float:
        return float(self.arcs[1] - self.arcs[0])

    def to_row(self) -> NDArray[np.float32]:
        return np.array([*self.pupil, self.side, *self.arcs], np.float32)

    @staticmethod
    def from_row(row: NDArray[np.float32]) -> Lids:
        return Lids((float(row[0]), float(row[1])), int(row[2]), np.asarray(row[3:], np.float64))


@dataclass(frozen=True)
class _Fit:
    lids: Lids
    lashes: float
    """How much darker (log) it is under the upper arc than above it."""
    inside: float
    """How much less like skin it is between the arcs than around them."""


def eyes_of(image: Image, matrix: canon.Affine) -> tuple[Lids, Lids] | str:
    """Both eyes' lids in `image` (BGR) under canonical→image `matrix`, or why they cannot be relied on."""
    if canon.scale_of(matrix) < LEAST_SCALE:
        return "the eyes are too small to be measured"
    face = _patch(image, matrix, (0, 0, canon.SIZE, canon.SIZE), 1.0)
    side = canon.EYE_DISTANCE / 0.378
    corner = canon.EYES.mean(axis=0) - np.array([0.495, 0.398]) * side
    pupils = EyeFinder().find(face, np.array([*corner, *(corner + side)], np.float32))
    if pupils is None:
        return "both eyes are not seen"
    if np.abs(pupils - canon.EYES).max() > 8.0:
        return "the eyes are not where the face has them"
    patch = _patch(image, matrix, PATCH_BOX, SCALE)
    if _glare(patch):
        return "something bright hides the eyes: glasses or glare"
    light, ratio = _colours(patch)
    if _bridged(light):
        return "glasses: their rims would bend with the lids"
    fits = [_fit(light, ratio, pupils[k], side, _USUAL, _SPREAD) for k, side in ((0, -1), (1, 1))]
    # One eye is nearly the other's mirror: what both say is surer than what each says.
    shared = (fits[0].lids.arcs + fits[1].lids.arcs) / 2
    best = max(fits, key=lambda f: f.lashes + f.inside).lids.arcs
    fits = [_fit(light, ratio, pupils[k], side, (shared + best) / 2, _SAME) for k, side in ((0, -1), (1, 1))]
    why = _doubt(fits[0], fits[1])
    return why or (fits[0].lids, fits[1].lids)


def _doubt(one: _Fit, other: _Fit) -> str:
    a, b = one.lids, other.lids
    if min(one.lashes, other.lashes) < 0.25 or min(one.inside, other.inside) < 0.4:
        return "the lids do not stand out from the skin"
    if min(a.opening, b.opening) < 6.0:
        return "the eyes are closed or nearly so"
    if max(a.opening / b.opening, b.opening / a.opening) > 1.5 or max(a.width / b.width, b.width / a.width) > 1.25:
        return "the eyes differ: the head is turned, or something hides one of them"
    return ""


def _patch(image: Image, matrix: canon.Affine, box: tuple[int, int, int, int], scale: float) -> Image:
    half = 0.5 / scale
    inner = canon.compose(matrix, np.array([[1 / scale, 0.0, box[0] + half], [0.0, 1 / scale, box[1] + half]]))
    shrink = canon.scale_of(inner)
    if shrink > 1.5:  # sampling alone would alias
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * shrink)
    size = (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale))
    out: Image = cv2.warpAffine(
        image, inner, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def _colours(patch: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    soft = cv2.GaussianBlur(patch, (0, 0), 0.8).astype(np.float32) + 6.0
    light = np.log(0.114 * soft[..., 0] + 0.587 * soft[..., 1] + 0.299 * soft[..., 2])
    return light, np.log(soft[..., 2] / soft[..., 1])


def _arcs(rows: Floats, t: Floats | NDArray[np.float32]) -> tuple[Floats, Floats]:
    chord = rows[:, 2:3] + (t + 1) / 2 * (rows[:, 3:4] - rows[:, 2:3])
    bow = 1 - t**2
    upper = chord - rows[:, 4:5] * bow**0.75 * (1 + rows[:, 6:7] * t)
    return upper, chord + rows[:, 5:6] * bow**0.9 * (1 + rows[:, 7:8] * t)


def _fit(
    light: NDArray[np.float32], ratio: NDArray[np.float32], pupil: Floats, side: int, usual: Floats, spread: Floats
) -> _Fit:
    origin = (pupil - PATCH_BOX[:2]) * SCALE
    x0, x1 = int(origin[0] - 26 * SCALE), int(origin[0] + 26 * SCALE)
    below = slice(int(origin[1] + 10 * SCALE), int(origin[1] + 20 * SCALE))
    skin_light, skin_ratio = (float(np.median(m[below, max(0, x0) : x1])) for m in (light, ratio))
    strange = np.clip((skin_light - light) / 0.45, -0.2, 1.8) + np.clip((light - skin_light) / 0.25, 0, 0.6)
    strange = np.asarray(strange + 1.2 * np.clip((skin_ratio - ratio - 0.03) / 0.2, 0, 1.0), np.float32)

    def at(field: NDArray[np.float32], x: Floats, y: Floats) -> NDArray[np.float32]:
        here = np.asarray(origin[0] + side * x * SCALE - 0.5, np.float32)
        out: NDArray[np.float32] = cv2.remap(
            field,
            here,
            np.asarray(origin[1] + y * SCALE - 0.5, np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return out

    def parts(rows: Floats) -> tuple[Floats, Floats, Floats]:
        x = rows[:, 0:1] + (_T + 1) / 2 * (rows[:, 1:2] - rows[:, 0:1])
        up, low = _arcs(rows, _T[None])
        lash = (at(light, x, up - 2.2) + at(light, x, up - 1.4) - at(light, x, up + 0.6) - at(light, x, up + 1.6)) / 2
        end = at(strange, x, low - 0.6) + at(strange, x, low - 1.6)
        end = (end - at(strange, x, low + 1.2) - at(strange, x, low + 2.2)) / 2
        rim = at(light, x, low + 2.0) - at(light, x, low + 0.2)
        inside = sum(at(strange, x, up + (low - up) * f) for f in (0.15, 0.35, 0.5, 0.65, 0.85)) / 5
        outside = (
            at(strange, x, up - 2) + at(strange, x, up - 4) + at(strange, x, low + 2) + at(strange, x, low + 4)
        ) / 4
        lower = 0.5 * np.clip(end, -0.5, 1.0) + 0.8 * np.clip(rim, -0.1, 0.3)
        return (np.clip(lash, -0.4, 0.8) @ _COUNTS, lower @ _COUNTS, (inside - outside) @ _COUNTS)

    rng = np.random.default_rng(7)
    middle, wide = usual.copy(), spread.copy()
    for _ in range(16):
        rows = np.clip(middle + wide * rng.standard_normal((240, 8)), _LEAST, _MOST)
        rows[0] = middle
        lashes, lower, inside = parts(rows)
        prior = -0.5 * (((rows - usual) / spread) ** 2).sum(axis=1)
        best = rows[np.argsort(-(lashes + 0.8 * lower + 0.5 * inside + 0.03 * prior))[:30]]
        middle, wide = best.mean(axis=0), best.std(axis=0) + 1e-3
    lashes, _, inside = parts(middle[None])
    return _Fit(Lids((float(pupil[0]), float(pupil[1])), side, middle), float(lashes[0]), float(inside[0]))


def _bridged(light: NDArray[np.float32]) -> bool:
    """Whether a line runs across the nose between the eyes: .18 to 1.1 under painted frames, .02 on bare faces."""
    x, y = (round((v - corner) * SCALE) for v, corner in zip((118, 60), PATCH_BOX[:2], strict=True))
    nose = light[y : y + round(44 * SCALE), x : x + round(20 * SCALE)]
    step = round(3 * SCALE)
    above, here, below = nose[: -2 * step], nose[step:-step], nose[2 * step :]
    dark = np.minimum(above, below) - here
    bright = here - np.maximum(above, below)
    return bool(max(np.median(dark, axis=1).max(), np.median(bright, axis=1).max()) > 0.12)


def _glare(patch: Image) -> bool:
    """Whether a reflection larger than an eye's own lies over an eye."""
    grey = cv2.cvtColor(patch, cv2.COLOR_BGR2GRAY)
    bright = (grey >= 250).astype(np.uint8)
    large = cv2.erode(bright, np.ones((round(3.5 * SCALE),) * 2, np.uint8))
    reach = round(12 * SCALE)
    for x, y in (canon.EYES - PATCH_BOX[:2]) * SCALE:
        if large[int(y) - reach : int(y) + reach, int(x) - reach : int(x) + reach].any():
            return True
    return False
