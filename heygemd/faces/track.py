"""One person's face through a whole clip: found, followed, cut where the picture cuts, smoothed at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box
from heygemd.faces import canon
from heygemd.faces.detect import Detection, EyeFinder, FaceDetector
from heygemd.faces.follow import Follower, patch_of
from heygemd.faces.shots import CutFinder
from heygemd.faces.smooth import runs, smooth_matrices

Image = NDArray[np.uint8]
KEY_FRAMES = 10
"""A detection every so many frames, apart from cuts and losses."""
HAAR_SIDE = canon.EYE_DISTANCE / 0.378
"""Side of a frontal detection box in canonical pixels."""


@dataclass(frozen=True)
class FaceTrack:
    """A face in every source frame; rows are meaningless where `found` is False.

    `found` (n,) bool · `box` (n, 4) float32, source pixels · `shot` (n,) int32 · `canonical` (n, 2, 3) float32,
    canonical→source · `quality` (n,) float32, share of corners that agree · `turn` (n,) float32, how far the face's
    shape is from its shot's usual one (0 none, .1 about ten degrees) · `eyes` (shots, 2, 2) float32, pupils in
    canonical pixels.
    """

    found: NDArray[np.bool_]
    box: NDArray[np.float32]
    shot: NDArray[np.int32]
    canonical: NDArray[np.float32]
    quality: NDArray[np.float32]
    turn: NDArray[np.float32]
    eyes: NDArray[np.float32]

    def to_arrays(self, prefix: str = "face_") -> dict[str, NDArray[np.generic]]:
        return {prefix + name: getattr(self, name) for name in self.__dataclass_fields__}

    @staticmethod
    def from_arrays(arrays: dict[str, NDArray[np.generic]], prefix: str = "face_") -> FaceTrack:
        return FaceTrack(**{name: arrays[prefix + name] for name in FaceTrack.__dataclass_fields__})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sight:
    """What the tracker saw in one frame: canonical→image (pixels of the image given), or None."""

    index: int
    shot: int
    matrix: canon.Affine | None


@dataclass
class _Rows:
    found: list[bool] = field(default_factory=list)
    shot: list[int] = field(default_factory=list)
    matrix: list[canon.Affine] = field(default_factory=list)
    share: list[float] = field(default_factory=list)


class FaceTracker:
    """Frames come in order. `choice`: largest, leftmost, rightmost, or a Box in source pixels."""

    def __init__(self, detector: FaceDetector, choice: str | Box, width: int, height: int, fps: float) -> None:
        self._detector = detector
        self._choice = choice
        self._frame = (width, height)
        self._retry_frames = max(1, round(fps / 8))
        self._cuts = CutFinder()
        self._eye_finder = EyeFinder()
        self._rows = _Rows()
        self._follower: Follower | None = None
        self._matrix: canon.Affine | None = None
        self._looks: NDArray[np.float32] | None = None
        self._next_try = 0
        self._eyes: list[list[canon.Points]] = []
        self.faces_seen = 0

    def update(self, index: int, image: Image, scale: float) -> Sight:
        """`image`: (h, w, 3) BGR; times `scale` gives source pixels."""
        cut = self._cuts.update(image)
        if cut or not self._eyes:
            self._eyes.append([])
            self._follower = self._matrix = None
            self._next_try = index
        shot = len(self._eyes) - 1
        share = 0.0
        matrix: canon.Affine | None = None
        grey: Image | None = None
        if self._follower is not None:
            grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            hold = self._follower.update(grey)
            if hold is not None:
                matrix, share = hold.matrix, hold.share
            if matrix is None or index % KEY_FRAMES == 0:
                matrix = self._confirm(image, matrix)
                share = share or 0.3
            if matrix is None:
                self._follower, self._next_try = None, index
        if matrix is None and index >= self._next_try:
            self._next_try = index + self._retry_frames
            matrix = self._find(image, scale)
            if matrix is not None:
                grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if grey is None else grey
                follower = Follower(grey, matrix)
                self._follower, share = (follower, 1.0) if follower.usable else (None, 0.3)
        self._record(matrix, shot, share, scale)
        if matrix is not None:
            self._matrix = matrix
        return Sight(index, shot, matrix)

    def finish(self) -> FaceTrack:
        rows = self._rows
        n = len(rows.found)
        found = np.array(rows.found, bool)
        shot = np.array(rows.shot, np.int32).reshape(n)
        matrices = np.array(rows.matrix, np.float64).reshape(n, 2, 3)
        turn = np.zeros(n, np.float32)
        for start, stop in runs(found, shot):
            matrices[start:stop] = smooth_matrices(matrices[start:stop])
        for number in range(len(self._eyes)):
            rows_here = found & (shot == number)
            if rows_here.any():
                turn[rows_here] = _turn(matrices[rows_here])
        eyes = np.array([np.median(e, axis=0) if e else canon.EYES for e in self._eyes], np.float32).reshape(-1, 2, 2)
        return FaceTrack(
            found,
            _boxes(matrices),
            shot,
            matrices.astype(np.float32),
            np.array(rows.share, np.float32).reshape(n),
            turn,
            eyes,
        )

    def _record(self, matrix: canon.Affine | None, shot: int, share: float, scale: float) -> None:
        self._rows.found.append(matrix is not None)
        self._rows.shot.append(shot)
        if matrix is None:
            self._rows.matrix.append(np.eye(2, 3))
        else:
            # Pixel centres: x_source = (x + .5) * scale - .5.
            scaled = matrix * scale
            scaled[:, 2] += 0.5 * scale - 0.5
            self._rows.matrix.append(scaled)
        self._rows.share.append(share)

    def _find(self, image: Image, scale: float) -> canon.Affine | None:
        """A new hold on the chosen person."""
        if isinstance(self._choice, Box):
            return self._find_in_box(image, np.array(self._choice, np.float32) / np.float32(scale))
        found = self._detector.detect(image)
        self.faces_seen = max(self.faces_seen, len(found))
        if not found:
            return None
        pick = self._pick(image, found)
        return self._hold_from(image, pick.box)

    def _find_in_box(self, image: Image, box: NDArray[np.float32]) -> canon.Affine | None:
        h, w = image.shape[:2]
        margin = 0.25 * (box[2:] - box[:2])
        x0, y0 = np.clip(np.floor(box[:2] - margin).astype(int), 0, [w - 1, h - 1])
        x1, y1 = np.clip(np.ceil(box[2:] + margin).astype(int), [x0 + 1, y0 + 1], [w, h])
        found = self._detector.detect(np.ascontiguousarray(image[y0:y1, x0:x1])) if min(x1 - x0, y1 - y0) > 24 else []
        self.faces_seen = max(self.faces_seen, 1)
        if found:
            best = max(found, key=lambda d: d.size)
            return self._hold_from(image, best.box + np.array([x0, y0, x0, y0], np.float32))
        # Nothing inside looks like a face to the detector: the user says that there is one.
        side = float(min(box[2:] - box[:2]))
        centre = (box[:2] + box[2:]) / 2
        return self._hold_from(image, np.array([*(centre - side / 2), *(centre + side / 2)], np.float32))

    def _hold_from(self, image: Image, box: NDArray[np.float32]) -> canon.Affine:
        eyes = self._eye_finder.find(image, box)
        if eyes is None:
            return canon.from_eyes(canon.eyes_from_box(box))
        self._eyes[-1].append(canon.EYES.copy())
        matrix = canon.from_eyes(eyes)
        self._looks = _looks(image, matrix)
        return matrix

    def _pick(self, image: Image, found: list[Detection]) -> Detection:
        if len(found) == 1:
            return found[0]
        largest = max(d.size for d in found)
        real = [d for d in found if d.size > 0.4 * largest]
        looks = self._looks
        if looks is not None:
            # The same person again, after a cut or a loss: by looks, and by place when there was no cut.
            def strange(d: Detection) -> float:
                here = canon.from_eyes(canon.eyes_from_box(d.box))
                apart = 0.0
                if self._matrix is not None:
                    last = canon.apply(self._matrix, np.array([[128.0, 128.0]]))[0]
                    apart = float(np.linalg.norm(d.centre - last)) / d.size
                return float(np.abs(_looks(image, here) - looks).sum()) + 0.3 * min(apart, 3.0)

            ranked = sorted(real, key=strange)
            if strange(ranked[1]) - strange(ranked[0]) > 0.25:
                return ranked[0]
        if self._choice == "leftmost":
            return min(real, key=lambda d: float(d.centre[0]))
        if self._choice == "rightmost":
            return max(real, key=lambda d: float(d.centre[0]))
        return max(real, key=lambda d: d.size)

    def _confirm(self, image: Image, matrix: canon.Affine | None) -> canon.Affine | None:
        """At key frames: is there a face where the follower says? Gathers pupils. None: the hold is lost."""
        last = matrix if matrix is not None else self._matrix
        if last is None:
            return None
        centre = canon.apply(last, np.array([[128.0, 112.0]]))[0]
        half = 0.8 * HAAR_SIDE * canon.scale_of(last)
        h, w = image.shape[:2]
        x0, y0 = np.clip((centre - half).astype(int), 0, [w - 1, h - 1])
        x1, y1 = np.clip((centre + half).astype(int) + 1, [x0 + 1, y0 + 1], [w, h])
        crop = np.ascontiguousarray(image[y0:y1, x0:x1])
        if min(crop.shape[:2]) < 20:
            return None
        factor = min(1.0, 150.0 / max(crop.shape[:2]))
        small = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        found = [d for d in self._quick(small) if 0.5 < d.size / factor / (HAAR_SIDE * canon.scale_of(last)) < 1.6]
        if not found:
            # Turned faces are missed by the cascade; the follower is believed while its corners agree.
            return matrix
        box = max(found, key=lambda d: d.size).box / np.float32(factor) + np.array([x0, y0, x0, y0], np.float32)
        eyes = self._eye_finder.find(image, box)
        if matrix is None:
            self._follower = None
            fresh = canon.from_eyes(eyes) if eyes is not None else None
            if fresh is not None:
                grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
                follower = Follower(grey, fresh)
                self._follower = follower if follower.usable else None
            return fresh
        if eyes is not None:
            self._eyes[-1].append(canon.apply(canon.invert(matrix), eyes))
        return matrix

    def _quick(self, small: Image) -> list[Detection]:
        return self._detector.detect(small)


def _looks(image: Image, matrix: canon.Affine) -> NDArray[np.float32]:
    """Colours of the face and of what is around it, as a histogram that sums to 1."""
    patch = patch_of(image, matrix, 0.25, 64)
    hsv = cv2.cvtColor(patch, cv2.COLOR_BGR2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256])
    return np.asarray(counts / counts.sum(), np.float32).ravel()


def _turn(matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    """How far each transform is from a similarity, against the median of its shot."""
    a, b, c, d = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1]
    size = np.sqrt(np.abs(a * d - b * c)) + 1e-9
    stretch = np.stack([(a - d) / size, (b + c) / size], axis=1)
    return np.asarray(np.linalg.norm(stretch - np.median(stretch, axis=0), axis=1), np.float32)


def _boxes(matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Upright boxes of the cascade's proportions around each face."""
    centre = matrices @ np.array([128.0, 80.0 + 0.1 * HAAR_SIDE, 1.0])
    size = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2]))) * HAAR_SIDE / 2
    return np.concatenate([centre - size[:, None], centre + size[:, None]], axis=1).astype(np.float32)
