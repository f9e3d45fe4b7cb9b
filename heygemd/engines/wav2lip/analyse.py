"""Pass 1: where the face is in every source frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from heygemd.core.clip import Box, VideoInfo
from heygemd.core.errors import NoFaceError
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame
from heygemd.engines.wav2lip import boxes
from heygemd.faces.detect import Detection, FaceDetector
from heygemd.faces.track import FaceTracker


class FixedBoxAnalyser:
    """The user says where the face is: nothing to look for, the box stays."""

    def __init__(self, box: Box, video: VideoInfo, facts: dict[str, Any]) -> None:
        self._box = np.array([box], np.float32)
        self._video = video
        self._facts = facts
        self._num_frames = 0

    def update(self, frame: AnalysisFrame) -> None:
        self._num_frames += 1

    def finish(self) -> Analysis:
        """Raises NoFaceError when the box lies outside of the picture."""
        x0, y0, x1, y1 = (int(value) for value in self._box[0])
        inside = Box(x0, y0, x1, y1).clamped(self._video.width, self._video.height)
        if min(inside.width, inside.height) < boxes.MIN_SIDE_PX:
            size = f"{self._video.width}x{self._video.height}"
            raise NoFaceError(
                f"the face box {x0},{y0},{x1},{y1} is not inside the picture ({size})",
                case="box_outside",
                box=f"{x0},{y0},{x1},{y1}",
                width=self._video.width,
                height=self._video.height,
            )
        arrays = {"found": np.ones(1, bool), "box": np.array([inside], np.float32)}
        summary = {"face": "fixed box", "frames_with_face": self._num_frames, "frames_without_face": 0}
        summary |= {"region": [inside.width, inside.height]}
        return Analysis(arrays, summary | self._facts)


class TrackAnalyser:
    """A face found on key frames, followed in between and smoothed over the whole clip."""

    def __init__(self, detector: FaceDetector, video: VideoInfo, options: Options, facts: dict[str, Any]) -> None:
        self._tracker = FaceTracker(detector, options.face, video.width, video.height, float(video.fps))
        self._video = video
        self._reference = options.reference
        self._facts = facts

    def update(self, frame: AnalysisFrame) -> None:
        self._tracker.update(frame.index, frame.image, frame.scale)

    def finish(self) -> Analysis:
        """Raises NoFaceError."""
        track = self._tracker.finish()
        width, height = self._video.width, self._video.height
        place = boxes.boxes_of_track(track, chin=not self._reference)
        found = track.found & boxes.usable(place, width, height)
        if self._reference:
            place = boxes.reference_boxes(place, found, track.shot, width, height)
        facts = self._facts | {"faces_seen": self._tracker.faces_seen, "shots": int(track.shot.max(initial=-1)) + 1}
        return finished(found, place, facts | {"region": boxes.largest(place[found], width, height)})


class ReferenceAnalyser:
    """The detector on every frame, nothing in between, as the published code does it."""

    def __init__(self, detector: FaceDetector, video: VideoInfo, options: Options, facts: dict[str, Any]) -> None:
        self._detector = detector
        self._video = video
        self._choice = options.face
        self._facts = facts
        self._rows: list[np.ndarray[Any, Any] | None] = []

    def update(self, frame: AnalysisFrame) -> None:
        seen = self._detector.detect(frame.image)
        self._rows.append(None if not seen else self._pick(seen).box * np.float32(frame.scale))

    def _pick(self, seen: list[Detection]) -> Detection:
        if self._choice == "leftmost":
            return min(seen, key=lambda d: float(d.centre[0]))
        if self._choice == "rightmost":
            return max(seen, key=lambda d: float(d.centre[0]))
        return max(seen, key=lambda d: d.size)

    def finish(self) -> Analysis:
        """Raises NoFaceError."""
        found = np.array([row is not None for row in self._rows], bool)
        place = np.array([np.zeros(4) if row is None else row for row in self._rows], np.float32).reshape(-1, 4)
        shot = np.zeros(len(found), np.int32)
        place = boxes.reference_boxes(place, found, shot, self._video.width, self._video.height)
        width, height = self._video.width, self._video.height
        found &= boxes.usable(place, width, height)
        return finished(found, place, self._facts | {"region": boxes.largest(place[found], width, height)})


def finished(found: np.ndarray[Any, Any], place: boxes.Boxes, facts: dict[str, Any]) -> Analysis:
    """The analysis of a searched clip. Raises NoFaceError when no frame shows a face."""
    count = int(found.sum())
    if not count:
        raise NoFaceError(f"no face was found in {len(found)} frames")
    summary = {"face": "found", "frames_with_face": count, "frames_without_face": len(found) - count}
    arrays = {"found": found, "box": place}
    return Analysis(arrays, summary | facts)
