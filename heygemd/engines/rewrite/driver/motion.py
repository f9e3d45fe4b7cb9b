"""Tracks to what the renderers take: scaled to 0…1 and sampled at the output's frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Floats, Tracks
from heygemd.engines.rewrite.driver.sounds import CLOSED_OPENING

LEAD_SECONDS = 0.02
"""The mouth shapes a sound before it is heard: so much that the offsets found in clips agree with their catalogue."""

CLOSURE_LEAD_SECONDS = 0.01
"""Lips meet when the sound stops: closures hardly lead."""

_QUIVER_ROWS = 1.0  # 10 ms: regression trembles faster than lips; smoothing it costs no correlation
_FALL = np.linspace(0.9, 0.0, 10, dtype=np.float32)
_TYPICAL_TOP = 0.80
_TOP_PERCENTILE = 95
_TOP_OPENING = 0.8
SPEAKERS_RANGE = (0.04, 0.70)
"""The 10th and 90th percentile of real speakers' opening, closed at 0, their 95th percentile at 0.8."""

_KNEE = 0.8
_TENTH = 1.28  # deviations from the mean to the 10th and 90th percentile
_TRUSTED_ROWS = 300  # three seconds of speech; below that the typical range counts too


@dataclass(frozen=True)
class MouthMotion:
    """How the mouth moves, one row for each output frame, float32 (num_frames,).

    `opening`: 0 lips at rest or closed … 1 as wide as this speech opens them (its 95th percentile is 0.8).
    `width`: -1 fully rounded (u, w) … 0 neutral … 1 fully spread (i).
    `closure`: 1 lips pressed (p, b, m); `opening` is 0 there.
    `teeth`: 0…1 how much teeth or tongue should show (s, f, i).
    `activity`: 0 silence, the mouth rests … 1 speech.
    `summary`: which driver, why, and its figures; JSON-ready.
    """

    fps: Fraction
    opening: Floats
    width: Floats
    closure: Floats
    teeth: Floats
    activity: Floats
    summary: dict[str, Any] = field(default_factory=dict)


def sampled(track: Floats, num_frames: int, fps: Fraction, shift_seconds: float) -> Floats:
    """`track` (at TRACK_RATE) at the time of every frame plus `shift_seconds`; its ends are held."""
    if not len(track):
        return np.zeros(num_frames, np.float32)
    # float64 times: at one hour float32 is off by a quarter of a millisecond
    times = (np.arange(num_frames) * (fps.denominator / fps.numerator) + shift_seconds) * TRACK_RATE
    values: Floats = np.interp(times, np.arange(len(track)), track).astype(np.float32)
    return values


def sampled_most(track: Floats, num_frames: int, fps: Fraction, shift_seconds: float) -> Floats:
    """Like `sampled`, but the greatest value within half a frame, so that nothing brief falls between two frames."""
    reach = max(0, int(TRACK_RATE * fps.denominator / fps.numerator / 2))
    padded = np.pad(track, reach, mode="edge") if len(track) else track
    if len(track):
        track = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1).astype(np.float32)
    return sampled(track, num_frames, fps, shift_seconds)


def faded(track: Floats) -> Floats:
    """`track` with a short fall to 0 after its end, for what is 0 beyond it."""
    last = track[-1:] if len(track) else np.zeros(1, np.float32)
    return np.concatenate([track, last * _FALL]).astype(np.float32)


def scaled_known(opening: Floats, activity: Floats) -> tuple[Floats, float]:
    """Opening of the table → 0…1: the lips' contact at 0, the speech's 95th percentile at 0.8; and that percentile.

    Short speech says little of its range: a typical one is mixed in.
    """
    spoken = opening[activity > 0.5]
    trust = min(1.0, len(spoken) / _TRUSTED_ROWS)
    measured = float(np.percentile(spoken, _TOP_PERCENTILE)) if len(spoken) else _TYPICAL_TOP
    top = trust * measured + (1 - trust) * _TYPICAL_TOP
    span = max(top - CLOSED_OPENING, 0.3)
    return eased(np.maximum((opening - CLOSED_OPENING) / span * _TOP_OPENING, 0)), top


def scaled_speech(opening: Floats, own_range: tuple[float, float] | None) -> Floats:
    """Standardised prediction → 0…1 with the spread of real mouths: regression shrinks, and the mouth would mumble.

    `own_range`: the 10th and 90th percentile of a person's measured opening, else those of most speakers.
    """
    low, high = own_range or SPEAKERS_RANGE
    if len(opening):
        opening = gaussian_filter1d(opening, _QUIVER_ROWS, mode="nearest")
    return eased(np.maximum(low + (high - low) * (opening + _TENTH) / (2 * _TENTH), 0))


def eased(values: Floats) -> Floats:
    """Values beyond ±0.8 bent so that they stay within ±1: a mouth slows towards its limit, it does not hit one."""
    over = np.maximum(np.abs(values) - _KNEE, 0)
    bent = _KNEE + (1 - _KNEE) * np.tanh(over / (1 - _KNEE))
    return np.asarray(np.where(over > 0, np.sign(values) * bent, values), np.float32)


def motion_of(
    tracks: Tracks, num_frames: int, fps: Fraction, offset_seconds: float, summary: dict[str, Any]
) -> MouthMotion:
    """The motion of `tracks`, whose opening is 0…1 here; in silence everything fades to rest.

    `offset_seconds` > 0 moves the mouth later.
    """
    lead = LEAD_SECONDS - offset_seconds
    active = np.clip(sampled(faded(tracks.activity), num_frames, fps, lead), 0, 1)
    closure = np.clip(sampled_most(tracks.closure, num_frames, fps, CLOSURE_LEAD_SECONDS - offset_seconds), 0, 1)
    opening = sampled(tracks.opening, num_frames, fps, lead) * active * (1 - closure)
    return MouthMotion(
        fps=fps,
        opening=np.clip(opening, 0, 1),
        width=eased(sampled(tracks.width, num_frames, fps, lead)) * active,
        closure=closure * active,
        teeth=np.clip(sampled(tracks.teeth, num_frames, fps, lead), 0, 1) * active * (1 - closure),
        activity=active,
        summary=summary | {"active_share": round(float(active.mean()), 3) if num_frames else 0.0},
    )
