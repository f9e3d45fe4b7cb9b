"""The balance of the spectrum, which follows the mouth's own shape in any voice and language.

An open mouth lets the middle of the spectrum out and raises the first formant; lips that nearly close leave a murmur
below 600 Hz. Rounding lowers the second formant from where spreading puts it.
"""

from __future__ import annotations

import numpy as np

from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Floats, smooth
from heygemd.engines.rewrite.driver.cepstra import between
from heygemd.engines.rewrite.driver.features import normalised
from heygemd.engines.rewrite.driver.network import at_rate

# What rises and what falls as the mouth opens, and as it spreads.
_OPENING_HZ = ((1500.0, 3300.0), (100.0, 600.0))
_WIDTH_HZ = ((1500.0, 2500.0), (300.0, 650.0))
_OPENING_SECONDS, _WIDTH_SECONDS = 0.20, 0.28
_FAINT = 3.0  # deviations below the mean level at which a row hardly counts: what is heard there is the room
_LEAST_WEIGHT = 0.05


def balance(levels: Floats, rows: int) -> Floats:
    """(rows, 2) at TRACK_RATE for opening and width, unscaled, from (n, 25) levels of `band_levels`."""
    found = np.zeros((rows, 2), np.float32)
    pairs = len(levels) // 2
    if not pairs or not rows:
        return found
    bands = normalised(levels[: 2 * pairs].reshape(pairs, 2, -1).mean(axis=1))
    weight = at_rate(np.clip(bands.mean(axis=1) / _FAINT + 1, _LEAST_WEIGHT, 1), rows, TRACK_RATE)
    choices = ((_OPENING_HZ, _OPENING_SECONDS), (_WIDTH_HZ, _WIDTH_SECONDS))
    for column, ((rising, falling), seconds) in enumerate(choices):
        contrast = bands[:, between(*rising)].mean(axis=1) - bands[:, between(*falling)].mean(axis=1)
        found[:, column] = smooth(at_rate(contrast, rows, TRACK_RATE) * weight, seconds) / smooth(weight, seconds)
    return found
