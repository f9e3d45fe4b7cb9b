"""From the driver's motion to canonical pixels, for one clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.base import Analysis, Arrays
from heygemd.engines.rewrite.landmarked import LANDMARKS
from heygemd.faces.canon import EYE_DISTANCE

Floats = NDArray[np.float32]
FULL_OPENING = 0.22 * EYE_DISTANCE
"""Inner opening at the driver's 1, canonical pixels, for a person whose own speech is not known."""
LEAST_FULL, MOST_FULL = 0.17 * EYE_DISTANCE, 0.34 * EYE_DISTANCE
REST_OPENING = 0.04 * EYE_DISTANCE
WIDEN, NARROW = 0.12, 0.24
"""Share of the mouth's width that spreading adds and rounding takes."""


@dataclass(frozen=True)
class Commands:
    """One row for each output frame.

    `opening`: canonical pixels · `width`: factor · `teeth` 0..1 · `gate` 0..1, where 0 is the source's own mouth.
    """

    opening: Floats
    width: Floats
    teeth: Floats
    gate: Floats

    def to_arrays(self) -> Arrays:
        return {"opening": self.opening, "width": self.width, "teeth": self.teeth, "gate": self.gate}

    @staticmethod
    def from_arrays(arrays: Arrays) -> Commands:
        return Commands(arrays["opening"], arrays["width"], arrays["teeth"], arrays["gate"])


def speed(commands: Commands) -> Floats:
    """(frames,): canonical pixels that the lips travel into each frame, times how much of the command counts."""
    across = (1.0 - commands.width) * EYE_DISTANCE / 2
    steps = np.abs(np.diff(commands.opening, prepend=commands.opening[:1]))
    steps += np.abs(np.diff(across, prepend=across[:1]))
    return (steps * commands.gate).astype(np.float32)


def full_opening(analysis: Analysis) -> float:
    """How far this person opens at most: from the clip's own speech where there is some, held near the usual."""
    found = np.asarray(analysis.arrays["face_found"], bool)
    own = np.asarray(analysis.arrays["mouth_opening"], np.float32)[found]
    talking = any(shot["speaks"] for shot in analysis.summary.get("shots", []))
    if not talking or len(own) < 50:
        return FULL_OPENING
    # The driver's 95th percentile is .8, so that its 1 lies beyond what is usual. Without landmarks wide openings are
    # measured a fifth too small: flow saturates there, and a tongue passes for a lip.
    seen = all(shot["measured"] == LANDMARKS for shot in analysis.summary["shots"] if shot["speaks"])
    return float(np.clip((1.2 if seen else 1.35) * np.percentile(own, 96), LEAST_FULL, MOST_FULL))


def commands(
    opening: Floats, width: Floats, closure: Floats, teeth: Floats, activity: Floats, *, full: float, follow: bool
) -> Commands:
    """`follow`: in pauses the source keeps its own mouth; else it rests."""
    pixels = opening * full * (1.0 - closure)
    factor = 1.0 + np.where(width > 0, WIDEN, NARROW) * width
    gate = np.clip(activity / 0.3, 0.0, 1.0) if follow else np.ones_like(activity)
    return Commands(
        pixels.astype(np.float32), factor.astype(np.float32), teeth.astype(np.float32), gate.astype(np.float32)
    )
