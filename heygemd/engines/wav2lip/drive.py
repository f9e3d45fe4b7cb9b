"""From speech to what the network hears in each output frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.wav2lip.variants import MEL_COLUMNS
from heygemd.media.mel import COLUMNS_PER_SECOND, SILENCE, mel_spectrogram, num_columns

TRAINING_LEAD = Fraction(1, 25)
"""Seconds that windows start earlier in training than in the published inference: without it the lips lead by one frame
of 25 a second (Wav2Lip issues 209 and 437)."""

MARGIN_COLUMNS = 2 * COLUMNS_PER_SECOND + 2 * MEL_COLUMNS
"""Silence kept before and after the mel, so that every window of every allowed offset (2 s) is inside."""

QUIET_LEVEL = -3.2
"""Mean over the bands (-4..4, 8 per 100 dB): a recording that stays below is silence throughout."""
LEAST_RANGE = 1.0
"""Less than 12.5 dB between the loud and the quiet: there is no telling speech from pauses, all of it is speech."""
LEAST_PAUSE_SECONDS = 0.30
"""Shorter gaps are closed lips inside of words."""
EDGE_SECONDS = 0.08
"""Speech reaches this far beyond its audible part: mouths open before and close after."""
_BLOCK_FRAMES = 4096


@dataclass(frozen=True)
class Heard:
    """`mel` (80, T) with silence before and after · `first_column` (frames,), the first of the 16 columns that a frame
    hears · `activity` (T,) 0..1, speech or pause."""

    mel: NDArray[np.float32]
    first_column: NDArray[np.int32]
    activity: NDArray[np.float32]

    @property
    def activity_of_frames(self) -> NDArray[np.float32]:
        """(frames,): activity at the moment that each frame's window speaks of."""
        return self.activity[self.first_column + round(TRAINING_LEAD * COLUMNS_PER_SECOND)]


def windows(samples: NDArray[np.float32], num_frames: int, fps: Fraction, offset_seconds: float) -> Heard:
    """What each output frame hears. `offset_seconds` > 0: the mouth comes later. Every frame has a whole window."""
    times = [Fraction(i) / fps - TRAINING_LEAD for i in range(num_frames)]
    offset = Fraction(offset_seconds).limit_denominator(100_000)
    first = np.array([int((time - offset) * COLUMNS_PER_SECOND // 1) for time in times], np.int32)
    last = int(first[-1]) + MEL_COLUMNS if num_frames else 0
    columns = num_columns(len(samples))
    after = max(MARGIN_COLUMNS, last - columns + 1)
    mel = mel_spectrogram(samples, margins=(MARGIN_COLUMNS, after))
    activity = speech_activity(mel[:, MARGIN_COLUMNS : MARGIN_COLUMNS + columns])
    return Heard(mel, first + MARGIN_COLUMNS, np.pad(activity, (MARGIN_COLUMNS, after)))


def speed(
    mel: NDArray[np.float32], first_column: NDArray[np.int32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(frames,): how much the sound that a frame is made from differs from that of the frame before, which is what
    moves a mouth that only listens; times how much of the mouth is taken."""
    found = np.zeros(len(first_column), np.float32)
    for start in range(0, len(found), _BLOCK_FRAMES):
        near = first_column[max(0, start - 1) : start + _BLOCK_FRAMES]
        heard = mel[:, np.minimum(near + MEL_COLUMNS // 2, mel.shape[1] - 1)]
        change = np.abs(np.diff(heard, axis=1)).mean(axis=0)
        found[start if start else 1 : start + _BLOCK_FRAMES] = change
    return np.asarray(found * weight, np.float32)


def reference_windows(
    samples: NDArray[np.float32], num_frames: int, fps: Fraction
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The same as the published code takes them. Where that stops early, the last window stays to the end."""
    mel = mel_spectrogram(samples, padding="reflect")
    if mel.shape[1] < MEL_COLUMNS:
        mel = np.pad(mel, ((0, 0), (0, MEL_COLUMNS - mel.shape[1])), constant_values=SILENCE)
    step = 80.0 / float(fps)  # floats and int() on purpose: 29.97 frames a second round as they do there
    first = np.array([int(i * step) for i in range(num_frames)], np.int32)
    return mel, np.minimum(first, mel.shape[1] - MEL_COLUMNS).astype(np.int32)


def speech_activity(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T,) 0..1 for each column: 1 in speech, 0 in pauses, with ramps between."""
    level = mel.mean(axis=0, dtype=np.float64)
    audible = level[level > SILENCE + 0.05]
    if not len(audible) or float(np.percentile(audible, 95)) < QUIET_LEVEL:
        return np.zeros(mel.shape[1], np.float32)
    loud, floor = float(np.percentile(audible, 90)), float(np.percentile(level, 5))
    if loud - floor < LEAST_RANGE:
        return np.ones(mel.shape[1], np.float32)
    speaking = level > max(QUIET_LEVEL, floor + 0.4 * (loud - floor))
    edge = round(EDGE_SECONDS * COLUMNS_PER_SECOND)
    speaking = np.convolve(speaking, np.ones(2 * edge + 1), "same") > 0.5
    speaking = _without_short_gaps(speaking, round(LEAST_PAUSE_SECONDS * COLUMNS_PER_SECOND))
    kernel = np.hanning(2 * edge + 3)
    return np.asarray(np.convolve(speaking, kernel / kernel.sum(), "same"), np.float32)


def _without_short_gaps(speaking: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Fill gaps between speech that are shorter than `least` columns."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], speaking, [True])).astype(np.int8)))
    filled = speaking.copy()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start < least and start > 0 and stop < len(speaking):
            filled[start:stop] = True
    return filled


def gated(mel: NDArray[np.float32], activity: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mel with its pauses made silent, so that noise between words does not move the mouth. Writes into `mel`: of
    hours it is half a gigabyte."""
    mel -= np.float32(SILENCE)
    mel *= activity
    mel += np.float32(SILENCE)
    return mel
