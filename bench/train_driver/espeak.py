"""Speech with exact phone times from libespeak-ng, for training: one process, one engine, many voices and speeds.

What heygemd itself speaks with (heygemd/media/espeak.py) knows the library; this adds the parameters of the voice.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.media.espeak import (
    AUDIO_OUTPUT_SYNCHRONOUS,
    CHARS_UTF8,
    INITIALIZE_PHONEME_EVENTS,
    OK,
    Callback,
    load_library,
    phoneme_events,
)

_RATE, _PITCH, _RANGE = 1, 3, 4


@dataclass(frozen=True)
class Utterance:
    """`samples`: (n,) float32 at `rate`. `phones`: (mnemonic, start_seconds, end_seconds); "_" and "" are pauses."""

    samples: NDArray[np.float32]
    rate: int
    phones: list[tuple[str, float, float]]


class Espeak:
    """libespeak-ng in synchronous mode. Its state is global: make one of these in a process."""

    def __init__(self) -> None:
        self._lib = load_library()
        self.rate: int = self._lib.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 500, None, INITIALIZE_PHONEME_EVENTS)
        if self.rate <= 0:
            raise RuntimeError("libespeak-ng does not start")
        self._chunks: list[NDArray[np.int16]] = []
        self._events: list[tuple[str, int]] = []
        self._callback = Callback(self._receive)  # kept: the library holds only the pointer
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, wav: Any, count: int, events: Any) -> int:
        if wav and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, shape=(count,)).copy())
        self._events += phoneme_events(events)
        return 0

    def speak(self, text: str, voice: str, rate: int = 175, pitch: int = 50, pitch_range: int = 50) -> Utterance:
        """`voice` as `espeak-ng -v` takes it, variant included ("en-us+f3")."""
        if self._lib.espeak_SetVoiceByName(voice.encode()) != OK:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for key, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._lib.espeak_SetParameter(key, value, 0)
        self._chunks, self._events = [], []
        data = text.encode()
        self._lib.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, CHARS_UTF8, None, None)
        self._lib.espeak_Synchronize()
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        ends = [start for _, start in self._events[1:]] + [len(samples)]
        phones = [(s, a / self.rate, max(a, b) / self.rate) for (s, a), b in zip(self._events, ends, strict=True)]
        return Utterance(samples.astype(np.float32) / 32768, self.rate, phones)
