"""The shape of a mouth at rest, and the warp that opens, closes, widens and rounds it. All in canonical pixels."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.faces.lipline import LipLine
from heygemd.faces.lips import LipCurves

Grid = NDArray[np.float32]
UPPER_SHARE = 0.22
"""Of an opening, what the upper lip does; the rest is the lower lip."""
JAW_SHARE = 0.62
"""Of the lower lip's drop, what the jaw does."""
INNER = 0.92
"""Lips part from each other a little inside the corners of the mouth."""
STEP = 2
"""Grid spacing of the displacement fields."""
FIELD_BOX = (40, 106, 216, 268)
"""x0, y0, x1, y1 of the fields; displacement is zero on and beyond the edge."""
_XS = np.arange(FIELD_BOX[0], FIELD_BOX[2] + 1, STEP, dtype=np.float32)
_YS = np.arange(FIELD_BOX[1], FIELD_BOX[3] + 1, STEP, dtype=np.float32)[:, None]


@dataclass(frozen=True)
class MouthShape:
    """Where the lips run in one picture.

    `left`, `right`: x of the corners · `c0`…`c4`: the line between the lips, y = c0 + c1 u + c2 u² + c3 u³ +
    c4 u⁴ with u = -1 … 1 from corner to corner · `gap`: inner opening in the middle · `upper`, `lower`: thickness of
    the lips.
    """

    left: float
    right: float
    c0: float
    c1: float
    c2: float
    c3: float
    gap: float
    upper: float
    lower: float
    c4: float = 0.0

    @property
    def centre(self) -> float:
        return (self.left + self.right) / 2

    @property
    def half(self) -> float:
        return (self.right - self.left) / 2

    def line(self, x: Grid) -> Grid:
        """y of the line where the lips meet (or would meet), level beyond the corners."""
        u = np.clip((x - self.centre) / self.half, -1.0, 1.0)
        return np.asarray(self.c0 + u * (self.c1 + u * (self.c2 + u * (self.c3 + u * self.c4))), np.float32)

    def profile(self, x: Grid) -> Grid:
        """Opening along x, as a share of that in the middle; zero from the corners on."""
        return profile_of(x, self.centre, self.half)

    def moved(self, dx: float, dy: float) -> MouthShape:
        return replace(self, left=self.left + dx, right=self.right + dx, c0=self.c0 + dy)

    def to_row(self) -> NDArray[np.float32]:
        return np.array(astuple(self), np.float32)

    @staticmethod
    def from_row(row: NDArray[np.float32]) -> MouthShape:
        return MouthShape(*(float(v) for v in row))


def profile_of(x: Grid, centre: float, half: float) -> Grid:
    u = (x - centre) / (INNER * half)
    return np.asarray(np.maximum(1.0 - u * u, 0.0) ** 0.9, np.float32)


def fit_shape(
    curves: LipCurves, frames: NDArray[np.int64], corner_heights: NDArray[np.float64] | None = None
) -> MouthShape:
    """A mouth from the lip curves of some frames of the same look (their median).

    `corner_heights` (2,): y of the corners, where they are known: those of a smile rise above its nearly level line.
    """
    rows = np.median(curves.rows[frames], axis=0)
    gain = np.median(curves.gain[frames], axis=0)
    left, right = (float(v) for v in curves.corners)
    centre, half = (left + right) / 2, (right - left) / 2
    u = (curves.columns - centre) / half
    inside = np.abs(u) < 0.92
    weight = np.where(inside, np.clip(gain / max(float(gain.max()), 1.0), 0.05, 1.0), 0.0)
    gaps = rows[:, 2] - rows[:, 1]
    shape = profile_of(curves.columns.astype(np.float32), centre, half)
    gap = max(0.0, float(np.median(gaps[np.abs(u) < 0.35])))
    for _ in range(3):
        # Columns near the corners mistake chin or beard for mouth now and then: they are heard less.
        trust = weight * np.exp(-u * u) / (1 + ((gaps - gap * shape) / 2.5) ** 2)
        gap = max(0.0, float((trust * shape * gaps).sum() / (trust * shape * shape).sum()))
    gap = 0.0 if gap < 1.5 else gap
    # Lips open downwards more than upwards: the line where they would meet lies in the upper part of the gap.
    meet = rows[:, 1] + (UPPER_SHARE if gap else 0.5) * np.minimum(gaps, 1.5 * gap * shape + 3.0)
    basis = np.stack([np.ones_like(u), u, u**2, u**3], axis=1)
    # Weak priors: no tilt, little bend.
    hold = np.diag([0.0, 0.7, 0.5, 1.5])
    left_side = np.vstack([basis * weight[:, None], hold])
    right_side = np.concatenate([meet * weight, np.zeros(4)])
    c = np.linalg.lstsq(left_side, right_side, rcond=None)[0]
    for _ in range(2):
        off = np.abs(basis @ c - meet)
        robust = weight / (1 + (off / 2.0) ** 2)
        c = np.linalg.lstsq(
            np.vstack([basis * robust[:, None], hold]), np.concatenate([meet * robust, np.zeros(4)]), rcond=None
        )[0]
    middle = np.abs(u) < 0.4
    upper = float(np.median(rows[middle, 1] - rows[middle, 0]))
    lower = float(np.median(rows[middle, 3] - rows[middle, 2]))
    c0, c1, c2, c3 = (float(v) for v in c)
    c4 = 0.0
    if corner_heights is not None:
        off_left, off_right = corner_heights - (c0 + c2) + np.array([c1 + c3, -c1 - c3])
        c3 += float(np.clip((off_right - off_left) / 2, -2.0, 2.0))
        c4 = float(np.clip((off_left + off_right) / 2, -9.0, 4.0))
    upper, lower = float(np.clip(upper, 4, 14)), float(np.clip(lower, 6, 14))
    return MouthShape(left, right, c0, c1, c2, c3, gap, upper, lower, c4)


def along(shape: MouthShape, found: LipLine) -> MouthShape:
    """The shape with its line where the picture has it: `fit_shape` knows it to within about three pixels."""
    gap = min(shape.gap, found.parting)
    shape = replace(shape, gap=gap if gap >= 2.0 else 0.0)
    u = (found.x - shape.centre) / shape.half
    # What is followed is the middle of the dark between the lips; the line where they would meet lies above it.
    x = found.x.astype(np.float32)
    meet = found.y - (0.5 - UPPER_SHARE) * shape.gap * shape.profile(x)
    basis = np.stack([np.ones_like(u), u, u**2, u**3, u**4], axis=1)
    weight = np.where(np.abs(u) <= 1.0, np.sqrt(np.maximum(found.strength, 0.0)) + 0.02, 0.0)
    hold = np.diag([0.0, 0.1, 0.1, 0.3, 0.3]) * float(np.sqrt(weight.sum()))
    c = np.zeros(5)
    for _ in range(3):
        robust = weight / (1 + ((basis @ c - meet) / 1.5) ** 2) if c.any() else weight
        c = np.linalg.lstsq(
            np.vstack([basis * robust[:, None], hold]), np.concatenate([meet * robust, np.zeros(5)]), rcond=None
        )[0]
    c0, c1, c2, c3, c4 = (float(v) for v in c)
    return replace(shape, c0=c0, c1=c1, c2=c2, c3=c3, c4=c4)


@dataclass(frozen=True)
class Fields:
    """Displacements on the grid of FIELD_BOX: output pixel p shows the picture at p + (dx, dy).

    `dy_upper`, `dy_lower`: for pixels above and below the mouth's inside · `below_upper`, `above_lower`: how far a
    pixel lies below the upper lip's edge and above the lower lip's (both positive inside the mouth) · `dx`.
    """

    dy_upper: Grid
    dy_lower: Grid
    below_upper: Grid
    above_lower: Grid
    dx: Grid


def _smooth(t: NDArray[Any]) -> Grid:
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def jaw_drop(shape: MouthShape, drop: float) -> Grid:
    """(rows, columns) how far the skin under the mouth moves down when the lower lip moves by `drop`."""
    across = np.exp(-0.5 * ((_XS - shape.centre) / (1.25 * shape.half)) ** 2)
    line = shape.line(_XS)
    begin = _smooth((_YS - line - 2.0) / (shape.lower + 16.0))
    # Full at the chin, gone on the neck.
    end = 1.0 - _smooth((_YS - 206.0) / 56.0)
    edge = _smooth((_XS - FIELD_BOX[0]) / 24) * _smooth((FIELD_BOX[2] - _XS) / 24)
    return np.asarray(drop * JAW_SHARE * across * begin * end * edge, np.float32)


def fields(shape: MouthShape, opening: float, width: float, rim: float) -> Fields:
    """The warp that takes a picture of `shape` to an inner opening of `opening` pixels and `width` times its width.

    `rim`: by how much an open source is taken to be wider open than measured, for what is blurred at its lips' rims.
    Everything fades to zero at the corners: nothing tears there.
    """
    half = shape.half * width
    line = shape.line(shape.centre + (_XS - shape.centre) / width)
    old = profile_of(shape.centre + (_XS - shape.centre) / width, shape.centre, shape.half)
    new = profile_of(_XS, shape.centre, half)
    seen = (shape.gap + rim if shape.gap > 0 else 0.0) * old
    upper_old, lower_old = UPPER_SHARE * seen, (1 - UPPER_SHARE) * seen
    upper_new, lower_new = UPPER_SHARE * opening * new, (1 - UPPER_SHARE) * opening * new
    rise, drop = upper_new - upper_old, lower_new - lower_old
    # The upper lip is stiff, then fades out under the nose; evaluated in output coordinates (rise is a few pixels).
    top = line - upper_new
    fade_up = 1.0 - _smooth((top - _YS - 0.6 * shape.upper) / 18.0)
    dy_upper = rise * fade_up
    bottom = line + lower_new
    hand_over = _smooth((_YS - bottom - 0.5 * shape.lower) / (0.5 * shape.lower + 14.0))
    jaw = jaw_drop(shape, (1 - UPPER_SHARE) * (opening - shape.gap))
    dy_lower = -(drop * (1.0 - hand_over) + jaw * np.maximum(hand_over, 1.0 - np.minimum(new * 4, 1.0)))
    pull = _pull(shape, width)
    return Fields(
        np.ascontiguousarray(dy_upper, np.float32),
        np.ascontiguousarray(dy_lower, np.float32),
        np.ascontiguousarray(_YS - top, np.float32),
        np.ascontiguousarray(bottom - _YS, np.float32),
        pull,
    )


def _pull(shape: MouthShape, width: float) -> Grid:
    """Sideways displacement: inside the mouth a plain stretch, dying out over the cheeks."""
    x = _XS - shape.centre
    half = shape.half * width
    stretch = x / width - x
    beyond = np.maximum(np.abs(x) - half, 0.0)
    at_corner = np.sign(x) * (shape.half - half)
    across = np.where(np.abs(x) <= half, stretch, at_corner * (1.0 - _smooth(beyond / 40.0)))
    line = shape.line(_XS)
    down = np.exp(-0.5 * (np.maximum(np.abs(_YS - line) - 6.0, 0.0) / 15.0) ** 2)
    return np.asarray(across * down, np.float32)
