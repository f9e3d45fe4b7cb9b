"""What rendering borrows from a shot: the shape of its mouth, a picture of it at rest, the inside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, minimum_filter1d, uniform_filter1d

from heygemd.engines.base import Arrays
from heygemd.engines.rewrite.interior import Interior, painted, taken
from heygemd.engines.rewrite.shape import UPPER_SHARE, MouthShape, along, fit_shape
from heygemd.faces import canon
from heygemd.faces.lipflow import mouth_motion
from heygemd.faces.lipline import line_in
from heygemd.faces.lips import LipCurves, centre_of, colours_of, measure
from heygemd.faces.mouthpath import follow_mouth, shifted
from heygemd.faces.smooth import runs, smooth_values
from heygemd.faces.track import FaceTrack

KEY_BOX = (48, 104, 208, 240)
"""What a key frame shows, in canonical pixels: from under the nose to under the chin."""
CHUNK_FRAMES = 300
TALKING_PX = 1.4
"""Above this deviation of the opening (canonical pixels) the person speaks."""
CLOSED_PX = 6.0
"""Lips that part by less (canonical pixels) have a line between them to follow."""
OWN, REFERENCE = "own", "reference"


@dataclass(frozen=True)
class KeyFrame:
    """A large picture of the mouth, BGR of KEY_BOX at `scale` pixels each, compressed."""

    index: int
    scale: float
    data: bytes

    def image(self) -> NDArray[np.uint8]:
        return np.asarray(cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@dataclass(frozen=True)
class ShotMaterial:
    """Of one shot. Row-wise arrays belong to the frames `rows`; pixels are canonical.

    `shift` (n, 2): where the mouth is, against where `shape` has it · `opening` (n,) · `width` (n,) in
    deviations · `trust` (n,) 0..1.
    `mode`: "own" warps each frame's own lips; "reference" puts the lips of one resting frame in their place first.
    """

    number: int
    rows: NDArray[np.int64]
    shift: NDArray[np.float32]
    opening: NDArray[np.float32]
    width: NDArray[np.float32]
    trust: NDArray[np.float32]
    shape: MouthShape
    mode: str
    reason: str
    interior: Interior
    interior_from: str
    picture: NDArray[np.uint8]
    picture_scale: float

    def to_arrays(self) -> Arrays:
        name = f"shot{self.number}_"
        return {
            name + "shape": self.shape.to_row(),
            name + "numbers": np.array(
                [self.mode == REFERENCE, self.picture_scale, self.interior.split, self.interior.opening], np.float32
            ),
            name + "inside": np.clip(self.interior.image + 0.5, 0, 255).astype(np.uint8),
            name + "picture": self.picture,
        }


def material_of(
    number: int,
    rows: NDArray[np.int64],
    crop: Callable[[int], NDArray[np.uint8]],
    keys: list[KeyFrame],
    track: FaceTrack,
    raw: NDArray[np.float64],
    fps: float,
) -> ShotMaterial | None:
    """None when there is no key frame to borrow from. `raw` (frames, 2, 3): canonical→source before smoothing."""
    if not keys:
        return None
    eyes = np.asarray(track.eyes[number], np.float64)
    at = np.searchsorted(rows, [k.index for k in keys])
    turn, quality = track.turn[rows], track.quality[rows]
    first = int(at[np.argmin(turn[at] + 0.2 * (1 - quality[at]))])
    sample = rows[:: max(1, len(rows) // 60)]
    place = centre_of(np.stack([crop(int(i)) for i in sample]), eyes)
    seen, match = follow_mouth(rows, crop, int(rows[first]), place)
    if np.ptp(seen, axis=0).max() > 8:
        # Much nodding: start again from a frame in the middle of it, so that both ends are within reach.
        off = np.abs(seen[at] - np.median(seen, axis=0)).sum(axis=1)
        first = int(at[np.argmin(off + 100 * turn[at] + 20 * (1 - quality[at]))])
        seen, match = follow_mouth(rows, crop, int(rows[first]), place)
    still = shifted(crop, {int(row): seen[i] for i, row in enumerate(rows)})
    curves = _all_curves(rows, still, eyes)
    motion = mouth_motion(rows, still, curves)
    opening = motion.opening
    talking = len(rows) > 12 and float(np.std(opening)) > TALKING_PX
    rest_row = _rest_frame(curves, opening, turn, quality, at) if talking else first
    key = keys[int(np.flatnonzero(at == rest_row)[0])]
    look = np.array([rest_row]) if talking else np.arange(len(rows))
    shape = fit_shape(curves, look)
    rest = np.stack([still(int(rows[i])) for i in look[:: max(1, len(look) // 30)]])
    if shape.gap < 16.0:
        # Between closed lips there is a line to follow to its ends, and a smile has dark corners; a wide open mouth has
        # neither.
        found = line_in(rest, shape.line, (shape.left, shape.right), shape.gap < CLOSED_PX)
        shape = fit_shape(replace(curves, corners=found.corners[:, 0]), look, None if talking else found.corners[:, 1])
        if shape.gap < CLOSED_PX:
            shape = along(shape, found)
    interior, source = _inside(keys, at, opening, curves, turn, seen, shape, key, 0.0 if talking else -9.0)
    # From here on the shape is where the resting frame itself has it, and shifts are against that frame.
    shape = shape.moved(*(float(v) for v in seen[rest_row]))
    seen = seen - seen[rest_row]
    shift = _in_smoothed_frame(seen, shape, raw[rows], track.canonical[rows].astype(np.float64))
    for start, stop in runs(track.found[rows], np.cumsum(np.diff(rows, prepend=rows[0]) > 1).astype(np.int32)):
        shift[start:stop] = smooth_values(shift[start:stop], 1.5 if talking else 4.0)
    picture = key.image()
    reason = (
        f"the person speaks (opening varies by {float(np.std(opening)):.1f} of 72)"
        if talking
        else f"the mouth hardly moves (opening varies by {float(np.std(opening)):.1f} of 72)"
    )
    return ShotMaterial(
        number,
        rows,
        shift.astype(np.float32),
        opening.astype(np.float32),
        motion.width.astype(np.float32),
        _trust(track, rows, match, fps),
        shape,
        REFERENCE if talking else OWN,
        reason,
        interior,
        source,
        np.ascontiguousarray(picture[:, :, ::-1]),
        key.scale,
    )


def _all_curves(rows: NDArray[np.int64], crop: Callable[[int], NDArray[np.uint8]], eyes: canon.Points) -> LipCurves:
    parts = []
    for start in range(0, len(rows), CHUNK_FRAMES):
        stop = min(len(rows), start + CHUNK_FRAMES)
        parts.append(measure(np.stack([crop(int(i)) for i in rows[start:stop]]), eyes))
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return LipCurves(
        first.columns,
        np.concatenate([p.rows for p in parts]),
        np.concatenate([p.gain for p in parts]),
        np.mean([p.corners for p in parts], axis=0),
    )


def _rest_frame(
    curves: LipCurves,
    opening: NDArray[np.float64],
    turn: NDArray[np.float32],
    quality: NDArray[np.float32],
    at: NDArray[np.int64],
) -> int:
    """The key frame whose mouth is closed, relaxed and seen from the usual side."""
    middle = curves.rows[:, 5:8]
    thickness = np.median(middle[:, :, 3] - middle[:, :, 2] + middle[:, :, 1] - middle[:, :, 0], axis=1)
    height = np.median(middle[:, :, 0], axis=1)
    closed = float(np.percentile(opening, 8))
    gaps = curves.rows[:, 3:10, 2] - curves.rows[:, 3:10, 1]
    line = curves.rows[:, 3:10, 1:3].mean(axis=2)
    bend = np.abs(np.diff(line, 2, axis=1)).mean(axis=1)
    cost = (
        1.0 * np.maximum(opening - closed, 0)
        + 0.6 * np.maximum(gaps - closed - 1.0, 0).mean(axis=1)
        + 0.5 * bend
        + 40.0 * turn
        + 0.35 * np.abs(thickness - np.median(thickness))
        + 0.25 * np.abs(height - np.median(height))
        + 6.0 * np.maximum(0.6 - quality, 0)
        - 0.02 * np.minimum(np.median(curves.gain[:, 4:9], axis=1), 100)
    )
    return int(at[np.argmin(cost[at])])


def _in_smoothed_frame(
    seen: NDArray[np.float64], shape: MouthShape, raw: NDArray[np.float64], smooth: NDArray[np.float64]
) -> NDArray[np.float64]:
    mouth = np.array([shape.centre, shape.c0])
    out = np.empty_like(seen)
    for i in range(len(seen)):
        there = raw[i][:, :2] @ (mouth + seen[i]) + raw[i][:, 2]
        out[i] = np.linalg.solve(smooth[i][:, :2], there - smooth[i][:, 2]) - mouth
    return out


def _colours(
    picture: NDArray[np.uint8], scale: float, shape: MouthShape
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(3,) RGB of the skin beside and under the mouth, and of the lower lip."""

    def median(x0: float, y0: float, x1: float, y1: float) -> NDArray[np.float32]:
        a, b, c, d = (
            int(v)
            for v in (
                (x0 - KEY_BOX[0]) * scale,
                (y0 - KEY_BOX[1]) * scale,
                (x1 - KEY_BOX[0]) * scale,
                (y1 - KEY_BOX[1]) * scale,
            )
        )
        part = picture[max(0, b) : max(1, d), max(0, a) : max(1, c)].reshape(-1, 3)
        return np.asarray(np.median(part, axis=0)[::-1], np.float32)

    c, y = shape.centre, shape.c0
    # Chin, cheeks and upper lip may be shaded or bearded: the skin is what the brighter part of the picture shows.
    small = cv2.resize(picture, (40, 34), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    bright = small.sum(axis=1)
    skin = np.asarray(
        small[(bright > np.percentile(bright, 60)) & (bright < np.percentile(bright, 90))].mean(axis=0)[::-1]
    )
    lip = median(c - 8, y + 0.78 * shape.gap + 3, c + 8, y + 0.78 * shape.gap + max(6.0, shape.lower - 2))
    return skin, lip


def _inside(
    keys: list[KeyFrame],
    at: NDArray[np.int64],
    opening: NDArray[np.float64],
    curves: LipCurves,
    turn: NDArray[np.float32],
    shift: NDArray[np.float64],
    shape: MouthShape,
    rest: KeyFrame,
    least_worth: float,
) -> tuple[Interior, str]:
    """The person's own open mouth where a key frame shows one wide enough, else a painted one."""
    skin, lip = _colours(rest.image(), rest.scale, shape.moved(*(float(v) for v in shift[_row_of(rest, keys, at)])))
    painting = painted(shape, skin, lip)
    wide = opening[at]
    best: tuple[float, MouthShape, KeyFrame] | None = None
    for pick in np.argsort(-wide)[:16]:
        if wide[pick] < 4.0:
            break
        key, row = keys[int(pick)], at[int(pick)]
        corners = np.array([shape.left, shape.right])
        seen = fit_shape(replace(curves, corners=corners), np.array([row]))
        if seen.gap < 4.0:
            continue
        lips, untidy, teeth = _doubts(key, seen, curves, int(row), lip, shift[row])
        worth = min(seen.gap, 15.0) / 15.0 - max(0.0, seen.gap - 20.0) / 10.0 + 0.7 * teeth - 1.5 * lips
        worth -= untidy / 5.0 + 5.0 * float(turn[row])
        if best is None or worth > best[0]:
            best = worth, seen.moved(*(float(v) for v in shift[row])), key
    if best is None or best[0] < least_worth:
        return painting, "painted"
    _, seen, key = best
    picture = np.ascontiguousarray(key.image()[:, :, ::-1]).astype(np.float32)
    return taken(picture, key.scale, np.array(KEY_BOX[:2], np.float64), seen, painting), f"frame {key.index}"


def _row_of(key: KeyFrame, keys: list[KeyFrame], at: NDArray[np.int64]) -> int:
    return int(at[[k.index for k in keys].index(key.index)])


def _doubts(
    key: KeyFrame,
    seen: MouthShape,
    curves: LipCurves,
    row: int,
    lip: NDArray[np.float32],
    shift: NDArray[np.float64],
) -> tuple[float, float, float]:
    """Of an open mouth: how much of its inside looks like lip (0..1), how far the columns are from the fitted curves
    (pixels), and how much brighter it is above, where the upper teeth are, than below (-1..1)."""
    image = cv2.resize(key.image(), (KEY_BOX[2] - KEY_BOX[0], KEY_BOX[3] - KEY_BOX[1]), interpolation=cv2.INTER_AREA)
    ratio, light = colours_of(image)
    x = (np.arange(KEY_BOX[0], KEY_BOX[2]) - shift[0]).astype(np.float32)
    y = (np.arange(KEY_BOX[1], KEY_BOX[3]) - shift[1]).astype(np.float32)[:, None]
    gap = seen.gap * seen.profile(x)
    depth = (y - seen.line(x) + UPPER_SHARE * gap) / np.maximum(gap, 1.0)
    inside = (depth > 0.1) & (depth < 0.9) & (gap > 0.5 * seen.gap)
    if not inside.any():
        return 1.0, 9.0, 0.0
    lip = lip + 4.0
    lip_ratio = float(np.log(lip[0] / lip[1]))
    lip_light = float(np.log(lip @ np.array([0.299, 0.587, 0.114], np.float32)))
    alike = np.exp(-0.5 * ((ratio[inside] - lip_ratio) / 0.07) ** 2 - 0.5 * ((light[inside] - lip_light) / 0.14) ** 2)
    here = slice(2, 11)
    seen_gaps = curves.rows[row, here, 2] - curves.rows[row, here, 1]
    untidy = float(np.median(np.abs(seen_gaps - seen.gap * seen.profile(curves.columns[here].astype(np.float32)))))
    upper, lower = light[inside & (depth < 0.4)], light[inside & (depth > 0.6)]
    teeth = float(np.clip(np.median(upper) - np.median(lower), -1.0, 1.0)) if len(upper) and len(lower) else 0.0
    return float(alike.mean()), untidy, teeth


def _trust(track: FaceTrack, rows: NDArray[np.int64], match: NDArray[np.float64], fps: float) -> NDArray[np.float32]:
    """1 where the pose is near the shot's usual one, 0 where a mouth would sit on the cheek; eased over time."""
    turned = 1.0 - np.clip((track.turn[rows] - 0.16) / 0.12, 0.0, 1.0)
    # Half a mouth over another is worse than either: it is one or the other, eased over a few frames.
    fits = np.where(match > 0.35, 1.0, 0.0)
    raw = np.minimum(turned, fits)
    if len(raw) < 5:
        return np.ones(len(raw), np.float32)
    wide = max(3, round(fps / 5) | 1)
    return np.asarray(uniform_filter1d(minimum_filter1d(median_filter(raw, 3), wide), wide), np.float32)
