"""Landmarks of a shot: of which frames, whether to believe them, and what they change in what was measured without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heygemd.faces import canon
from heygemd.faces.landmarks import LEFT, RIGHT, Image, Landmarks, implausible, opening_of, to_canonical
from heygemd.faces.landmarks_fit import LEAST_FRAMES, LEAST_R, fit_opening, frames_to_look_at
from heygemd.faces.lipflow import MouthMotion
from heygemd.faces.lipline import LipLine

Doubles = NDArray[np.float64]

MOST_FRAMES, MOST_IN_CLIP = 24, 48
"""Frames that landmarks are taken of, in a shot and in a clip: .4 s of CPU each."""
_FIRST_FRAMES = 6
_ALIKE_PX, _ALIKE_DEVIATIONS = 3.0, 0.5
_ENDS_EARLY_PX = 2.5
_CLOSED_BY_CHANCE_PX = 1.5
"""Landmarks of closed lips are so far apart now and then."""
LANDMARKS, COLOURS = "landmarks", "colours and flow"


class Pictured(Protocol):
    """A frame with a picture of its whole face, as `landmarks.face_picture` cuts it."""

    @property
    def index(self) -> int: ...
    def face(self) -> Image: ...


@dataclass(frozen=True)
class Located:
    """Landmarks of some frames of a shot. `rows` (k,) · `points` (k, 68, 2) canonical, the mouth held in place.

    `by`: what measured the mouth; `why`: in words. Without any landmarks `rows` is empty.
    """

    rows: NDArray[np.int64]
    points: Doubles
    by: str
    why: str

    def at_least(self, measured: Doubles) -> Doubles:
        """(n,) the measured opening, or the landmarks' own where it is clearly larger: closed is what both call so."""
        own = measured.copy()
        own[self.rows] = np.maximum(measured[self.rows], opening_of(self.points) - _CLOSED_BY_CHANCE_PX)
        return own


def nothing_located(why: str) -> Located:
    return Located(np.zeros(0, np.int64), np.zeros((0, 68, 2)), COLOURS, why)


def locate(
    landmarks: Landmarks,
    keys: Sequence[Pictured],
    at: NDArray[np.int64],
    motion: MouthMotion,
    likely: Sequence[int],
    eyes: canon.Points,
    shift: Doubles,
    most: int,
) -> Located:
    """Landmarks of up to `most` key frames. `at` (keys,): their rows; `likely`: rows that rendering may borrow from;
    `shift` (n, 2): where the mouth is in each row. Raises what the landmarker raises."""
    if landmarks.landmarker is None:
        return nothing_located(landmarks.why)
    if min(most, len(keys)) < LEAST_FRAMES:
        why = "too few frames of the shot" if len(keys) < LEAST_FRAMES else "the frames went to longer shots"
        return nothing_located(f"landmarks want {LEAST_FRAMES} frames: {why}")
    of_row = {int(row): key for row, key in zip(at, keys, strict=True)}
    wanted = frames_to_look_at(at, motion.opening, likely, most)
    rows: list[int] = []
    points: list[Doubles] = []
    wrong: list[str] = []
    tried = 0
    first = wanted[:: max(1, len(wanted) // _FIRST_FRAMES)][:_FIRST_FRAMES]
    for part in (first, [row for row in wanted if row not in first]):
        if tried and not rows:
            break  # nothing like a face in any of the first: the rest would only cost time
        tried += len(part)
        for row, found in zip(part, landmarks.landmarker.locate([of_row[row].face() for row in part]), strict=True):
            there = to_canonical(found)
            reason = implausible(there, eyes)
            if reason:
                wrong.append(reason)
            else:
                rows.append(row)
                points.append(there - shift[row])
    if len(rows) < max(LEAST_FRAMES, tried // 2):
        usual = max(sorted(set(wrong)), key=wrong.count)
        return nothing_located(f"landmarks fit the face in {len(rows)} of {tried} frames only (mostly: {usual})")
    return Located(np.array(rows, np.int64), np.stack(points), LANDMARKS, f"{len(rows)} of {tried} frames")


def frames_for(shots: Sequence[int]) -> list[int]:
    """How many frames to look at in each shot, by the number of its frames: no more than MOST_IN_CLIP in all, and
    where that is too little for all of them, in the longest ones."""
    fair = min(MOST_FRAMES, max(LEAST_FRAMES, MOST_IN_CLIP // max(1, sum(frames > 0 for frames in shots))))
    room, out = MOST_IN_CLIP, [0] * len(shots)
    for number in sorted(range(len(shots)), key=lambda k: -shots[k]):
        out[number] = fair if room >= fair and shots[number] else 0
        room -= out[number]
    return out


def with_landmarks(motion: MouthMotion, located: Located) -> tuple[MouthMotion, Located]:
    """The motion with openings in the landmarks' pixels; or as it was, and why."""
    if not len(located.rows):
        return motion, located
    fit = fit_opening(motion, [int(row) for row in located.rows], opening_of(located.points))
    if fit.r < LEAST_R:
        return motion, nothing_located(f"landmarks do not follow the mouth (r {fit.r:.2f} with its picture)")
    why = f"{located.why}; the fit is off by {fit.error:.1f} of 72 in the middle of them"
    return replace(motion, opening=fit.opening), replace(located, why=why)


def corners_at(located: Located, motion: MouthMotion, row: int) -> Doubles:
    """(2, 2) x and y of the mouth's corners when it looks as in `row` (one of those located), canonical pixels, the
    mouth held in place: the median of the frames whose opening and width are like that one's."""
    alike = np.abs(motion.opening[located.rows] - motion.opening[row]) <= _ALIKE_PX
    alike &= np.abs(motion.width[located.rows] - motion.width[row]) <= _ALIKE_DEVIATIONS
    return np.asarray(np.median(located.points[alike][:, [LEFT, RIGHT]], axis=0))


def reaching(line: LipLine, corners: Doubles) -> LipLine:
    """The line between the lips, led on to the corners (2, 2) that landmarks saw where it ended early.

    Never shortened: looked at in ten halves of clips, the line was right wherever it went further than landmarks."""
    ends, x, y, strength = line.corners.copy(), line.x, line.y, line.strength
    usual = float(np.median(strength))
    for side, sign in ((0, -1), (1, 1)):
        if sign * (corners[side, 0] - ends[side, 0]) <= _ENDS_EARLY_PX:
            continue
        last = int(np.argmax(sign * x))
        way = np.arange(1.0, sign * (corners[side, 0] - x[last])) * sign
        share = way / (corners[side, 0] - x[last])
        x = np.concatenate([x, x[last] + way])
        y = np.concatenate([y, y[last] + share * (corners[side, 1] - y[last])])
        strength = np.concatenate([strength, np.full(len(way), usual)])
        ends[side] = corners[side]
    return replace(line, x=x, y=y, strength=strength, corners=ends)
