"""Chooses the constant frame rate of a clip from its timestamps. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

STANDARD_RATES: tuple[Fraction, ...] = tuple(
    sorted(
        {Fraction(n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 72, 90, 100, 120)}
        | {Fraction(25, 2), Fraction(15000, 1001), Fraction(24000, 1001), Fraction(30000, 1001)}
        | {Fraction(48000, 1001), Fraction(60000, 1001), Fraction(120000, 1001)}
    )
)
STILL_RATE = Fraction(25)
MAX_RATE = Fraction(120)
_MEANINGLESS_RATE = 1000  # no camera of a talking head; such timestamps come from broken muxers
_JITTER_SECONDS = 0.0006  # rounding to milliseconds (Matroska, FLV) is not variable rate


@dataclass(frozen=True)
class Rate:
    """The constant rate, whether the source's frames are spaced unevenly, and what was changed, in words."""

    fps: Fraction
    variable: bool = False
    notes: tuple[str, ...] = ()


def intervals_regular(pts: NDArray[np.int64], time_base: Fraction) -> bool:
    """Whether every interval is the usual one, give or take the rounding of the container's clock.

    `pts`: (n,) increasing, in `time_base` seconds.
    """
    if len(pts) < 3:
        return True
    steps = np.diff(pts)
    usual = float(np.median(steps))
    tolerance = max(1.01, _JITTER_SECONDS / float(time_base))
    if float(np.abs(steps - usual).max()) > tolerance:
        return False
    # Small errors must not add up either: each frame stays within half a frame of its place in an even row.
    even = np.linspace(float(pts[0]), float(pts[-1]), len(pts))
    return float(np.abs(pts - even).max()) <= max(0.5 * usual, tolerance)


def timestamps_meaningless(pts: NDArray[np.int64], time_base: Fraction) -> bool:
    """Whether the usual interval belongs to no camera: then frames are taken one by one at the standard rate."""
    return len(pts) >= 2 and float(np.median(np.diff(pts))) * float(time_base) < 1 / _MEANINGLESS_RATE


def choose_rate(pts: NDArray[np.int64], time_base: Fraction, declared: tuple[Fraction, ...]) -> Rate:
    """The rate for a clip whose first frames have these `pts` (increasing); `declared`: what the container claims.

    Even spacing: the declared or standard rate that agrees with the timestamps. Uneven: a standard rate near the most
    usual interval. Rates beyond MAX_RATE are clamped, and meaningless ones replaced by 25, with a note.
    """
    claims = tuple(rate for rate in declared if rate > 0)
    if len(pts) < 2:
        claim = next((rate for rate in claims if 1 <= rate <= MAX_RATE), STILL_RATE)
        return Rate(claim)
    span_seconds = float((int(pts[-1]) - int(pts[0])) * time_base)  # in Python integers: strangers wrote them
    if timestamps_meaningless(pts, time_base) or span_seconds <= 0:
        return Rate(STILL_RATE, notes=(f"the timestamps are meaningless; frames are taken at {STILL_RATE} a second",))
    usual_seconds = float(np.median(np.diff(pts))) * float(time_base)
    regular = intervals_regular(pts, time_base)
    if regular:
        measured = (len(pts) - 1) / span_seconds
        # how far the clock's rounding can move the mean over this many frames
        error = 1.5 * float(time_base) / span_seconds + 2e-4
        fps = next((rate for rate in claims if abs(float(rate) / measured - 1) <= error), None) or _snap(
            measured, max(error, 5e-4)
        )
    else:
        measured = 1 / usual_seconds
        tolerance = max(0.06, float(time_base) / usual_seconds)
        fps = next((rate for rate in claims if rate in STANDARD_RATES and abs(rate / measured - 1) < 0.02), None) or (
            _snap(measured, tolerance)
        )
    return _clamped(fps, variable=not regular)


def _snap(rate: float, tolerance: float) -> Fraction:
    nearest = min(STANDARD_RATES, key=lambda standard: abs(float(standard) - rate))
    if abs(float(nearest) / rate - 1) <= tolerance:
        return nearest
    return Fraction(rate).limit_denominator(1001)


def _clamped(fps: Fraction, *, variable: bool) -> Rate:
    notes: tuple[str, ...] = ()
    if variable:
        notes = (f"variable frame rate, made constant at {float(fps):.6g} a second from the timestamps",)
    if fps > MAX_RATE:
        return Rate(MAX_RATE, True, (*notes, f"{float(fps):.6g} frames a second are reduced to {MAX_RATE}"))
    if fps < 1:
        return Rate(STILL_RATE, True, (*notes, f"{float(fps):.3g} frames a second are raised to {STILL_RATE}"))
    return Rate(fps, variable, notes)
