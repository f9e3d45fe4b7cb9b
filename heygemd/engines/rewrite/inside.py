"""Which frames a mouth's inside is made of, and the interior that comes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.cavity import Cut, Tints, cut
from heygemd.engines.rewrite.compose import LEAST_WHOLE, compose
from heygemd.engines.rewrite.interior import ORIGIN, SCALE, SIZE, SMILE_GAP, Interior, painted
from heygemd.engines.rewrite.shape import UPPER_SHARE, MouthShape
from heygemd.faces.lips import LipCurves

KEY_BOX = (48, 104, 208, 240)
"""What a key frame shows, in canonical pixels: from under the nose to under the chin."""
_CANDIDATES, _HELPERS = 20, 5
_LEAST_ROWS = 8.0
"""An inside less high than this (4 canonical pixels) shows nothing of use."""


class Key(Protocol):
    """A large picture of the mouth: BGR of KEY_BOX at `scale` pixels each."""

    @property
    def index(self) -> int: ...
    @property
    def scale(self) -> float: ...
    def image(self) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class OpenMouths:
    """Key frames of a shot and what was measured in them. `at` (keys,): their rows in what follows; `opening` (n,);
    `shift` (n, 2); `turn` (n,); `curves` of n frames. Canonical pixels."""

    keys: Sequence[Key]
    at: NDArray[np.int64]
    opening: NDArray[np.float64]
    shift: NDArray[np.float64]
    turn: NDArray[np.float32]
    curves: LipCurves


@dataclass(frozen=True)
class Choice:
    """`source`: painted, or which frames; `why`: in words; `side_light`: the darker side of the face over the other."""

    interior: Interior
    source: str
    why: str
    side_light: float


def interior_of(mouths: OpenMouths, shape: MouthShape, rest: Key, choice: str, least_worth: float) -> Choice:
    """The person's own open mouth where key frames show one worth `least_worth`, else a painted one.

    `rest`: the frame of which `shape` is. `choice`: as in Options.interior."""
    at_rest = int(mouths.at[[k.index for k in mouths.keys].index(rest.index)])
    tints = tints_of(rest, shape.moved(*(float(v) for v in mouths.shift[at_rest])))
    cuts = []
    for pick in np.argsort(-mouths.opening[mouths.at])[:_CANDIDATES]:
        row = int(mouths.at[pick])
        if mouths.opening[row] < 4.0:
            break
        made = cut_of(mouths, int(pick), shape, tints)
        if made.height >= _LEAST_ROWS:
            cuts.append((made, mouths.keys[int(pick)].index))
    cuts.sort(key=lambda c: -c[0].worth)
    light = side_light(rest, shape.moved(*(float(v) for v in mouths.shift[at_rest])))
    if choice == "own":
        least_worth = -math.inf
    if choice == "painted" or not cuts or cuts[0][0].worth < least_worth:
        why = "no frame shows a mouth open enough" if not cuts else "no frame shows the inside well enough"
        picture = _lit(painted(shape, tints.skin, tints.lower), light)
        return Choice(picture, "painted", "asked for" if choice == "painted" else why, min(light))
    best, index = cuts[0]
    painting = _lit(painted(shape, tints.skin, tints.lower, upper_teeth=best.whole < LEAST_WHOLE), light)
    made_of = compose(best, [c for c, _ in cuts[1 : 1 + _HELPERS]], shape.half * SCALE, painting)
    source = f"frame {index}" + (f" and {made_of.used} more" if made_of.used else "")
    seen = f"shows {best.whole:.0%} of the upper teeth" if best.whole >= LEAST_WHOLE else "shows hardly any teeth"
    why = f"of {len(cuts)} open mouths this one is seen best, and {seen}"
    return Choice(made_of.interior, source, why, min(light))


def cut_of(mouths: OpenMouths, pick: int, shape: MouthShape, tints: Tints) -> Cut:
    """The open mouth of key frame number `pick`, at its place against the skull."""
    key, row = mouths.keys[pick], int(mouths.at[pick])
    corner = np.array([shape.centre - ORIGIN[0], shape.c0 - ORIGIN[1]])
    texture = _texture(key, corner + mouths.shift[row])
    x = np.arange(texture.shape[1]) / SCALE + corner[0]
    columns, rows = mouths.curves.columns, mouths.curves.rows[row]
    top, bottom = ((np.interp(x, columns, rows[:, k]) - corner[1]) * SCALE for k in (1, 2))
    half = shape.half * SCALE
    made = cut(texture, top, bottom, tints, ORIGIN[0] * SCALE, half, float(mouths.turn[row]))
    return _with_gums(made, shape, x, corner[1]) if shape.gap > SMILE_GAP else made


def _with_gums(made: Cut, shape: MouthShape, x: NDArray[np.float64], low: float) -> Cut:
    """Of a mouth that smiles at rest, all that the warp takes to lie between its lips: gums look like pale lips."""
    at = x.astype(np.float32)
    line, gap = shape.line(at), shape.gap * shape.profile(at)
    top = (line - UPPER_SHARE * gap + 0.4 - low) * SCALE
    bottom = (line + (1 - UPPER_SHARE) * gap - 0.4 - low) * SCALE
    wide = gap > 2.5
    return replace(
        made,
        top=np.where(wide, np.minimum(made.top, top), made.top),
        bottom=np.where(wide, np.maximum(made.bottom, bottom), made.bottom),
    )


def _texture(key: Key, corner: NDArray[np.float64]) -> NDArray[np.uint8]:
    """RGB of what lies right of and under canonical `corner`, SIZE canonical pixels at SCALE."""
    size = (int(SIZE[0] * SCALE), int(SIZE[1] * SCALE))
    step = key.scale / SCALE
    start = (corner - np.array(KEY_BOX[:2])) * key.scale
    matrix = np.array([[step, 0.0, start[0]], [0.0, step, start[1]]])
    seen = cv2.warpAffine(
        key.image(), matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return np.ascontiguousarray(np.asarray(seen, np.uint8)[:, :, ::-1])


def tints_of(key: Key, shape: MouthShape) -> Tints:
    """Colours of the skin beside and under the mouth, and of both lips. `shape`: of this frame's mouth."""
    picture, scale = key.image(), key.scale
    c, y = shape.centre, shape.c0
    # Chin, cheeks and upper lip may be shaded or bearded: the skin is what the brighter part of the picture shows.
    small = cv2.resize(picture, (40, 34), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    bright = small.sum(axis=1)
    skin = small[(bright >= np.percentile(bright, 60)) & (bright <= np.percentile(bright, 90))].mean(axis=0)[::-1]
    red = y - 0.22 * shape.gap - 0.5 * shape.upper
    upper = _median(picture, scale, (c - 10, red - 1.5, c + 10, red + 1.5))
    under = y + 0.78 * shape.gap
    lower = _median(picture, scale, (c - 8, under + 3, c + 8, under + max(6.0, shape.lower - 2)))
    return Tints(np.asarray(skin, np.float32), upper, lower)


def side_light(key: Key, shape: MouthShape) -> tuple[float, float]:
    """How bright it is left and right of the mouth, the brighter side being 1."""
    sides = []
    for sign in (-1, 1):
        at = shape.centre + sign * 1.4 * shape.half
        box = (at - 0.5 * shape.half, shape.c0 - 36, at + 0.5 * shape.half, shape.c0 + 6)
        # A beard reaches up one cheek further than up the other when the head is turned: what is bright is skin.
        sides.append(float(np.percentile(_part(key.image(), key.scale, box).mean(axis=1), 85)) + 2.0)
    left, right = (side / max(sides) for side in sides)
    return left, right


def _lit(interior: Interior, light: tuple[float, float]) -> Interior:
    """A painted inside in light from one side. What is nearly even (a beard's patch, a shadow) is left alone."""
    if min(light) > 0.8:
        return interior
    u = np.clip((np.arange(interior.image.shape[1]) / SCALE - ORIGIN[0]) / 36.0, -1.0, 1.0)
    left, right = np.log(np.maximum(light, 0.15))
    gain = np.exp(left + (right - left) * (u + 1.0) / 2.0)
    return replace(interior, image=np.asarray(interior.image * gain[None, :, None], np.float32))


def _median(picture: NDArray[np.uint8], scale: float, box: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """(3,) RGB of canonical `box`."""
    return np.asarray(np.median(_part(picture, scale, box), axis=0)[::-1], np.float32)


def _part(picture: NDArray[np.uint8], scale: float, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """(n, 3) pixels of canonical `box`, at least one."""
    x0, y0 = (int((v - low) * scale) for v, low in zip(box[:2], KEY_BOX[:2], strict=True))
    x1, y1 = (int((v - low) * scale) for v, low in zip(box[2:], KEY_BOX[:2], strict=True))
    h, w = picture.shape[:2]
    x0, y0 = int(np.clip(x0, 0, w - 1)), int(np.clip(y0, 0, h - 1))
    return np.asarray(picture[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)].reshape(-1, 3))
