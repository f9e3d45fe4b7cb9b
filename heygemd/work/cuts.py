"""Where a result may be cut into segments: where it is quiet and the mouth is still. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.base import SPEECH_RATE, Speech

Floats = NDArray[np.float32]
_FRAMES_AT_ONCE = 1024


def cut_cost(speech: Speech, mouth_speed: Floats | None) -> Floats:
    """(num_frames,): how bad a cut before each frame is; 0 in silence with a still mouth, about 2 in loud, lively
    speech. `mouth_speed` (num_frames,): how far the mouth moves into each frame, in any unit; None where the engine
    does not say.

    A cut is never seen in the picture itself: segments join frame for frame. But the encoder starts anew behind it, and
    a step in quality hides best where nothing moves.
    """
    cost = _share_of_usual(loudness(speech))
    return cost if mouth_speed is None else cost + _share_of_usual(_around(mouth_speed))


def loudness(speech: Speech) -> Floats:
    """(num_frames,): RMS of the speech around each frame's start."""
    centre = (np.arange(speech.num_frames) * float(SPEECH_RATE / speech.fps)).astype(np.int64)
    first, stop = (np.clip(centre + side * SPEECH_RATE // 20, 0, len(speech.samples)) for side in (-1, 1))
    found = np.zeros(speech.num_frames, np.float32)
    for begin in range(0, speech.num_frames, _FRAMES_AT_ONCE):  # hours of sums would be gigabytes
        block = slice(begin, begin + _FRAMES_AT_ONCE)
        start, end = int(first[block].min()), int(stop[block].max())
        power = np.concatenate([[0.0], np.cumsum(np.square(speech.samples[start:end], dtype=np.float64))])
        total = power[stop[block] - start] - power[first[block] - start]
        found[block] = np.sqrt(total / np.maximum(1, stop[block] - first[block]))
    return found


def _around(values: Floats) -> Floats:
    """The larger of a frame's own value and the next one's: a cut lies between two frames, and both should rest."""
    larger: Floats = np.maximum(values, np.append(values[1:], values[-1:])).astype(np.float32)
    return larger


def _share_of_usual(values: Floats) -> Floats:
    """0 to 1, where 1 is what the liveliest twentieth reaches."""
    usual = float(np.percentile(values, 95)) if len(values) else 0.0
    if usual <= 0:
        return np.zeros_like(values)
    share: Floats = np.clip(values / usual, 0.0, 1.0).astype(np.float32)
    return share
