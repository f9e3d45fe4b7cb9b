"""Where the face crop lies in each source frame. Rows are source frames, boxes x0, y0, x1, y1 in source pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heygemd.faces.smooth import runs
from heygemd.faces.track import FaceTrack

Boxes = NDArray[np.float32]

FACE = (50.0, 18.0, 206.0, 202.0)
"""What S3FD draws around a face, as the networks were trained on it, in pixels of the canonical face (faces.canon)."""
CHIN_PX = 9.0
"""Canonical pixels added below, as everybody who uses Wav2Lip does, so that an open mouth's chin fits in."""

REFERENCE_PADDING_PX = 10
REFERENCE_WINDOW = 5
MIN_SIDE_PX = 16
"""Smaller faces pass through: there is nothing to see."""


def boxes_of_track(track: FaceTrack, *, chin: bool = True) -> Boxes:
    """(n, 4): upright boxes with a detector's proportions, from the smoothed pose of each frame."""
    matrices = track.canonical.astype(np.float64)
    x0, y0, x1, y1 = FACE
    y1 += CHIN_PX if chin else 0.0
    centre = matrices @ np.array([(x0 + x1) / 2, (y0 + y1) / 2, 1.0])
    size = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2])))[:, None]
    half = size * np.array([[(x1 - x0) / 2, (y1 - y0) / 2]])
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def reference_boxes(
    detected: Boxes, found: NDArray[np.bool_], shot: NDArray[np.int32], width: int, height: int
) -> Boxes:
    """What the published code makes of a detector's boxes: whole numbers, 10 px more chin, clamped, then smoothed.

    The smoothing is the mean of this box and the next four, taken in place on whole numbers, so that it truncates and
    that the clip's last five average what was averaged already. Each run of frames with a face is smoothed by itself.
    """
    boxes = np.maximum(detected, 0).astype(np.int64)
    boxes[:, 3] += REFERENCE_PADDING_PX
    boxes[:, [0, 2]] = np.clip(boxes[:, [0, 2]], 0, width)
    boxes[:, [1, 3]] = np.clip(boxes[:, [1, 3]], 0, height)
    for start, stop in runs(found, shot):
        smooth_reference(boxes[start:stop])
    return boxes.astype(np.float32)


def smooth_reference(boxes: NDArray[np.int64]) -> None:
    """In place, (n, 4)."""
    count = len(boxes)
    for i in range(count):
        window = boxes[count - REFERENCE_WINDOW :] if i + REFERENCE_WINDOW > count else boxes[i : i + REFERENCE_WINDOW]
        boxes[i] = np.mean(window, axis=0)


def usable(boxes: Boxes, width: int, height: int) -> NDArray[np.bool_]:
    """(n,): whether enough of the box is inside the frame to be worth rendering."""
    inside = np.clip(boxes, 0, [width, height, width, height])
    seen = (inside[:, 2:] - inside[:, :2]).min(axis=1)
    area = np.prod(inside[:, 2:] - inside[:, :2], axis=1)
    whole = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray((seen >= MIN_SIDE_PX) & (area >= 0.6 * whole))


def largest(boxes: Boxes, width: int, height: int) -> list[int]:
    """[width, height] of the box with the most pixels inside the frame; [0, 0] of none."""
    if not len(boxes):
        return [0, 0]
    inside = np.clip(boxes, 0, [width, height, width, height])
    sides = np.ceil(inside[:, 2:]) - np.floor(inside[:, :2]) + 2  # and the pixel on each side for the bilinear taps
    best = sides[np.argmax(sides.prod(axis=1))]
    return [min(width, int(best[0])), min(height, int(best[1]))]
