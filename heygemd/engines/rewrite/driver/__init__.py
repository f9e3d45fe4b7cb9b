"""The driver: from speech to how the mouth moves. See docs/driver.md."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Phone
from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.activity import activity, bridge
from heygemd.engines.rewrite.driver.allphone import recognise
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Tracks, articulate, timed_sounds
from heygemd.engines.rewrite.driver.motion import MouthMotion, motion_of

__all__ = ["MouthMotion", "drive"]


def drive(
    samples: NDArray[np.float32],
    num_frames: int,
    fps: Fraction,
    *,
    phones: Sequence[Phone] | None = None,
    language: str | None = None,
    offset_seconds: float = 0.0,
) -> MouthMotion:
    """Mouth motion for `num_frames` frames at `fps` from (n,) float32 mono speech at 16 kHz.

    `phones`: known timings (a text job); then they lead and the sound is not recognised. `language`: of the phones, as
    espeak-ng names it. `offset_seconds` > 0 moves the mouth later. Deterministic; samples that are not finite count as
    silence.
    """
    speech = np.nan_to_num(np.asarray(samples, np.float32).reshape(-1), nan=0.0, posinf=0.0, neginf=0.0)
    rows = -(-len(speech) * TRACK_RATE // SPEECH_RATE)
    if phones is not None:
        end = max((phone.end_seconds for phone in phones), default=0.0)
        tracks = articulate(timed_sounds(phones, language), max(rows, round(end * TRACK_RATE)), exact=True)
        spoken = bridge(tracks.activity > 0.5)
        summary: dict[str, Any] = {"driver": "phones", "why": "the text's phone times are known", "phones": len(phones)}
    else:
        found = recognise(speech)
        tracks = articulate(found, rows, exact=False)
        spoken = activity(speech)
        summary = {"driver": "allphone", "why": "recorded speech", "sounds": len(found)}
    gated = Tracks(tracks.opening, tracks.width, tracks.closure, tracks.teeth, spoken)
    return motion_of(gated, num_frames, fps, offset_seconds, summary)
