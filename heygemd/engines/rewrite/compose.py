"""One interior from several frames: the best cut, what its lips hide from others, the rest from its other side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from heygemd.engines.rewrite.cavity import Cut
from heygemd.engines.rewrite.interior import ORIGIN, SCALE, Interior

Floats = NDArray[np.float32]
WIDE_ROWS = 26.0
"""A mouth seen this wide open (13 canonical pixels) shows all that is needed; below others the rest is painted."""
LEAST_WHOLE = 0.4
"""With less of a row of teeth it counts as a mouth that shows none."""
_REACH = 5
"""Texture pixels by which other frames' teeth may lie elsewhere."""
_ALIKE = 24.0
"""Root mean square difference, grey levels, beyond which another frame is too unlike to fill from."""
_STRIP_ROWS = 1.6


@dataclass(frozen=True)
class Made:
    """`used`: how many other frames filled something."""

    interior: Interior
    used: int


def compose(best: Cut, others: list[Cut], half: float, painting: Interior) -> Made:
    """`half`: of the mouth, texture pixels. `painting`: for what no frame shows, without upper teeth where there are
    own ones."""
    h, w = best.known.shape
    teeth = best.whole >= LEAST_WHOLE
    u = (np.arange(w) - ORIGIN[0] * SCALE) / half
    rows = np.arange(h, dtype=np.float32)[:, None]
    edge = best.edge @ np.stack([np.ones(w), u, u * u]) if teeth else best.top + 0.35 * (best.bottom - best.top)
    image, known = best.texture.astype(np.float32), best.known
    used = 0
    if teeth:
        image, known, used = _from_others(best, image, known, others, rows < edge[None] + 3)
        image, known = _from_the_other_side(image, known, (rows < edge[None]) & (np.abs(u) < 0.95)[None])
        image = _without_red(image, known & (rows < edge[None]) & (np.abs(u) < 0.95)[None])
    inside = best.texture[best.known].astype(np.float32)
    cave = np.percentile(inside, 4, axis=0) if len(inside) else np.zeros(3, np.float32)
    cave = np.minimum(cave, np.median(painting.image[-4:].reshape(-1, 3), axis=0)).astype(np.float32)
    filled = _filled(image, known if teeth else _shrunk(known), cave, 0.5 if teeth else 2.0)
    opening = best.height / SCALE
    if best.height < WIDE_ROWS:
        # What hangs from the skull is the person's own down to where the lower lip hid it; below is painted.
        last = np.minimum(best.bottom - 2, edge + 6) if teeth else best.bottom - 2
        own = np.clip((last[None] - rows) / 3.0 + 0.5, 0.0, 1.0)
        own = gaussian_filter(np.asarray(own, np.float32), 1.0 if teeth else 3.0)[..., None]
        filled = painting.image + own * (filled - painting.image)
        opening = painting.opening
    if teeth:
        # Under the teeth it is dark: teeth stay as long as they are when the mouth opens beyond what was seen.
        strip = np.exp(-0.5 * ((rows - edge[None] - _STRIP_ROWS) / 1.1) ** 2) * np.clip(
            (1.0 - np.abs(u)) / 0.2, 0.0, 1.0
        )
        even = cv2.GaussianBlur(filled, (0, 0), sigmaX=8.0, sigmaY=1.0)
        dark = np.minimum(filled, cave + 0.2 * np.maximum(even - cave, 0.0))
        filled = filled + strip[..., None] * (dark - filled)
        e0, e1, e2 = (float(v) / SCALE for v in best.edge)
        split = e0 - ORIGIN[1] + (_STRIP_ROWS + 0.4) / SCALE
        middle = slice(int(0.5 * (w - half)), int(0.5 * (w + half)))
        top = float(np.median(np.where(known.any(axis=0), known.argmax(axis=0), best.top)[middle])) / SCALE - ORIGIN[1]
        return Made(Interior(np.asarray(filled, np.float32), split, opening, e1, e2, top), used)
    split = 0.3 * opening if best.height >= WIDE_ROWS else painting.split
    return Made(Interior(np.asarray(filled, np.float32), split, opening), used)


def _from_others(
    best: Cut, image: Floats, known: NDArray[np.bool_], others: list[Cut], wanted: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_], int]:
    """Teeth that lips hide in the best frame, from the next best ones that look alike where both show them."""
    used = 0
    for other in others:
        missing = wanted & ~known
        if missing.sum() < 20:
            break
        placed = _placed(best, other, wanted)
        if placed is None:
            continue
        texture, there = placed
        fresh = missing & there
        if fresh.sum() < 20:
            continue
        share = gaussian_filter(fresh.astype(np.float32), 1.0)[..., None] * fresh[..., None]
        share = np.where(fresh[..., None], np.maximum(share, 0.5), 0.0)
        image = np.where(fresh[..., None], texture * share + _near(image, known) * (1 - share), image)
        known = known | fresh
        used += 1
    return np.asarray(image, np.float32), known, used


def _without_red(image: Floats, wanted: NDArray[np.bool_]) -> Floats:
    """Lip and gum among the teeth take the teeth's colour at their own brightness."""
    if wanted.sum() < 50:
        return image
    luma = image @ np.array([0.299, 0.587, 0.114], np.float32)
    bright = wanted & (luma >= np.percentile(luma[wanted], 50))
    tooth = np.median(image[bright], axis=0)
    ratio = np.log((image[..., 0] + 4.0) / (image[..., 1] + 4.0))
    red = np.clip((ratio - float(np.median(ratio[bright])) - 0.08) / 0.15, 0.0, 1.0)
    red *= wanted * np.clip(luma / max(float(np.median(luma[bright])), 1.0) / 0.5 - 0.6, 0.0, 1.0)
    share = cv2.GaussianBlur(np.asarray(red, np.float32), (0, 0), 1.0)[..., None]
    plain = tooth * (luma / max(float(tooth @ np.array([0.299, 0.587, 0.114])), 1.0))[..., None]
    return np.asarray(image + share * (plain - image), np.float32)


def _near(image: Floats, known: NDArray[np.bool_]) -> Floats:
    """What is known, spread over what is not."""
    weight = known.astype(np.float32)
    spread = cv2.GaussianBlur(np.dstack([image * weight[..., None], weight]), (0, 0), 3.0)
    return np.asarray(spread[..., :3] / (spread[..., 3:] + 1e-3), np.float32)


def _placed(best: Cut, other: Cut, wanted: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]] | None:
    """The other's texture moved so that its teeth lie on the best one's, and what of it is inside; None: unlike."""
    target = best.texture.astype(np.float32)
    mine = best.known & wanted
    texture, inside = other.texture.astype(np.float32), other.known
    grey, other_grey = target.mean(axis=2), texture.mean(axis=2)
    scored: list[tuple[float, int, int]] = []
    for dy in range(-_REACH, _REACH + 1):
        for dx in range(-_REACH, _REACH + 1):
            both = mine & np.roll(inside, (dy, dx), (0, 1))
            if both.sum() < 0.35 * mine.sum():
                continue
            off = grey[both] - np.roll(other_grey, (dy, dx), (0, 1))[both]
            scored.append((float(np.sqrt((off * off).mean())) + 0.3 * (abs(dx) + abs(dy)), dy, dx))
    if not scored or min(scored)[0] > _ALIKE:
        return None
    _, dy, dx = min(scored)
    return np.roll(texture, (dy, dx), (0, 1)), np.roll(inside, (dy, dx), (0, 1))


def _from_the_other_side(
    image: Floats, known: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Teeth that no frame shows, mirrored from the other side of the mouth, in this side's light."""
    middle = round(ORIGIN[0] * SCALE)
    columns = 2 * middle - np.arange(image.shape[1])
    there = np.clip(columns, 0, image.shape[1] - 1)
    mirrored, seen = image[:, there], known[:, there] & (columns == there)[None]
    fresh = wanted & ~known & seen
    both = wanted & known & seen
    if fresh.sum() < 10:
        return image, known
    left = np.arange(image.shape[1]) < middle
    for side in (left, ~left):
        here, common = fresh & side[None], both & side[None]
        if not here.any():
            continue
        ratio = np.float32(1.0)
        if common.sum() > 50:
            ratio = np.float32(np.clip(image[common].mean() / max(float(mirrored[common].mean()), 1.0), 0.3, 3.0))
        image = np.where(here[..., None], mirrored * ratio, image)
    return np.asarray(image, np.float32), known | fresh


def _shrunk(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without what the lips colour: where nothing but dark is seen, their rims are bands."""
    return np.asarray(cv2.erode(known.astype(np.uint8), np.ones((5, 3), np.uint8)) > 0)


def _filled(image: Floats, known: NDArray[np.bool_], cave: Floats, fade_up: float) -> Floats:
    """Every pixel outside `known` from the nearest inside its column, darker with the distance; columns without any
    from their neighbours."""
    h, w = known.shape
    columns = np.flatnonzero(known.any(axis=0))
    if not len(columns):
        return np.broadcast_to(cave, image.shape).astype(np.float32)
    nearest = columns[np.abs(np.arange(w)[:, None] - columns[None]).argmin(axis=1)]
    first = known.argmax(axis=0)[nearest]
    last = h - 1 - known[::-1].argmax(axis=0)[nearest]
    rows = np.arange(h).reshape(-1, 1)
    # The outermost rows that are known have something of the lips in them.
    taken: NDArray[np.int64] = np.clip(rows, np.minimum(first + 2, last)[None], np.maximum(last - 1, first)[None])
    across = np.broadcast_to(nearest, taken.shape)
    filled: Floats = image[taken, across]
    far = (
        np.abs(np.arange(w) - nearest)[None]
        + 2 * np.maximum(rows - last[None], 0)
        + fade_up * np.maximum(first - rows, 0)
    )
    filled = cave + (filled - cave) * np.asarray(np.exp(-far / 14.0), np.float32)[..., None]
    soft = cv2.GaussianBlur(np.asarray(filled, np.float32), (0, 0), 1.5)
    # Pixels inside a column's span that are unknown between known ones take what is spread from around them.
    holes: NDArray[Any] = np.asarray(
        np.logical_not(known) & (rows >= first[None]) & (rows <= last[None]) & np.asarray(known.any(axis=0))[None]
    )
    soft = np.where(holes[..., None], _near(image, known), soft)
    share = np.asarray(gaussian_filter(known.astype(np.float32), 0.7) * known, np.float32)[..., None]
    return np.asarray(soft + share * (image - soft), np.float32)
