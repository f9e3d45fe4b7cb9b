"""Speech to timed sounds with pocketsphinx: an English phone recogniser, nothing trained by us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.articulate import TimedSound
from heygemd.engines.rewrite.driver.sounds import sounds_of_arpabet

_FRAME_SECONDS = 0.01
_CHUNK_SECONDS = 20
_SEARCH_SECONDS = 4
# Far below pocketsphinx's default of 6.5, which hears too few sounds: its phone model then outweighs the sound itself.
_LANGUAGE_WEIGHT = 2.0


def _decoder() -> Any:
    from pocketsphinx import Decoder, get_model_path

    model = Path(get_model_path()) / "en-us"
    return Decoder(
        hmm=str(model / "en-us"),
        allphone=str(model / "en-us-phone.lm.bin"),
        lm=None,
        dict=None,
        lw=_LANGUAGE_WEIGHT,
        beam=1e-20,
        pbeam=1e-20,
        loglevel="FATAL",
    )


def chunks(samples: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Sample spans of about 20 s that meet at the quietest place near each border, so that no sound is cut."""
    length, spans, start = _CHUNK_SECONDS * SPEECH_RATE, [], 0
    hop = SPEECH_RATE // 50
    while len(samples) - start > length + _SEARCH_SECONDS * SPEECH_RATE:
        first = start + length - _SEARCH_SECONDS * SPEECH_RATE // 2
        window = samples[first : first + _SEARCH_SECONDS * SPEECH_RATE]
        energy = np.square(window[: len(window) // hop * hop].reshape(-1, hop)).mean(axis=1)
        end = first + int(np.argmin(np.convolve(energy, np.ones(5), mode="same"))) * hop
        spans.append((start, end))
        start = end
    return [*spans, (start, len(samples))]


def recognise(samples: NDArray[np.float32], gain: float = 1.0) -> list[TimedSound]:
    """Sounds of (n,) float32 speech at 16 kHz times `gain`, in order of time. Memory is bounded by the chunk."""
    found: list[TimedSound] = []
    decoder = _decoder()  # a fresh one each time: its estimate of the channel outlives an utterance
    for start, end in chunks(samples):
        if end - start < SPEECH_RATE // 20:  # under 50 ms there is no frame to decode
            continue
        pcm = np.clip(samples[start:end] * np.float32(gain * 32767), -32768, 32767).astype("<i2")
        decoder.start_utt()
        decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
        decoder.end_utt()
        for segment in decoder.seg() or ():
            a = start / SPEECH_RATE + segment.start_frame * _FRAME_SECONDS
            b = start / SPEECH_RATE + (segment.end_frame + 1) * _FRAME_SECONDS
            names = sounds_of_arpabet(segment.word)
            step = (b - a) / len(names)
            found += [TimedSound(name, a + k * step, a + (k + 1) * step) for k, name in enumerate(names)]
    return found
