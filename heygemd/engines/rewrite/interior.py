"""The inside of a mouth: the person's own where the clip shows it, else painted teeth and tongue, lit like the skin.

An interior is one picture in canonical pixels with the lips removed, and the two curves where the lips were. Its upper
half hangs from the skull, its lower half moves with the jaw, so teeth keep their size however far the mouth opens.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.canvas import Canvas, Pixels
from heygemd.engines.rewrite.shape import UPPER_SHARE, MouthShape

Picture = NDArray[np.float32]
SCALE = 2.0
"""Texture pixels for one canonical pixel."""
SIZE = (104, 72)
"""Width and height of the texture in canonical pixels; the middle of the mouth's line is at its ORIGIN."""
ORIGIN = (52.0, 28.0)
PAINTED_OPENING = 20.0
SHOWN, MORE_SHOWN = 0.5, 0.28
"""How far down the upper teeth reach at most, as shares of the opening from the line between the lips: usually, and
what a hiss adds."""
MOST_LIFTED = 2.0
SMILE_GAP = 4.0
"""Lips that part by more at rest bare the teeth: they stay where the picture has them."""


@dataclass(frozen=True)
class Interior:
    """`image` (144, 208, 3) float32 RGB 0..255. `split`: y below which it moves with the jaw, where the upper teeth
    end: split + tilt u + bend u², u = -1 … 1 across the mouth; `top`: y from which on teeth are known; `opening`: from
    lip to lip when it was taken; all in canonical pixels, y from the line between the lips."""

    image: Picture
    split: float
    opening: float
    tilt: float = 0.0
    bend: float = 0.0
    top: float = -PAINTED_OPENING


def painted(
    shape: MouthShape, skin: NDArray[np.float32], lip: NDArray[np.float32], upper_teeth: bool = True
) -> Interior:
    """Teeth, dark and tongue. `skin`, `lip`: (3,) RGB seen in the clip, which say how bright and warm the light is."""
    w, h = int(SIZE[0] * SCALE), int(SIZE[1] * SCALE)
    x = (np.arange(w, dtype=np.float32)[None] + 0.5) / SCALE - ORIGIN[0]
    y = (np.arange(h, dtype=np.float32)[:, None] + 0.5) / SCALE - ORIGIN[1]
    u = x / shape.half
    light = float(skin @ np.array([0.299, 0.587, 0.114], np.float32))
    tint = skin / max(float(skin.mean()), 1.0)
    enamel = light * 0.86 * (0.7 * tint + 0.3 * np.array([1.03, 1.0, 0.93], np.float32))
    cave = np.minimum(lip * 0.22, 60.0) * np.array([1.0, 0.62, 0.62], np.float32)
    flesh = lip * np.array([0.72, 0.62, 0.62], np.float32)
    image = np.broadcast_to(cave, (h, w, 3)).astype(np.float32).copy()
    # Tongue: a soft mound at the bottom, lit from the front.
    tongue = np.exp(-0.5 * (x / (0.55 * shape.half)) ** 2 - 0.5 * ((y - 17.0) / 6.0) ** 2)[..., None]
    image += tongue * 0.75 * (flesh - image)
    # Lower teeth: barely seen, behind the lip.
    low = (0.5 + 0.5 * np.tanh((y - (14.5 + 1.5 * u**2)) / 1.4)) * np.exp(-((u / 0.62) ** 4))
    image += (low * 0.35)[..., None] * (enamel * 0.75 - image)
    if not upper_teeth:
        return Interior(cv2.GaussianBlur(image, (0, 0), 1.1), 9.0, PAINTED_OPENING)
    # Upper teeth: an arc, scalloped, darker to the sides where the cheeks shade them.
    bounds = np.array([0.0, 7.6, 13.6, 19.2, 24.0, 28.5], np.float32) * shape.half / 29.0
    index = np.clip(np.searchsorted(bounds, np.abs(x[0]), side="right") - 1, 0, 4)
    across = (np.abs(x[0]) - bounds[index]) / (bounds[index + 1] - bounds[index])
    length = np.array([6.6, 6.0, 6.3, 5.6, 5.0], np.float32)[index]
    edge = length - 1.3 * np.abs(2 * across - 1) ** 4 - 1.2 * u[0] ** 2
    tooth = 0.5 - 0.5 * np.tanh((y - edge[None]) / 0.9)
    gap = 1.0 - 0.15 * np.exp(-(((1 - np.abs(2 * across - 1)) / 0.16) ** 2))
    roundness = np.clip(1.05 - 0.55 * np.abs(u[0]) ** 1.5, 0.2, 1.0)
    shade = gap * roundness * np.clip(0.97 + 0.02 * y, 0.76, 1.02)
    image += tooth[..., None] * (shade[..., None] * enamel - image)
    return Interior(cv2.GaussianBlur(image, (0, 0), 1.1), 9.0, PAINTED_OPENING)


def pose(
    canvas: Canvas,
    interior: Interior,
    shape: MouthShape,
    x: Pixels,
    y: Pixels,
    below_upper: Pixels,
    above_lower: Pixels,
    opening: float,
    teeth: float,
) -> Pixels:
    """The interior as seen at canonical points (x, y), all (h, w); `below_upper` and `above_lower` as in Fields.

    `teeth`: 0..1, how much of them the sound shows.
    """
    xp = canvas.xp
    jaw = 0.78 * (opening - interior.opening)
    left = (x - (shape.centre - ORIGIN[0])) * SCALE - 0.5
    u = xp.clip((x - shape.centre) / shape.half, -1.0, 1.0)
    split = interior.split + u * (interior.tilt + u * interior.bend)
    # Lips that part little hide most of the teeth behind the upper one; a hiss bares them, and a smile has them bare.
    shown = (SHOWN + MORE_SHOWN * teeth) * opening + 0.5
    smile = shape.gap > SMILE_GAP
    # Where the lip rises higher than it was seen to, the row goes along a little: above is only what was made up.
    seen_top = min(interior.top, -UPPER_SHARE * shape.gap) if smile else interior.top
    lifted = float(np.clip(seen_top + UPPER_SHARE * opening - 1.0, 0.0, MOST_LIFTED))
    hidden = lifted if smile else max(lifted, interior.split - shown)
    level = y - shape.c0 + hidden
    above = xp.minimum(level, split)
    under = xp.maximum(level - jaw - hidden, split)
    texture = canvas.put(interior.image)
    upper = canvas.linear(texture, left, (above + ORIGIN[1]) * SCALE - 0.5)
    lower = canvas.linear(texture, left, (under + ORIGIN[1]) * SCALE - 0.5)
    # Upper teeth stand before what is below them.
    ramp = xp.clip((level - split) / max(1.0, 0.8 * jaw), 0.0, 1.0)[..., None]
    image = upper + ramp * (lower - upper)
    # Lips throw a shadow into the mouth, more so while it is nearly closed.
    shade = 1.0 - 0.42 * xp.exp(-xp.clip(below_upper, 0.0, None) / 1.9)
    shade = shade - 0.2 * xp.exp(-xp.clip(above_lower, 0.0, None) / 1.2)
    # Between lips that hardly part it is dark, unless teeth stand behind them (s, f, i).
    depth = 1.0 - (0.55 - 0.4 * teeth) * max(0.0, 1.0 - opening / 7.0)
    return image * xp.clip(shade * depth, 0.1, 1.0)[..., None]
