"""Which source frame stands in which output frame. Pure: the same numbers for a whole render and for any part of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Extend = Literal["pingpong", "loop", "freeze"]


def num_output_frames(speech_seconds: Fraction | float, fps: Fraction) -> int:
    """Frames that last as long as the speech, to within half a frame; at least one."""
    return max(1, round(Fraction(speech_seconds) * fps))


def constant_rate(pts: NDArray[np.int64], time_base: Fraction, fps: Fraction) -> NDArray[np.int32]:
    """Source frame for each tick of a constant-rate clock that starts at the first frame.

    A frame belongs to the tick nearest to its time stamp and stays until the next one comes; where two share a tick,
    the later wins (as ffmpeg's fps filter does). So jitter in the stamps of a constant-rate clip changes nothing.
    The last frame gets the usual distance as its duration. `pts`: (n,) increasing, n >= 1.
    """
    if len(pts) == 1:
        return np.zeros(1, np.int32)
    rate = Fraction(fps) * Fraction(time_base)
    relative = (pts - pts[0]).astype(object)
    slots = np.array([int((p * rate.numerator * 2 + rate.denominator) // (2 * rate.denominator)) for p in relative])
    usual = max(1, round(float(np.median(np.diff(pts))) * float(rate)))
    ticks = np.arange(int(slots[-1]) + usual)
    return (np.searchsorted(slots, ticks, side="right") - 1).clip(0).astype(np.int32)


def extend(base: NDArray[np.int32], num_frames: int, how: Extend) -> NDArray[np.int32]:
    """`base` made `num_frames` long: cut, or continued back and forth, from the start, or with the last frame."""
    n = len(base)
    if num_frames <= n:
        return base[:num_frames].copy()
    k = np.arange(num_frames)
    if how == "freeze" or n == 1:
        k = np.minimum(k, n - 1)
    elif how == "loop":
        k = k % n
    else:
        period = 2 * n - 2
        k = k % period
        k = np.where(k < n, k, period - k)
    return base[k]
