"""The driver: from speech to how the mouth moves. See docs/driver.md."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Phone
from heygemd.core.errors import EngineUnavailableError
from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, Tracks, articulate, timed_sounds
from heygemd.engines.rewrite.driver.evidence import bridged, gather
from heygemd.engines.rewrite.driver.general import general_rows, tracks_of
from heygemd.engines.rewrite.driver.motion import MouthMotion, motion_of, scaled_known, scaled_speech
from heygemd.engines.rewrite.driver.personal import PersonalDriver, fit
from heygemd.engines.rewrite.driver.recogniser import PACKAGE

__all__ = ["MouthMotion", "PersonalDriver", "drive", "fit_personal"]

_BLOCK_SAMPLES = 1 << 20


def drive(
    samples: NDArray[np.float32],
    num_frames: int,
    fps: Fraction,
    *,
    phones: Sequence[Phone] | None = None,
    language: str | None = None,
    offset_seconds: float = 0.0,
    personal: PersonalDriver | None = None,
) -> MouthMotion:
    """Mouth motion for `num_frames` frames at `fps` from (n,) float32 mono speech at 16 kHz.

    `phones`: known timings (a text job); then they lead and the sound is not listened to. `language`: of the phones, as
    espeak-ng names it. `offset_seconds` > 0 moves the mouth later. `personal`: from `fit_personal`. Deterministic;
    samples that are not finite count as silence.
    """
    speech = _clean(samples)
    if phones is not None:
        rows = -(-len(speech) * TRACK_RATE // SPEECH_RATE)
        end = max((phone.end_seconds for phone in phones), default=0.0)
        made = articulate(timed_sounds(phones, language), max(rows, round(end * TRACK_RATE)), exact=True)
        spoken = bridged(made.activity > 0.5)
        opening, top = scaled_known(made.opening, spoken)
        tracks = Tracks(opening, made.width, made.closure, made.teeth, spoken)
        why: dict[str, Any] = {"driver": "phones", "why": "the phones' times are known", "phones": len(phones)}
        why["opening_top"] = round(top, 3)
    else:
        evidence = gather(speech)
        if personal is not None and personal.recognised != evidence.recognised:
            raise EngineUnavailableError(
                f"The clip was analysed {'with' if personal.recognised else 'without'} the package {PACKAGE}, and this "
                "machine has it otherwise. Install heygemd's requirements on every machine."
            )
        made = tracks_of(evidence, personal)
        opening = scaled_speech(made.opening, personal.opening_range if personal else None)
        tracks = Tracks(opening, made.width, made.closure, made.teeth, made.activity)
        views = f"phonetic, spectral balance, {'recogniser' if evidence.recognised else 'network'}"
        why = {"driver": views, "why": "recorded speech"}
        why["speech_seconds"] = round(evidence.speech_seconds, 2)
        if personal is not None:
            why |= {
                "driver": f"{views} and the person's own speech",
                "own_speech_seconds": round(personal.speech_seconds, 2),
                "own_offset_seconds": round(personal.offset_seconds, 3),
                "own_opening_r": round(personal.opening_r, 3),
                "own_width_r": round(personal.width_r, 3),
            }
    return motion_of(tracks, num_frames, fps, offset_seconds, why)


def fit_personal(
    samples: NDArray[np.float32], opening: NDArray[Any], width: NDArray[Any], fps: Fraction
) -> PersonalDriver | None:
    """Learn how this person's mouth goes with their speech, from a clip in which both are known.

    `samples`: (n,) float32 mono at 16 kHz, the clip's own sound from the time of frame 0. `opening`, `width`: (frames,)
    measured, in any unit, NaN where unmeasured. None where fewer than 2 s of speech were measured. The clip's own
    offset between sound and picture is estimated, taken out, and stands in the result.
    """
    evidence = gather(_clean(samples))
    return fit(evidence, general_rows(evidence), opening, width, fps)


def _clean(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = np.asarray(samples, np.float32).reshape(-1)
    finite = all(np.isfinite(flat[at : at + _BLOCK_SAMPLES]).all() for at in range(0, len(flat), _BLOCK_SAMPLES))
    return flat if finite else np.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0)
