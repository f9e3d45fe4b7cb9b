"""Arrays of a face that nobody has, of any size: for measuring what a render takes before there is a job."""

from __future__ import annotations

import numpy as np

from heygemd.core.clip import VideoInfo
from heygemd.engines.base import Analysis
from heygemd.engines.wav2lip.variants import MEL_COLUMNS


def stand_in(
    video: VideoInfo, region: tuple[int, int], num_frames: int, variant: str = ""
) -> tuple[Analysis, Analysis]:
    """Analysis and motion of `num_frames` frames: a fixed box of that size in the middle, which changes always."""
    width, height = min(region[0], video.width), min(region[1], video.height)
    x, y = (video.width - width) / 2, (video.height - height) / 2
    box = np.array([[x, y, x + width, y + height]], np.float32)
    motion = {
        "mel": np.zeros((80, num_frames + MEL_COLUMNS), np.float32),
        "first_column": np.arange(num_frames, dtype=np.int32),
        "weight": np.ones(num_frames, np.float32),
    }
    return Analysis({"found": np.ones(1, bool), "box": box}, {"variant": variant}), Analysis(motion)
