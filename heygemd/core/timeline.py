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


def extend(base: NDArray[np.int64], num_frames: int, how: Extend) -> NDArray[np.int64]:
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
