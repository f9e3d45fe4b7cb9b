"""Finding faces in one picture. `FaceDetector` is the door; `CascadeDetector` is the one that is always there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.faces.canon import Points, eyes_from_box

Image = NDArray[np.uint8]
TILTS_DEGREES = (-20.0, 20.0)


@dataclass(frozen=True)
class Detection:
    """A face. `box`: (4,) float32 x0, y0, x1, y1 in pixels of the picture given. `score`: larger is surer."""

    box: NDArray[np.float32]
    score: float

    @property
    def size(self) -> float:
        return float(self.box[2] - self.box[0])

    @property
    def centre(self) -> NDArray[np.float32]:
        return np.asarray((self.box[:2] + self.box[2:]) / 2, np.float32)


class FaceDetector(Protocol):
    """Finds every face in a picture, whatever its size: the work is bounded inside. `name`: for the receipt."""

    @property
    def name(self) -> str: ...

    def detect(self, image: Image) -> list[Detection]:
        """`image`: (h, w, 3) uint8 BGR. Best first."""
        ...


def cascade(name: str) -> Any:
    """One of OpenCV's own cascades."""
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / f"haarcascade_{name}.xml"))


class CascadeDetector:
    """OpenCV's Haar cascades: frontal; if there is none, frontal in a tilted picture, then profiles.

    `max_side_px`: the picture is scaled down to this before the search. `thorough`: whether to go on to tilted
    pictures and profiles when nothing frontal is found, which costs about four times as much.
    """

    name = "opencv cascade"

    def __init__(self, max_side_px: int = 480, *, thorough: bool = True) -> None:
        self._max_side_px = max_side_px
        self._thorough = thorough
        self._frontal = cascade("frontalface_alt2")
        self._profile = cascade("profileface")

    def detect(self, image: Image) -> list[Detection]:
        factor = min(1.0, self._max_side_px / max(image.shape[:2]))
        small = image if factor == 1.0 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        found = _search(self._frontal, grey)
        if not found and self._thorough:
            found = self._tilted(grey) or self._sideways(grey)
        return [Detection(d.box / np.float32(factor), d.score) for d in found]

    def _tilted(self, grey: Image) -> list[Detection]:
        h, w = grey.shape
        for degrees in TILTS_DEGREES:
            turn = cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1.0)
            back = cv2.invertAffineTransform(turn)
            found = _search(self._frontal, cv2.warpAffine(grey, turn, (w, h), borderMode=cv2.BORDER_REPLICATE))
            if found:
                return [_turned(d, back) for d in found]
        return []

    def _sideways(self, grey: Image) -> list[Detection]:
        w = grey.shape[1]
        left = _search(self._profile, grey)
        right = _search(self._profile, np.ascontiguousarray(grey[:, ::-1]))
        mirrored = [
            Detection(np.array([w - d.box[2], d.box[1], w - d.box[0], d.box[3]], np.float32), d.score) for d in right
        ]
        return sorted(left + mirrored, key=lambda d: -d.score)


class EyeFinder:
    """Pupils inside a face box, by the cascade that also knows glasses (a hit is within .04 eye distances)."""

    def __init__(self) -> None:
        self._eyes = cascade("eye_tree_eyeglasses")

    def find(self, image: Image, box: NDArray[np.float32]) -> Points | None:
        """(2, 2) pupils in pixels of `image` (BGR), the picture's left one first, or None unless both are seen."""
        x0, y0, x1 = (float(v) for v in box[:3])
        width = x1 - x0
        left, top = max(0, int(x0)), max(0, int(y0 + 0.1 * width))
        crop = image[top : max(0, int(y0 + 0.68 * width)), left : max(0, int(x1))]
        if min(crop.shape[:2]) < 12:
            return None
        factor = 160.0 / width
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        grey = cv2.cvtColor(cv2.resize(crop, None, fx=factor, fy=factor, interpolation=method), cv2.COLOR_BGR2GRAY)
        hits = self._eyes.detectMultiScale(grey, 1.05, 2, minSize=(20, 20), maxSize=(70, 70))
        if len(hits) < 2:
            return None
        centres = np.array([[x + w / 2, y + h / 2] for x, y, w, h in hits]) / factor + [left, top]
        expected = eyes_from_box(box)
        far = np.linalg.norm(centres[None] - expected[:, None], axis=2)
        pick = far.argmin(axis=1)
        gap = float(np.linalg.norm(expected[1] - expected[0]))
        if pick[0] == pick[1] or far.min(axis=1).max() > 0.35 * gap:
            return None
        return np.asarray(centres[pick], np.float64)


def _search(classifier: Any, grey: Image) -> list[Detection]:
    least = max(20, min(grey.shape) // 14)
    boxes, _levels, weights = classifier.detectMultiScale3(
        grey, 1.1, 4, minSize=(least, least), outputRejectLevels=True
    )
    found = [
        Detection(np.array([x, y, x + w, y + h], np.float32), float(weight))
        for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True)
    ]
    return sorted(found, key=lambda d: -d.score)


def _turned(found: Detection, matrix: NDArray[np.float64]) -> Detection:
    centre = matrix[:, :2] @ found.centre + matrix[:, 2]
    half = found.size / 2
    return Detection(np.array([*(centre - half), *(centre + half)], np.float32), found.score * 0.9)
