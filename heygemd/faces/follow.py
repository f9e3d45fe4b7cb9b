"""Following one face from frame to frame, against fixed reference pictures so that nothing drifts.

Corners on eyes and nose (the parts of a face that speech does not move) are sought again in every frame, which is
first brought into the canonical frame by the last known transform; what is left is a few pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.faces import canon

Grey = NDArray[np.uint8]
PATCH_SCALE = 0.75
PATCH_PX = int(canon.SIZE * PATCH_SCALE)
MAX_REFERENCES = 6
_TO_PATCH = np.array([[PATCH_SCALE, 0.0, 0.0], [0.0, PATCH_SCALE, 0.0]])
_FLOW: dict[str, Any] = {
    "winSize": (17, 17),
    "maxLevel": 2,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.03),
}
_RIGID = np.zeros((PATCH_PX, PATCH_PX), np.uint8)
cv2.ellipse(_RIGID, (PATCH_PX // 2, 66), (52, 30), 0, 0, 360, 255, -1)  # eyes and brows
cv2.ellipse(_RIGID, (PATCH_PX // 2, 84), (22, 22), 0, 0, 360, 255, -1)  # nose, down to its tip


@dataclass(frozen=True)
class Hold:
    """Where the face is in one frame. `matrix`: canonical→image; `share`: of corners that agree, 0..1."""

    matrix: canon.Affine
    share: float


@dataclass(frozen=True)
class _Reference:
    patch: Grey
    points: NDArray[np.float32]


def patch_of(image: NDArray[np.uint8], matrix: canon.Affine, factor: float = PATCH_SCALE, size: int = PATCH_PX) -> Grey:
    """The face in the canonical frame at `factor`, from `image` (grey or BGR) under canonical→image `matrix`."""
    inner = canon.compose(matrix, np.array([[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]]))
    shrink = canon.scale_of(inner)
    if shrink > 1.6:
        return _patch_of_large(image, inner, shrink, size)
    out: Grey = cv2.warpAffine(
        image, inner, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def _patch_of_large(image: NDArray[np.uint8], inner: canon.Affine, shrink: float, size: int) -> Grey:
    # Bilinear sampling alone would alias: average the surroundings of the face down first.
    corners = canon.apply(inner, np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    h, w = image.shape[:2]
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int) - 2, 0, [w - 2, h - 2])
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, [x0 + 2, y0 + 2], [w, h])
    crop = image[y0:y1, x0:x1]
    small = cv2.resize(
        crop,
        (max(2, round(crop.shape[1] / shrink)), max(2, round(crop.shape[0] / shrink))),
        interpolation=cv2.INTER_AREA,
    )
    sx, sy = small.shape[1] / crop.shape[1], small.shape[0] / crop.shape[0]
    # Pixel centres: x_small = (x + .5 - x0) * sx - .5.
    down = np.array([[sx, 0.0, (0.5 - x0) * sx - 0.5], [0.0, sy, (0.5 - y0) * sy - 0.5]])
    out: Grey = cv2.warpAffine(
        small,
        canon.compose(down, inner),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return out


class Follower:
    """One face in one shot. `matrix`: canonical→image in the frame it starts with."""

    def __init__(self, grey: Grey, matrix: canon.Affine) -> None:
        self._matrix = matrix
        self._references = [_reference(patch_of(grey, matrix))]
        self._current = 0

    @property
    def usable(self) -> bool:
        """Whether the face has enough texture to hold on to."""
        return len(self._references[0].points) >= 12

    def update(self, grey: Grey) -> Hold | None:
        """The face in the next frame, or None when it is lost."""
        best = self._against(grey, self._current)
        if best is None or best.share < 0.55:
            for other in range(len(self._references)):
                if other == self._current:
                    continue
                hold = self._against(grey, other)
                if hold is not None and (best is None or hold.share > best.share):
                    best, self._current = hold, other
        if best is None or best.share < 0.25:
            return None
        self._matrix = best.matrix
        if best.share < 0.5 and len(self._references) < MAX_REFERENCES:
            fresh = _reference(patch_of(grey, best.matrix))
            if len(fresh.points) >= 12:
                self._references.append(fresh)
                self._current = len(self._references) - 1
        return best

    def _against(self, grey: Grey, which: int) -> Hold | None:
        reference = self._references[which]
        matrix, share = self._matrix, 0.0
        for attempt in range(2):
            found = _residual(reference, patch_of(grey, matrix))
            if found is None:
                return None
            residual, share = found
            # patch → canonical on both sides of the residual
            inner = canon.compose(canon.invert(_TO_PATCH), canon.compose(residual, _TO_PATCH))
            matrix = canon.compose(matrix, inner)
            moved = np.abs(residual - np.eye(2, 3)) @ np.array([PATCH_PX / 2, PATCH_PX / 2, 1.0])
            if moved.max() < 5.0 or attempt == 1:
                break
        ratio = canon.scale_of(matrix) / canon.scale_of(self._matrix)
        return Hold(matrix, share) if 0.8 < ratio < 1.25 else None


def _reference(patch: Grey) -> _Reference:
    points = cv2.goodFeaturesToTrack(patch, 70, 0.01, 5, mask=_RIGID, blockSize=5)
    return _Reference(patch, np.empty((0, 1, 2), np.float32) if points is None else points)


def _residual(reference: _Reference, patch: Grey) -> tuple[canon.Affine, float] | None:
    if len(reference.points) < 12:
        return None
    start: Any = None
    there, ok_there, _ = cv2.calcOpticalFlowPyrLK(reference.patch, patch, reference.points, start, **_FLOW)
    back, ok_back, _ = cv2.calcOpticalFlowPyrLK(patch, reference.patch, there, start, **_FLOW)
    error = np.linalg.norm((back - reference.points)[:, 0], axis=1)
    good = (ok_there[:, 0] > 0) & (ok_back[:, 0] > 0) & (error < 0.8)
    if good.sum() < 8:
        return None
    source = reference.points[good, 0].astype(np.float64)
    target = there[good, 0].astype(np.float64)
    rigid, inliers = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=1.6, maxIters=200, confidence=0.99
    )
    if rigid is None or int(inliers.sum()) < 8:
        return None
    keep = inliers[:, 0] > 0
    return _affine(source[keep], target[keep], rigid), float(keep.sum() / len(reference.points))


def _affine(source: canon.Points, target: canon.Points, rigid: canon.Affine) -> canon.Affine:
    # Corners on eyes and nose say little of how the mouth and chin shear: four far points, moved by the similarity,
    # hold the affine part back.
    edge = float(PATCH_PX)
    anchors = np.array([[0.0, 0.0], [edge, 0.0], [0.0, edge], [edge, edge]])
    weight = np.concatenate([np.ones(len(source)), np.full(4, len(source) / 24.0)])[:, None]
    left = np.hstack([np.vstack([source, anchors]), np.ones((len(source) + 4, 1))])
    right = np.vstack([target, canon.apply(rigid, anchors)])
    solved = np.linalg.lstsq(left * weight, right * weight, rcond=None)[0]
    return np.ascontiguousarray(solved.T)
