"""Timed sounds to continuous mouth tracks, with coarticulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Phone
from heygemd.engines.rewrite.driver.sounds import SOUNDS, sounds_of

TRACK_RATE = 100
"""Rows a second of every internal track."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TimedSound:
    """A sound of SOUNDS by name with its time in seconds."""

    name: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Tracks:
    """Mouth tracks at TRACK_RATE, (n,) float32 each. `opening` is standardised; the others as in MouthMotion."""

    opening: Floats
    width: Floats
    closure: Floats
    teeth: Floats
    activity: Floats

    def __len__(self) -> int:
        return len(self.opening)


# Widths of the raised-cosine kernels over which neighbours blend. Lips round ahead of and beyond their vowel, so the
# width blends over longer than the opening does.
OPEN_BLEND_SECONDS = 0.16
WIDTH_BLEND_SECONDS = 0.26
TEETH_BLEND_SECONDS = 0.10
_CLOSURE_RAMP_SECONDS = 0.06
_SHORTEST_CLOSURE_SECONDS = 0.05
# espeak-ng and most recognisers put a voiceless stop's event at its burst; the lips were shut before that.
_STOP_GAP_SECONDS = 0.05


def timed_sounds(phones: Sequence[Phone], language: str | None = None) -> list[TimedSound]:
    """Phones split into sounds, each with its share of the phone's time. Diphthongs give two, affricates too."""
    found: list[TimedSound] = []
    for phone in phones:
        names = sounds_of(phone.symbol, language)
        if not names or phone.end_seconds < phone.start_seconds:
            continue
        step = (phone.end_seconds - phone.start_seconds) / len(names)
        for k, name in enumerate(names):
            found.append(TimedSound(name, phone.start_seconds + k * step, phone.start_seconds + (k + 1) * step))
    return found


def kernel(seconds: float) -> Floats:
    """Raised cosine of that full width at TRACK_RATE, odd length, sum 1."""
    half = max(1, round(seconds * TRACK_RATE / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    weights: Floats = (window / window.sum()).astype(np.float32)
    return weights


def smooth(values: Floats, seconds: float) -> Floats:
    """Low-passed; the ends are held."""
    if not len(values):
        return values
    window = kernel(seconds)
    pad = len(window) // 2
    return np.convolve(np.pad(values, pad, mode="edge"), window, mode="valid").astype(np.float32)


def articulate(sounds: Sequence[TimedSound], num_rows: int, *, exact: bool) -> Tracks:
    """Mouth tracks for `num_rows` rows at TRACK_RATE. Time that no sound covers is a pause.

    `exact`: the times are known, not recognised, so closures get their full depth.
    """
    opening, width = np.full((2, num_rows), np.nan, np.float32)
    teeth, open_weight, width_weight, activity = np.zeros((4, num_rows), np.float32)
    rest = SOUNDS["pause"]
    closure = np.zeros(num_rows, np.float32)
    opening[:], width[:], teeth[:] = rest.opening, rest.width, rest.teeth
    open_weight[:], width_weight[:] = rest.open_weight, rest.width_weight
    for sound in sounds:
        shape = SOUNDS[sound.name]
        start, end = sound.start_seconds, sound.end_seconds
        if shape.voiceless_stop and exact:
            start -= _STOP_GAP_SECONDS
        a, b = (
            max(0, round(start * TRACK_RATE)),
            min(num_rows, max(round(end * TRACK_RATE), round(start * TRACK_RATE) + 1)),
        )
        if b <= a:
            continue
        opening[a:b], width[a:b], teeth[a:b] = shape.opening, shape.width, shape.teeth
        open_weight[a:b], width_weight[a:b] = shape.open_weight, shape.width_weight
        if not shape.pause:
            activity[a:b] = 1.0
        if shape.closed:
            # The lips part with the burst: of a voiceless stop only the gap before it is closed.
            until = sound.start_seconds + 0.01 if shape.voiceless_stop and exact else end
            _close(closure, start, until)
    blend = weighted(opening, open_weight, OPEN_BLEND_SECONDS)
    return Tracks(
        blend,
        weighted(width, width_weight, WIDTH_BLEND_SECONDS),
        closure,
        smooth(teeth, TEETH_BLEND_SECONDS),
        activity,
    )


def weighted(values: Floats, weights: Floats, seconds: float) -> Floats:
    """Smoothed so that a sound counts by its weight: the dominance of Cohen and Massaro, by convolution."""
    below = smooth(weights, seconds)
    return (smooth(values * weights, seconds) / np.maximum(below, 1e-6)).astype(np.float32)


def _close(closure: Floats, start: float, end: float) -> None:
    """Raise `closure` to 1 from `start` to `end` (seconds), at least the shortest closure, with ramps outside."""
    middle = (start + end) / 2
    half = max(end - start, _SHORTEST_CLOSURE_SECONDS) / 2
    a = max(0, int((middle - half - _CLOSURE_RAMP_SECONDS) * TRACK_RATE))
    b = min(len(closure), int((middle + half + _CLOSURE_RAMP_SECONDS) * TRACK_RATE) + 2)
    if b <= a:
        return
    outside = np.abs(np.arange(a, b) / TRACK_RATE - middle) - half
    level = 0.5 + 0.5 * np.cos(np.pi * np.clip(outside / _CLOSURE_RAMP_SECONDS, 0, 1))
    np.maximum(closure[a:b], level.astype(np.float32), out=closure[a:b])
