"""Arrays of a face that nobody has, of any size: for measuring what a render takes before there is a job."""

from __future__ import annotations

import numpy as np

from heygemd.core.clip import VideoInfo
from heygemd.engines.base import Analysis
from heygemd.engines.rewrite.inside import KEY_BOX
from heygemd.engines.rewrite.interior import SCALE, SIZE
from heygemd.engines.rewrite.motion import FULL_OPENING, Commands
from heygemd.engines.rewrite.shape import FIELD_BOX, MouthShape
from heygemd.faces.track import FaceTrack

_KEY_SCALE = 2.0


def stand_in(video: VideoInfo, region: tuple[int, int], num_frames: int) -> tuple[Analysis, Analysis]:
    """Analysis and motion of `num_frames` frames whose region has about so many pixels, in the middle of the picture.
    It is the sort of mouth that takes most: one that speaks already, whose lips are replaced."""
    x0, y0, x1, y1 = FIELD_BOX
    scale = float(np.sqrt(region[0] * region[1] / ((x1 - x0) * (y1 - y0))))
    shift = np.array([video.width, video.height]) / 2 - scale * np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    count = max(1, video.num_frames)
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]], np.float32)
    track = FaceTrack(
        found=np.ones(count, bool),
        box=np.zeros((count, 4), np.float32),
        shot=np.zeros(count, np.int32),
        canonical=np.repeat(matrix[None], count, axis=0),
        quality=np.ones(count, np.float32),
        turn=np.zeros(count, np.float32),
        eyes=np.zeros((1, 2, 2), np.float32),
    )
    mouth = MouthShape(98.0, 158.0, 154.0, 0.0, 2.0, 0.0, 0.0, 9.0, 12.0)
    key = round((KEY_BOX[3] - KEY_BOX[1]) * _KEY_SCALE), round((KEY_BOX[2] - KEY_BOX[0]) * _KEY_SCALE)
    arrays = {
        **track.to_arrays(),
        "mouth_shift": np.zeros((count, 2), np.float32),
        "mouth_opening": np.zeros(count, np.float32),
        "mouth_trust": np.ones(count, np.float32),
        "shot0_shape": mouth.to_row(),
        "shot0_numbers": np.array([1.0, 1.0, _KEY_SCALE, 14.0, 20.0], np.float32),
        "shot0_inside": np.full((int(SIZE[1] * SCALE), int(SIZE[0] * SCALE), 3), 90, np.uint8),
        "shot0_picture": np.full((*key, 3), 128, np.uint8),
    }
    phase = np.arange(num_frames, dtype=np.float32)
    motion = Commands(
        opening=(0.5 * FULL_OPENING * (1 + np.sin(phase / 3))).astype(np.float32),
        width=np.ones(num_frames, np.float32),
        teeth=np.ones(num_frames, np.float32),
        gate=np.ones(num_frames, np.float32),
    )
    return Analysis(arrays), Analysis(motion.to_arrays())
