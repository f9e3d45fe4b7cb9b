"""Sixty-eight points of a face, where a network for them is there: what is asked of it, and what is believed of it.

The points are those of the 300-W data set, counted from 0, in the order of the picture from left to right: 36 to 41 and
42 to 47 eyes, 33 the base of the nose, 48 to 59 the outer edge of the lips, 60 to 67 the inner one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.faces import canon

Image = NDArray[np.uint8]
Points = NDArray[np.float64]

NUM_POINTS = 68
FACE_PX = 256
"""Side of the pictures that landmarks are looked for in."""
FACE_CENTRE, FACE_SIDE = (128.0, 88.0), 350.0
"""Where such a picture lies, in canonical pixels: as face-alignment cuts it around a box of its default detector, which
reaches from ear to ear and from the forehead to the chin. Its centre is above the nose."""
EYES = slice(36, 42), slice(42, 48)
NOSE, LEFT, RIGHT, TOP, BOTTOM = 33, 48, 54, 51, 57
INNER_TOP, INNER_BOTTOM = 62, 66

_EYE_OFF = 0.25 * canon.EYE_DISTANCE
_INSIDE = (-24.0, canon.SIZE + 24.0)
_MOUTH_WIDTH = (0.35 * canon.EYE_DISTANCE, 1.35 * canon.EYE_DISTANCE)


class Landmarker(Protocol):
    """Finds the points of one face in each picture."""

    @property
    def name(self) -> str:
        """For the receipt."""
        ...

    def locate(self, faces: Sequence[Image]) -> Points:
        """`faces`: (256, 256, 3) uint8 BGR, as `face_picture` cuts them. Returns (n, 68, 2) in their pixels; points of
        what is no face are anywhere. Deterministic. Raises CheckpointError, RenderError."""
        ...

    def close(self) -> None:
        """Let go of the network; `locate` may load it again."""
        ...


@dataclass(frozen=True)
class Landmarks:
    """Who finds landmarks here, or None, and why not."""

    landmarker: Landmarker | None
    why: str = ""


def face_picture(image: Image, matrix: canon.Affine) -> Image:
    """The face, upright, with what is around it, (256, 256, 3). `matrix`: canonical→image; beyond its edge it is black.

    Large faces are made small by averages, as any network expects of a photograph.
    """
    step = FACE_SIDE / FACE_PX
    fine = int(np.clip(np.ceil(step * canon.scale_of(matrix)), 1, 4))
    corner = np.array(FACE_CENTRE) - FACE_SIDE / 2 + 0.5 * (step / fine - 1)
    inner = canon.compose(matrix, np.array([[step / fine, 0.0, corner[0]], [0.0, step / fine, corner[1]]]))
    size = (FACE_PX * fine, FACE_PX * fine)
    seen = cv2.warpAffine(image, inner, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(
        cv2.resize(seen, (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA) if fine > 1 else seen, np.uint8
    )


def to_canonical(points: Points) -> Points:
    """(…, 2) pixels of a face picture → canonical pixels."""
    corner = np.array(FACE_CENTRE) - FACE_SIDE / 2
    return np.asarray((points + 0.5) * (FACE_SIDE / FACE_PX) + corner - 0.5, np.float64)


def implausible(points: Points, eyes: Points) -> str:
    """Why these are not the landmarks of the face that is followed, or nothing.

    `points` (68, 2) and `eyes` (2, 2), the pupils that the tracker knows, in canonical pixels.
    """
    if not np.isfinite(points).all():
        return "points are missing"
    # The jaw's may leave the picture; eyes, nose and mouth do not.
    inner = points[27:]
    if inner.min() < _INSIDE[0] or inner.max() > _INSIDE[1]:
        return "points lie outside of the face"
    found = np.stack([points[part].mean(axis=0) for part in EYES])
    if np.linalg.norm(found - eyes, axis=1).max() > _EYE_OFF:
        return "its eyes are not where the eyes are"
    width = float(points[RIGHT, 0] - points[LEFT, 0])
    if width < _MOUTH_WIDTH[0]:
        return "the corners of the mouth are the wrong way round or too close to each other"
    if width > _MOUTH_WIDTH[1]:
        return "the mouth is too wide"
    level = float(points[[LEFT, RIGHT], 1].mean())
    if not found[:, 1].max() < points[NOSE, 1] < min(level, float(points[TOP, 1]) + 4.0):
        return "the mouth is not under the nose, or the nose not under the eyes"
    heights = points[[TOP, INNER_TOP, INNER_BOTTOM, BOTTOM], 1]
    if np.diff(heights).min() < -3.0 or heights[3] - heights[0] < 4.0:
        return "the lips are not one above the other"
    return ""


def opening_of(points: Points) -> NDArray[np.float64]:
    """(n,) how far the lips are apart in the middle; `points` (n, 68, 2)."""
    return np.maximum(points[:, INNER_BOTTOM, 1] - points[:, INNER_TOP, 1], 0.0)
