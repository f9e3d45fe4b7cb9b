"""The child process that speaks: `python -P -m heygemd.media.espeak OUT.wav`, JSON on stdin and stdout.

espeak-ng's library is not thread-safe and may crash on strangers' text, so it lives here, alone. Only the standard
library is imported. Request: {"parts": [[voice, text], …], "max_seconds": n}. Answer: {"duration_seconds",
"phones": [[symbol, start_seconds, end_seconds], …]} or {"error": one line}.

Timing comes from the library's phoneme events (speak_lib.h of espeak-ng 1.51): exact samples, for every voice.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import json
import resource
import sys
import wave
from pathlib import Path
from typing import Any

AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_PHONEME_EVENTS = 0x0001
_INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1  # neither espeakSSML (0x10) nor espeakPHONEMES (0x100): the text is text
_ENDPAUSE = 0x1000
_EVENT_LIST_TERMINATED = 0
_EVENT_END = 5
_EVENT_PHONEME = 7
OK = 0
_ADDRESS_SPACE_BYTES = 2 << 30
_CPU_SECONDS = 600


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def load_library() -> ctypes.CDLL:
    """Raises OSError where espeak-ng's library is not installed."""
    return ctypes.CDLL(ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1")


def phoneme_events(events: Any) -> list[tuple[str, int]]:
    """(symbol, sample) of the phonemes among the events that a synthesis callback is given."""
    found = []
    for place in range(1 << 20):
        event = events[place]
        if event.type == _EVENT_LIST_TERMINATED:
            break
        if event.type == _EVENT_PHONEME:
            found.append((event.id.string.decode("utf-8", "replace"), int(event.sample)))
    return found


class RefusalError(Exception):
    """What the parent turns into a SpeechError."""


class _Speaker:
    def __init__(self, max_seconds: float) -> None:
        try:
            self._library = load_library()
        except OSError as error:
            raise RefusalError(f"espeak-ng's library cannot be loaded ({error})") from error
        flags = INITIALIZE_PHONEME_EVENTS | _INITIALIZE_DONT_EXIT
        self.sample_rate = int(self._library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, None, flags))
        if self.sample_rate <= 0:
            raise RefusalError("espeak-ng does not start: its data files are missing")
        self._callback = Callback(self._on_sound)  # kept: the library holds only the pointer
        self._library.espeak_SetSynthCallback(self._callback)
        self._max_samples = int(max_seconds * self.sample_rate)
        self.sound = bytearray()
        self.events: list[tuple[str, int]] = []
        self._part_start = 0
        self.too_long = False

    def speak(self, voice: str, text: str) -> None:
        """Append `text`; what it says comes through the callback."""
        self._check_variant(voice)
        if self._library.espeak_SetVoiceByName(voice.encode()) != OK and not self._by_language(voice):
            raise RefusalError(f"there is no voice or language {voice!r}")
        data = text.encode("utf-8", "replace") + b"\0"
        self._part_start = len(self.sound) // 2
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, 1, 0, CHARS_UTF8 | _ENDPAUSE, None, None
        )
        self._library.espeak_Synchronize()
        if self.too_long:
            raise RefusalError(f"the speech is longer than {self._max_samples / self.sample_rate:.0f} s")
        if status != OK:
            raise RefusalError(f"espeak-ng refuses the text (error {status})")
        self.events.append(("", len(self.sound) // 2))

    def _by_language(self, voice: str) -> bool:
        """Some languages (en-gb) are no voice's name; espeak-ng's own program asks for them this way."""
        wanted = _Voice(languages=voice.encode())
        return bool(self._library.espeak_SetVoiceByProperties(ctypes.byref(wanted)) == OK)

    def _check_variant(self, voice: str) -> None:
        # The library speaks with the plain voice when the variant after the + is unknown.
        _, plus, variant = voice.partition("+")
        if not plus:
            return
        where = ctypes.c_char_p()
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._library.espeak_Info(ctypes.byref(where))
        folder = Path((where.value or b"").decode("utf-8", "replace")) / "voices" / "!v"
        if not (folder / variant).is_file():
            raise RefusalError(f"there is no voice variant {variant!r}")

    def _on_sound(self, sound: Any, count: int, events: Any) -> int:
        if count > 0 and sound:
            self.sound += ctypes.string_at(sound, count * 2)
        self.events += [(symbol, self._part_start + sample) for symbol, sample in phoneme_events(events)]
        self.too_long = len(self.sound) // 2 > self._max_samples
        return int(self.too_long)  # 1 stops the synthesis


def _phones(events: list[tuple[str, int]], sample_rate: int) -> list[tuple[str, float, float]]:
    """Each event begins a phone that lasts until the next one; empty symbols and pauses only end the one before."""
    phones = []
    for (symbol, start), (_, end) in itertools.pairwise(events):
        if symbol and end > start:
            phones.append((symbol, start / sample_rate, end / sample_rate))
    return phones


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin)
    try:
        speaker = _Speaker(float(request["max_seconds"]))
        for voice, text in request["parts"]:
            speaker.speak(voice, text)
    except RefusalError as failure:
        json.dump({"error": str(failure)}, sys.stdout)
        return 0
    with wave.open(sys.argv[1], "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(speaker.sample_rate)
        out.writeframes(speaker.sound)
    answer = {
        "duration_seconds": len(speaker.sound) / 2 / speaker.sample_rate,
        "phones": _phones(speaker.events, speaker.sample_rate),
    }
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
