"""The inside of a mouth: the person's own where the clip shows it, else painted teeth and tongue, lit like the skin.

An interior is one picture in canonical pixels with the lips removed, and the two curves where the lips were. Its upper
half hangs from the skull, its lower half moves with the jaw, so teeth keep their size however far the mouth opens.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.shape import MouthShape, profile_of

Picture = NDArray[np.float32]
SCALE = 2.0
"""Texture pixels for one canonical pixel."""
SIZE = (104, 72)
"""Width and height of the texture in canonical pixels; the middle of the mouth's line is at its ORIGIN."""
ORIGIN = (52.0, 28.0)
PAINTED_OPENING = 20.0


@dataclass(frozen=True)
class Interior:
    """`image` (144, 208, 3) float32 RGB 0..255. `split`: y of its middle; `opening`: from lip to lip when it was taken;
    both in canonical pixels, y from the line between the lips."""

    image: Picture
    split: float
    opening: float


def painted(shape: MouthShape, skin: NDArray[np.float32], lip: NDArray[np.float32]) -> Interior:
    """Teeth, dark and tongue. `skin`, `lip`: (3,) RGB seen in the clip, which say how bright and warm the light is."""
    w, h = int(SIZE[0] * SCALE), int(SIZE[1] * SCALE)
    x = (np.arange(w, dtype=np.float32)[None] + 0.5) / SCALE - ORIGIN[0]
    y = (np.arange(h, dtype=np.float32)[:, None] + 0.5) / SCALE - ORIGIN[1]
    u = x / shape.half
    light = float(skin @ np.array([0.299, 0.587, 0.114], np.float32))
    tint = skin / max(float(skin.mean()), 1.0)
    enamel = light * 0.86 * (0.55 * tint + 0.45 * np.array([1.03, 1.0, 0.93], np.float32))
    cave = np.minimum(lip * 0.22, 60.0) * np.array([1.0, 0.62, 0.62], np.float32)
    flesh = lip * np.array([0.72, 0.62, 0.62], np.float32)
    image = np.broadcast_to(cave, (h, w, 3)).astype(np.float32).copy()
    # Tongue: a soft mound at the bottom, lit from the front.
    tongue = np.exp(-0.5 * (x / (0.55 * shape.half)) ** 2 - 0.5 * ((y - 17.0) / 6.0) ** 2)[..., None]
    image += tongue * 0.75 * (flesh - image)
    # Lower teeth: barely seen, behind the lip.
    low = (0.5 + 0.5 * np.tanh((y - (14.5 + 1.5 * u**2)) / 1.4)) * np.exp(-((u / 0.62) ** 4))
    image += (low * 0.35)[..., None] * (enamel * 0.75 - image)
    # Upper teeth: an arc, scalloped, darker to the sides where the cheeks shade them.
    bounds = np.array([0.0, 7.6, 13.6, 19.2, 24.0, 28.5], np.float32) * shape.half / 29.0
    index = np.clip(np.searchsorted(bounds, np.abs(x[0]), side="right") - 1, 0, 4)
    across = (np.abs(x[0]) - bounds[index]) / (bounds[index + 1] - bounds[index])
    length = np.array([6.6, 6.0, 6.3, 5.6, 5.0], np.float32)[index]
    edge = length - 1.3 * np.abs(2 * across - 1) ** 4 - 1.2 * u[0] ** 2
    tooth = 0.5 - 0.5 * np.tanh((y - edge[None]) / 0.9)
    gap = 1.0 - 0.35 * np.exp(-(((1 - np.abs(2 * across - 1)) / 0.12) ** 2))
    roundness = np.clip(1.05 - 0.55 * np.abs(u[0]) ** 1.5, 0.2, 1.0)
    shade = gap * roundness * np.clip(0.93 + 0.02 * y, 0.72, 1.0)
    image += tooth[..., None] * (shade[..., None] * enamel - image)
    return Interior(cv2.GaussianBlur(image, (0, 0), 0.9), 9.0, PAINTED_OPENING)


WIDE_OPENING = 13.0
"""A mouth seen this wide open, in canonical pixels, shows all that is needed; of others the rest is painted."""


def taken(
    picture: Picture, scale: float, origin: NDArray[np.float64], seen: MouthShape, painting: Interior
) -> Interior:
    """The inside of an open mouth in `picture` (h, w, 3) RGB, whose pixel (0, 0) is canonical `origin`.

    `scale`: picture pixels for one canonical pixel. What the lips hide is filled from the nearest that shows.
    """
    w, h = int(SIZE[0] * SCALE), int(SIZE[1] * SCALE)
    corner = np.array([seen.centre - ORIGIN[0], seen.c0 - ORIGIN[1]])
    step = scale / SCALE
    start = (corner - origin) * scale
    matrix = np.array([[step, 0.0, start[0]], [0.0, step, start[1]]])
    image = cv2.warpAffine(
        picture, matrix, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    x = np.arange(w, dtype=np.float32) / SCALE + corner[0]
    y = (np.arange(h, dtype=np.float32) / SCALE)[:, None] + corner[1]
    line = seen.line(x)
    gap = seen.gap * profile_of(x, seen.centre, seen.half)
    # A pixel and a half inside the lips, so that no lip comes along.
    top = line - 0.22 * gap + 1.2
    bottom = line + 0.78 * gap - 1.2
    inside = (y >= top) & (y <= bottom) & (gap > 3.5)
    filled = _filled(image, inside)
    if seen.gap >= WIDE_OPENING:
        return Interior(filled, 0.30 * seen.gap, seen.gap)
    # What hangs from the skull is the person's own down to where the lower lip hid it; below is painted.
    sharp = 1.0 - np.clip((y - bottom) / 1.5 + 0.5, 0.0, 1.0)
    near = np.exp(-0.5 * (np.maximum(np.abs(x - seen.centre) / seen.half - 0.7, 0.0) / 0.12) ** 2)
    own = cv2.GaussianBlur((sharp * near).astype(np.float32), (0, 0), 1.0)[..., None]
    return Interior(painting.image + own * (filled - painting.image), painting.split, painting.opening)


def _filled(image: Picture, known: NDArray[np.bool_]) -> Picture:
    """Every pixel outside `known` from the nearest inside its column; columns without any, from their neighbours."""
    h, w = known.shape
    columns = np.flatnonzero(known.any(axis=0))
    nearest = columns[np.abs(np.arange(w)[:, None] - columns[None]).argmin(axis=1)]
    first = known.argmax(axis=0)[nearest]
    last = h - 1 - known[::-1].argmax(axis=0)[nearest]
    rows = np.clip(np.arange(h)[:, None], first[None], last[None])
    filled = image[rows, nearest[None]]
    # Sideways beyond the corners it grows dark.
    far = np.abs(np.arange(w) - nearest).astype(np.float32) / SCALE
    filled = filled * np.exp(-far / 8.0)[None, :, None]
    soft = cv2.GaussianBlur(filled, (0, 0), 1.5)
    return np.asarray(np.where(known[..., None], image, soft), np.float32)


def pose(
    interior: Interior,
    shape: MouthShape,
    x: Picture,
    y: Picture,
    below_upper: Picture,
    above_lower: Picture,
    opening: float,
    teeth: float,
) -> Picture:
    """The interior as seen at canonical points (x, y), all (h, w); `below_upper` and `above_lower` as in Fields.

    `teeth`: 0..1, how much of them the sound shows.
    """
    jaw = 0.78 * (opening - interior.opening)
    left = (x - (shape.centre - ORIGIN[0])) * SCALE - 0.5
    level = y - shape.c0
    above = np.minimum(level, interior.split)
    under = np.maximum(level - jaw, interior.split)
    upper = cv2.remap(
        interior.image, left, (above + ORIGIN[1]) * SCALE - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    lower = cv2.remap(
        interior.image, left, (under + ORIGIN[1]) * SCALE - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    middle = interior.split / max(interior.opening, 1.0) * opening
    ramp = np.clip((level - middle) / max(2.0, 0.3 * opening) + 0.5, 0.0, 1.0)[..., None]
    image = upper + ramp * (lower - upper)
    # Lips throw a shadow into the mouth, more so while it is nearly closed.
    shade = 1.0 - 0.35 * np.exp(-np.maximum(below_upper, 0.0) / 1.6) - 0.2 * np.exp(-np.maximum(above_lower, 0.0) / 1.2)
    # Between lips that hardly part it is dark, unless teeth stand behind them (s, f, i).
    depth = 1.0 - (0.55 - 0.4 * teeth) * max(0.0, 1.0 - opening / 7.0)
    return np.asarray(image * np.clip(shade * depth, 0.1, 1.0)[..., None], np.float32)
