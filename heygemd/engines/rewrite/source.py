"""Pass 1 of `rewrite`: the face, the mouth in every frame, and the pictures of it that rendering borrows from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import NoFaceError
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame, Arrays
from heygemd.engines.rewrite import lively
from heygemd.engines.rewrite.inside import KEY_BOX
from heygemd.engines.rewrite.landmarked import frames_for
from heygemd.engines.rewrite.material import KeyFrame, ShotMaterial, material_of
from heygemd.engines.rewrite.own import learn_own
from heygemd.engines.rewrite.shape import FIELD_BOX
from heygemd.faces import canon
from heygemd.faces.detect import FaceDetector
from heygemd.faces.landmarks import Landmarks, face_picture
from heygemd.faces.lips import CROP_BOX
from heygemd.faces.track import FaceTrack, FaceTracker

MAX_KEY_FRAMES = 200
_QUALITY = [int(cv2.IMWRITE_JPEG_QUALITY), 95]


class Spool:
    """Small pictures in one file, compressed; read back by number. Memory stays constant in the clip's length."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._spans: list[tuple[int, int]] = []

    def append(self, image: NDArray[np.uint8] | None) -> None:
        if image is None:
            self._spans.append((0, 0))
            return
        data = cv2.imencode(".jpg", image, _QUALITY)[1].tobytes()
        start = self._file.seek(0, 2)
        self._file.write(data)
        self._spans.append((start, len(data)))

    def read(self, number: int) -> NDArray[np.uint8]:
        start, length = self._spans[number]
        self._file.seek(start)
        return np.asarray(cv2.imdecode(np.frombuffer(self._file.read(length), np.uint8), cv2.IMREAD_COLOR), np.uint8)

    def close(self) -> None:
        self._file.close()


class RewriteAnalyser:
    """Frames in order; keeps small mouth crops of all of them on disk and large ones of a few in memory."""

    def __init__(
        self,
        video: VideoInfo,
        options: Options,
        own_speech: NDArray[np.float32] | None,
        work: Path,
        detector: FaceDetector,
        landmarks: Landmarks,
    ) -> None:
        choice = options.face_box or options.face
        self._rate = video.fps
        self._fps = float(video.fps)
        self._options = options
        self._own_speech = own_speech
        self._tracker = FaceTracker(detector, choice, video.width, video.height, self._fps)
        self._path = work / "mouths.bin"
        self._spool = Spool(self._path)
        self._keys: list[KeyFrame] = []
        self._key_stride = 2
        self._raw: list[canon.Affine] = []
        self._still = video.still
        self._lively = lively.still_life(video, options.liveliness)
        self._landmarks = landmarks
        self._life: tuple[Arrays, dict[str, Any]] = {}, {}
        self._frame = (video.width, video.height)

    def update(self, frame: AnalysisFrame) -> None:
        sight = self._tracker.update(frame.index, frame.image, frame.scale)
        if sight.matrix is None:
            self._spool.append(None)
            self._raw.append(np.eye(2, 3))
            return
        self._spool.append(_crop(frame.image, sight.matrix, CROP_BOX, 1.0))
        source = sight.matrix * frame.scale
        source[:, 2] += 0.5 * frame.scale - 0.5
        self._raw.append(source)
        if frame.index % self._key_stride == 0 or self._still:
            self._keep(frame, sight.matrix)
        if self._lively:
            self._life = lively.look(frame.image, sight.matrix)

    def _keep(self, frame: AnalysisFrame, matrix: canon.Affine) -> None:
        factor = float(np.clip(canon.scale_of(matrix), 1.0, 3.0))
        crop = _crop(frame.image, matrix, KEY_BOX, factor)
        data = cv2.imencode(".jpg", crop, [int(cv2.IMWRITE_JPEG_QUALITY), 97])[1].tobytes()
        face = b""
        if self._landmarks.landmarker is not None and not self._still:
            face = cv2.imencode(".jpg", face_picture(frame.image, matrix), _QUALITY)[1].tobytes()
        self._keys.append(KeyFrame(frame.index, factor, data, face))
        if len(self._keys) > MAX_KEY_FRAMES:
            self._key_stride *= 2
            self._keys = [k for k in self._keys if k.index % self._key_stride == 0]

    def finish(self) -> Analysis:
        try:
            return self._finish()
        finally:
            if self._landmarks.landmarker is not None:
                self._landmarks.landmarker.close()
            self._spool.close()
            self._path.unlink(missing_ok=True)

    def _finish(self) -> Analysis:
        track = self._tracker.finish()
        if not track.found.any():
            raise NoFaceError("no face was found in any frame of the video")
        n = len(track.found)
        shift = np.zeros((n, 2), np.float32)
        opening = np.zeros(n, np.float32)
        trust = np.zeros(n, np.float32)
        speaking = np.full((2, n), np.nan, np.float32)
        shots: list[ShotMaterial] = []
        raw = np.array(self._raw)
        rows_of = [np.flatnonzero(track.found & (track.shot == k)) for k in range(int(track.shot.max()) + 1)]
        looks = frames_for([len(rows) for rows in rows_of])
        for number, rows in enumerate(rows_of):
            if not len(rows):
                continue
            keys = [k for k in self._keys if track.shot[k.index] == number]
            made = material_of(
                number,
                rows,
                self._spool.read,
                keys,
                track,
                raw,
                self._fps,
                self._options,
                self._landmarks,
                looks[number],
            )
            if made is None:
                continue
            shift[rows], opening[rows], trust[rows] = made.shift, made.opening, made.trust
            if made.speaks:
                sure = made.trust > 0
                speaking[:, rows[sure]] = made.opening[sure], made.width[sure]
            shots.append(made)
        if not shots:
            raise NoFaceError("no face in the video shows a mouth that can be measured", case="no_mouth")
        arrays: Arrays = dict(track.to_arrays())
        arrays |= {"mouth_shift": shift, "mouth_opening": opening, "mouth_trust": trust}
        for made in shots:
            arrays |= made.to_arrays()
        learned, own = learn_own(self._own_speech, speaking[0], speaking[1], self._rate)
        summary = _summary(track, shots, trust, self._tracker.faces_seen)
        region = largest_region(track, self._frame)
        life, seen = self._life
        if life:
            body = lively.body_box(track.canonical[0].astype(np.float64), self._frame)
            region = [max(region[0], body.width), max(region[1], body.height)]
            summary["liveliness"] = seen
        return Analysis(arrays | learned | life, summary | {"region": region, "own_speech": own})


def largest_region(track: FaceTrack, frame: tuple[int, int]) -> list[int]:
    """[width, height] of the largest part of a frame that rendering will ask for; a mouth that is a pixel or two away
    from where the face has it does not count."""
    x0, y0, x1, y1 = FIELD_BOX
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]], np.float64)
    points = np.einsum("nij,kj->nki", track.canonical[track.found].astype(np.float64), corners)
    points = np.clip(points, 0, np.array(frame))
    sides = np.ceil(points.max(axis=1)) - np.floor(points.min(axis=1)) + 1
    width, height = sides[np.argmax(sides.prod(axis=1))]
    return [min(frame[0], int(width)), min(frame[1], int(height))]


def _crop(
    image: NDArray[np.uint8], matrix: canon.Affine, box: tuple[int, int, int, int], scale: float
) -> NDArray[np.uint8]:
    """The canonical `box` of the picture at `scale` pixels each."""
    inner = canon.compose(matrix, np.array([[1 / scale, 0.0, box[0]], [0.0, 1 / scale, box[1]]]))
    size = (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale))
    method = cv2.INTER_LINEAR if scale == 1.0 else cv2.INTER_CUBIC
    out: NDArray[np.uint8] = cv2.warpAffine(
        image, inner, size, flags=method | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return out


def _summary(track: FaceTrack, shots: list[ShotMaterial], trust: NDArray[np.float32], seen: int) -> dict[str, Any]:
    found = int(track.found.sum())
    return {
        "engine": "rewrite",
        "frames": len(track.found),
        "frames_without_face": len(track.found) - found,
        "frames_passed_through": int((track.found & (trust <= 0)).sum()),
        "frames_reduced": int((track.found & (trust > 0) & (trust < 0.99)).sum()),
        "faces_in_a_picture": seen,
        "shots": [
            {
                "shot": made.number,
                "frames": len(made.rows),
                "speaks": made.speaks,
                "lips": made.lips,
                "lips_why": made.lips_why,
                "measured": made.located.by,
                "measured_why": made.located.why,
                "interior": made.inside.source,
                "interior_why": made.inside.why,
                "side_light": round(made.inside.side_light, 2),
            }
            for made in shots
        ],
    }
