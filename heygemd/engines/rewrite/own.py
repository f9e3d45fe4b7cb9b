"""What a clip's own sound and its measured mouth teach about the person, and when that is not to be believed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.base import SPEECH_RATE, Arrays
from heygemd.engines.rewrite.driver import fit_personal

MOST_SECONDS = 180.0
"""More speech than this teaches nothing new, and listening to it takes time."""
LEAST_AGREEMENT, LONG_AGREEMENT = 1.6, 0.2
"""What the general driver must find of the measured mouth in a clip's sound: the sum of both correlations, at least the
first divided by the root of the seconds of speech, and the second. Chance finds less the more there is to compare. Ten
halves of real clips have 2.1 to 3.3 by that root (1.9 at least where no recogniser is installed); of 80 other people's
voices put over them one has more than 1.6."""


def learn_own(
    samples: NDArray[np.float32] | None, opening: NDArray[np.float32], width: NDArray[np.float32], fps: Fraction
) -> tuple[Arrays, dict[str, Any]]:
    """Arrays for `drive` (none when nothing is learned) and what the receipt says of it.

    `opening`, `width`: (frames,), NaN where no speaking mouth was measured. `samples`: from the time of frame 0.
    """
    if samples is None:
        return {}, _not("the clip has no sound")
    seen = np.flatnonzero(np.isfinite(opening))
    if not len(seen):
        return {}, _not("the mouth in the clip does not speak")
    first = int(seen[0])
    stop = first + round(MOST_SECONDS * fps)
    start_sample = round(first / fps * SPEECH_RATE)
    stop_sample = round(stop / fps * SPEECH_RATE)
    personal = fit_personal(samples[start_sample:stop_sample], opening[first:stop], width[first:stop], fps)
    if personal is None:
        return {}, _not("under 2 s of the clip are speech with a visible mouth")
    figures = {
        "speech_seconds": round(personal.speech_seconds, 2),
        "offset_seconds": round(personal.offset_seconds, 3),
        "opening_r": round(personal.opening_r, 3),
        "width_r": round(personal.width_r, 3),
        "agreement": round(personal.agreement, 3),
    }
    if personal.agreement < max(LEAST_AGREEMENT / math.sqrt(personal.speech_seconds), LONG_AGREEMENT):
        return {}, _not("the sound of the clip does not go with the mouth in it") | figures
    return personal.to_arrays(), {"used": True, "why": "the person is seen and heard speaking"} | figures


def _not(why: str) -> dict[str, Any]:
    return {"used": False, "why": why}
