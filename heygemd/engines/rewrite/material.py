"""What rendering borrows from a shot: the shape of its mouth, a picture of it at rest, the inside of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter, minimum_filter1d, uniform_filter1d

from heygemd.core.heartbeat import beat
from heygemd.core.options import Options
from heygemd.engines.base import Arrays
from heygemd.engines.rewrite.inside import Choice, OpenMouths, interior_of
from heygemd.engines.rewrite.landmarked import Located, corners_at, locate, nothing_located, reaching, with_landmarks
from heygemd.engines.rewrite.shape import MouthShape, along, fit_shape
from heygemd.faces import canon
from heygemd.faces.landmarks import Landmarks
from heygemd.faces.lipflow import mouth_motion
from heygemd.faces.lipline import line_in
from heygemd.faces.lips import LipCurves, centre_of, measure
from heygemd.faces.mouthpath import follow_mouth, shifted
from heygemd.faces.smooth import runs, smooth_values
from heygemd.faces.track import FaceTrack

CHUNK_FRAMES = 300
TALKING_PX = 1.4
"""Above this deviation of the opening (canonical pixels) the person speaks."""
CLOSED_PX = 6.0
"""Lips that part by less (canonical pixels) have a line between them to follow."""
LEAST_WORTH = 0.15
"""Of an open mouth (`Cut.worth`) for its inside to be used."""
OWN, RESTING = "own", "resting"


@dataclass(frozen=True)
class KeyFrame:
    """A large picture of the mouth, BGR of KEY_BOX at `scale` pixels each, compressed."""

    index: int
    scale: float
    data: bytes
    face_data: bytes = b""
    """The whole face, as landmarks are looked for in it; only where somebody looks for them."""

    def image(self) -> NDArray[np.uint8]:
        return np.asarray(cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR), np.uint8)

    def face(self) -> NDArray[np.uint8]:
        return np.asarray(cv2.imdecode(np.frombuffer(self.face_data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


@dataclass(frozen=True)
class ShotMaterial:
    """Of one shot. Row-wise arrays belong to the frames `rows`; pixels are canonical.

    `shift` (n, 2): where the mouth is, against where `shape` has it · `opening` (n,) · `width` (n,) in
    deviations · `trust` (n,) 0..1.
    `speaks`: whether the mouth moves in the source · `lips`: "own" warps each frame's own; "resting" puts those of one
    frame at rest in their place first.
    """

    number: int
    rows: NDArray[np.int64]
    shift: NDArray[np.float32]
    opening: NDArray[np.float32]
    width: NDArray[np.float32]
    trust: NDArray[np.float32]
    shape: MouthShape
    speaks: bool
    lips: str
    lips_why: str
    located: Located
    inside: Choice
    picture: NDArray[np.uint8]
    picture_scale: float

    def to_arrays(self) -> Arrays:
        name = f"shot{self.number}_"
        return {
            name + "shape": self.shape.to_row(),
            name + "numbers": np.array(
                [
                    self.lips == RESTING,
                    self.speaks,
                    self.picture_scale,
                    self.inside.interior.split,
                    self.inside.interior.opening,
                    self.inside.interior.tilt,
                    self.inside.interior.bend,
                    self.inside.interior.top,
                ],
                np.float32,
            ),
            name + "inside": np.clip(self.inside.interior.image + 0.5, 0, 255).astype(np.uint8),
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
    options: Options,
    landmarks: Landmarks,
    most_looks: int,
) -> ShotMaterial | None:
    """None when there is no key frame to borrow from. `raw` (frames, 2, 3): canonical→source before smoothing.
    `most_looks`: frames that landmarks may be taken of."""
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
    # To bend lips that move by themselves one must know in each frame how far they are apart; at rest they are closed.
    lips = (RESTING if talking else OWN) if options.lips == "auto" else options.lips
    one_look = talking or lips == RESTING
    cost = _rest_cost(curves, opening, turn, quality)
    located = nothing_located("the mouth hardly moves: its lips are measured in every frame together")
    if talking:
        # Rendering may borrow from the most restful frames and from those that are wide open.
        likely = [*at[np.argsort(cost[at])[:5]], *at[np.argsort(-opening[at])[:3]]]
        located = locate(landmarks, keys, at, motion, [int(row) for row in likely], eyes, seen, most_looks)
        motion, located = with_landmarks(motion, located)
        opening = motion.opening
    rest_row = first
    if one_look and len(located.rows):
        cost = _rest_cost(curves, located.at_least(opening), turn, quality)
        rest_row = int(located.rows[np.argmin(cost[located.rows])])
    elif one_look:
        rest_row = int(at[np.argmin(cost[at])])
    key = keys[int(np.flatnonzero(at == rest_row)[0])]
    look = np.array([rest_row]) if one_look else np.arange(len(rows))
    shape = fit_shape(curves, look)
    rest = np.stack([still(int(rows[i])) for i in look[:: max(1, len(look) // 30)]])
    if shape.gap < 16.0:
        # Between closed lips there is a line to follow to its ends, and a smile has dark corners; a wide open mouth has
        # neither.
        found = line_in(rest, shape.line, (shape.left, shape.right), shape.gap < CLOSED_PX)
        if len(located.rows):
            found = reaching(found, corners_at(located, motion, rest_row))
        shape = fit_shape(replace(curves, corners=found.corners[:, 0]), look, None if talking else found.corners[:, 1])
        if shape.gap < CLOSED_PX:
            shape = along(shape, found)
    mouths = OpenMouths(keys, at, opening, seen, turn, curves)
    inside = interior_of(mouths, shape, key, options.interior, LEAST_WORTH if talking else -9.0)
    # From here on the shape is where the resting frame itself has it, and shifts are against that frame.
    shape = shape.moved(*(float(v) for v in seen[rest_row]))
    seen = seen - seen[rest_row]
    shift = _in_smoothed_frame(seen, shape, raw[rows], track.canonical[rows].astype(np.float64))
    for start, stop in runs(track.found[rows], np.cumsum(np.diff(rows, prepend=rows[0]) > 1).astype(np.int32)):
        shift[start:stop] = smooth_values(shift[start:stop], 1.5 if talking else 4.0)
    picture = key.image()
    why = "the person speaks" if talking else "the mouth hardly moves"
    why = f"{why} (opening varies by {float(np.std(opening)):.1f} of 72)"
    return ShotMaterial(
        number,
        rows,
        shift.astype(np.float32),
        opening.astype(np.float32),
        motion.width.astype(np.float32),
        _trust(track, rows, match, fps),
        shape,
        talking,
        lips,
        why if options.lips == "auto" else f"asked for; {why}",
        located,
        inside,
        np.ascontiguousarray(picture[:, :, ::-1]),
        key.scale,
    )


def _all_curves(rows: NDArray[np.int64], crop: Callable[[int], NDArray[np.uint8]], eyes: canon.Points) -> LipCurves:
    parts = []
    for start in range(0, len(rows), CHUNK_FRAMES):
        beat()
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


def _rest_cost(
    curves: LipCurves, opening: NDArray[np.float64], turn: NDArray[np.float32], quality: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(n,) how far each frame is from a mouth that is closed, relaxed and seen from the usual side."""
    middle = curves.rows[:, 5:8]
    thickness = np.median(middle[:, :, 3] - middle[:, :, 2] + middle[:, :, 1] - middle[:, :, 0], axis=1)
    height = np.median(middle[:, :, 0], axis=1)
    closed = float(np.percentile(opening, 8))
    gaps = curves.rows[:, 3:10, 2] - curves.rows[:, 3:10, 1]
    line = curves.rows[:, 3:10, 1:3].mean(axis=2)
    bend = np.abs(np.diff(line, 2, axis=1)).mean(axis=1)
    return np.asarray(
        1.0 * np.maximum(opening - closed, 0)
        + 0.6 * np.maximum(gaps - closed - 1.0, 0).mean(axis=1)
        + 0.5 * bend
        + 40.0 * turn
        + 0.35 * np.abs(thickness - np.median(thickness))
        + 0.25 * np.abs(height - np.median(height))
        + 6.0 * np.maximum(0.6 - quality, 0)
        - 0.02 * np.minimum(np.median(curves.gain[:, 4:9], axis=1), 100)
    )


def _in_smoothed_frame(
    seen: NDArray[np.float64], shape: MouthShape, raw: NDArray[np.float64], smooth: NDArray[np.float64]
) -> NDArray[np.float64]:
    mouth = np.array([shape.centre, shape.c0])
    out = np.empty_like(seen)
    for i in range(len(seen)):
        beat()
        there = raw[i][:, :2] @ (mouth + seen[i]) + raw[i][:, 2]
        out[i] = np.linalg.solve(smooth[i][:, :2], there - smooth[i][:, 2]) - mouth
    return out


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
