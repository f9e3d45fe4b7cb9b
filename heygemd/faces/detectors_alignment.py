"""The detectors that come with face-alignment, behind `FaceDetector`.

face-alignment downloads weights by itself when none are named. Here they are always named: a file that is not there is
an error, and nothing is ever fetched.
"""

from __future__ import annotations

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.errors import CheckpointError, EngineUnavailableError
from heygemd.faces import canon
from heygemd.faces.detect import Detection

Image = NDArray[np.uint8]

DETECTORS = ("s3fd", "retinaface", "scrfd", "blazeface", "blazeface_back", "yunet")
_CLASSES = {
    "s3fd": ("sfd.sfd_detector", "SFDDetector"),
    "retinaface": ("retinaface.retinaface_detector", "RetinaFaceDetector"),
    "scrfd": ("scrfd.scrfd_detector", "SCRFDDetector"),
    "blazeface": ("blazeface.blazeface_detector", "BlazeFaceDetector"),
    "blazeface_back": ("blazeface.blazeface_detector", "BlazeFaceDetector"),
    "yunet": ("yunet.yunet_detector", "YuNetDetector"),
}
_ANCHORS = {"blazeface": "anchors.npy", "blazeface_back": "anchorsback.npy"}
_LOAD_ERRORS = (
    pickle.UnpicklingError,
    cv2.error,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    OSError,
)


class _Engine(Protocol):
    def detect_from_image(self, tensor_or_path: Image) -> Any: ...


class AlignmentDetector:
    """One of face-alignment's detectors on pictures of at most `max_side_px`."""

    def __init__(self, name: str, engine: _Engine, max_side_px: int, *, swapped: bool = False) -> None:
        self.name = name
        self._engine = engine
        self._max_side_px = max_side_px
        self._swapped = swapped

    def detect(self, image: Image) -> list[Detection]:
        """`image`: (h, w, 3) uint8 BGR. Best first."""
        factor = min(1.0, self._max_side_px / max(image.shape[:2]))
        small = image if factor == 1.0 else cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        given = small if self._swapped else np.ascontiguousarray(small[..., ::-1])
        rows = [np.asarray(row, np.float32).ravel() for row in self._engine.detect_from_image(given)]
        found = [Detection(row[:4] / np.float32(factor), float(row[4])) for row in rows if len(row) >= 5]
        return sorted((d for d in found if d.size > 0), key=lambda d: -d.score)


class FrontalBoxes:
    """The same faces in boxes like those of the frontal cascade, which the tracker knows how to read.

    S3FD, RetinaFace, SCRFD and YuNet draw them as their training data (WIDER FACE) does: tight around forehead, cheeks
    and chin, with the pupils at `EYES` of width and height. BlazeFace's are taken to lie alike; the eyes, once found,
    correct what that is off.
    """

    EYES = np.array([[0.269, 0.337], [0.731, 0.337]])

    def __init__(self, detector: AlignmentDetector) -> None:
        self._detector = detector
        self.name = detector.name

    def detect(self, image: Image) -> list[Detection]:
        """`image`: (h, w, 3) uint8 BGR. Best first."""
        return [Detection(self._frontal(found.box), found.score) for found in self._detector.detect(image)]

    def _frontal(self, box: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = box[:2].astype(np.float64), box[2:].astype(np.float64)
        eyes = low + self.EYES * (high - low)
        side = (eyes[1] - eyes[0])[0] / (canon.HAAR_EYES[1] - canon.HAAR_EYES[0])[0]
        corner = eyes.mean(axis=0) - canon.HAAR_EYES.mean(axis=0) * side
        return np.concatenate([corner, corner + side]).astype(np.float32)


def alignment_detector(
    name: str,
    weights: Path,
    *,
    device: str = "cpu",
    anchors: Path | None = None,
    max_side_px: int = 640,
    as_wav2lip: bool = False,
) -> AlignmentDetector:
    """A detector with the operator's weights. Downloads nothing.

    `anchors`: BlazeFace's second file; by default the one of the usual name beside the weights. `as_wav2lip`: S3FD with
    the colour channels the other way round, as the published Wav2Lip feeds it. Raises CheckpointError for files that
    are missing or wrong, EngineUnavailableError for a package that is.
    """
    if name not in _CLASSES:
        raise EngineUnavailableError(f"there is no detector named {name!r}; known: {', '.join(DETECTORS)}")
    _require(weights, name)
    arguments: dict[str, Any] = {"path_to_detector": str(weights)}
    if name in _ANCHORS:
        anchors = anchors or weights.with_name(_ANCHORS[name])
        _require(anchors, name)
        arguments |= {"path_to_anchor": str(anchors), "back_model": name == "blazeface_back"}
    module, class_name = _CLASSES[name]
    try:
        detector = getattr(import_module(f"face_alignment.detection.{module}"), class_name)
        engine = detector(device if name != "yunet" else "cpu", **arguments)
    except ImportError as error:  # RetinaFace wants torchvision, SCRFD onnxruntime; heygemd depends on neither
        package = (error.name or "onnxruntime").partition(".")[0]
        raise EngineUnavailableError(
            f"the detector {name} needs the package {package}, which is not installed",
            remedy=f"Install {package} into heygemd's environment, or choose another detector.",
        ) from error
    except _LOAD_ERRORS as error:
        first = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        message = f"{weights.name} does not hold the weights of the detector {name}: {first}"
        raise CheckpointError(message, path=str(weights)) from error
    return AlignmentDetector(name, engine, max_side_px, swapped=as_wav2lip)


def _require(path: Path, name: str) -> None:
    if not path.is_file():
        raise CheckpointError(
            f"the detector {name} needs {path.name}, which is not there",
            remedy="heygemd downloads no weights by itself: see `heygemd checkpoints list`.",
            path=str(path),
        )
