"""Turns text into speech with exact phone timings. `EspeakSource` is the one that is always there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from heygemd.core.clip import Phone
from heygemd.core.errors import DiskFullError, SpeechError, WorkerDiedError

MAX_CHARACTERS = 100_000
_TIMEOUT_SECONDS = 900.0
_CHINESE_VOICE = "cmn-latn-pinyin"
_CHINESE = {"cmn", "zh", "zh-cn", "zh-hans", "cmn-latn-pinyin", "mandarin", "chinese"}
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_READS_HAN = {"yue", "hak", "cmn-latn-pinyin"}
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
# scripts that only one of espeak-ng's languages reads sensibly; Han comes last, because Japanese uses it too
_SCRIPTS = (
    (re.compile("[\u3040-\u30ff]"), "ja"),
    (re.compile("[\uac00-\ud7af]"), "ko"),
    (_HAN_CHARACTER, "cmn"),
    (re.compile("[\u0400-\u04ff]"), "ru"),
    (re.compile("[\u0600-\u06ff]"), "ar"),
    (re.compile("[\u0370-\u03ff]"), "el"),
    (re.compile("[\u0590-\u05ff]"), "he"),
    (re.compile("[\u0900-\u097f]"), "hi"),
    (re.compile("[\u0e00-\u0e7f]"), "th"),
)
_LATIN_WORDS = re.compile(
    r"[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f0-9'’&@.+/-]*(?:[ ,]+[A-Za-z\u00c0-\u024f][\w'’.-]*)*"
)
_NAME = re.compile(r"[A-Za-z0-9+_-]{1,40}")  # espeak-ng takes a name for a path
_PUNCTUATION = str.maketrans("，。！？；：、…—（）《》「」“”‘’％", ",.!?;:,.,()()()\"\"''%")


@dataclass(frozen=True)
class SpokenText:
    """What was said. `phones` are in order and do not overlap; pauses are phones whose symbol begins with `_`."""

    duration_seconds: float
    phones: tuple[Phone, ...]
    language: str


class SpeechSource(Protocol):
    """Speaks text into a WAV file. The text is text: markup in it is read aloud, not obeyed."""

    def speak(self, text: str, out_wav: Path, *, language: str | None, voice: str | None) -> SpokenText:
        """`language` None: told from the script. Raises SpeechError, DiskFullError."""
        ...


class EspeakSource:
    """espeak-ng, in a child process for each text. Thread-safe."""

    def __init__(self, *, default_language: str = "en-us", max_seconds: float = 4 * 3600.0) -> None:
        self._default_language = default_language
        self._max_seconds = max_seconds

    def speak(self, text: str, out_wav: Path, *, language: str | None = None, voice: str | None = None) -> SpokenText:
        """Writes 22.05 kHz mono 16 bit. `voice`: an espeak-ng voice (en-gb, en-us+f3) or a variant (f3, +f3)."""
        for name in (language, voice):
            if name is not None and not _NAME.fullmatch(name):
                raise SpeechError(f"{name!r} is no voice or language", case="unknown_voice", voice=name)
        clean = clean_text(text)
        spoken_language = language or detect_language(clean) or self._default_language
        chinese = spoken_language.lower() in _CHINESE
        if _HAN_CHARACTER.search(clean) and spoken_language.split("-")[0] == "ja":
            raise SpeechError(
                "espeak-ng cannot read Chinese characters in Japanese", remedy="Write the text in kana.", case="kanji"
            )
        parts = [(spoken_language, clean)]
        if chinese or (_HAN_CHARACTER.search(clean) and spoken_language not in _READS_HAN):
            parts = _chinese_parts(clean, self._default_language if chinese else spoken_language)
        parts = [(_voice(name, voice), part) for name, part in parts]
        answer = self._ask(parts, out_wav)
        phones = tuple(
            Phone(symbol, start, end) for symbol, start, end in answer["phones"] if not symbol.startswith("(")
        )
        if not any(not phone.symbol.startswith("_") for phone in phones):
            out_wav.unlink(missing_ok=True)
            raise SpeechError(
                f"nothing in the text can be spoken in {spoken_language!r}",
                case="nothing_spoken",
                language=spoken_language,
            )
        return SpokenText(float(answer["duration_seconds"]), phones, "cmn" if chinese else spoken_language)

    def _ask(self, parts: list[tuple[str, str]], out_wav: Path) -> dict[str, Any]:
        request = json.dumps({"parts": parts, "max_seconds": self._max_seconds})
        argv = [sys.executable, "-P", "-m", "heygemd.media.espeak", str(out_wav.absolute())]
        try:
            done = subprocess.run(argv, input=request.encode(), capture_output=True, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            text = f"espeak-ng did not finish within {_TIMEOUT_SECONDS:.0f} s"
            raise SpeechError(text, case="too_slow", limit_seconds=_TIMEOUT_SECONDS) from error
        if done.returncode == -signal.SIGKILL:
            raise WorkerDiedError("espeak-ng was killed", signal="SIGKILL")
        if done.returncode != 0:
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
            if "No space left on device" in last or "Disk quota exceeded" in last:
                raise DiskFullError(f"{out_wav.name}: no room for it on the disk", path=str(out_wav))
            raise SpeechError(f"espeak-ng failed on this text (status {done.returncode}): {last[:200]}")
        answer = dict(json.loads(done.stdout))
        if "error" in answer:
            raise SpeechError(str(answer["error"]))
        return answer


def clean_text(text: str) -> str:
    """The text without control and formatting characters (espeak-ng obeys some), NFC. Raises SpeechError when it is
    empty or longer than MAX_CHARACTERS."""
    if len(text) > MAX_CHARACTERS:
        raise SpeechError(
            f"the text has {len(text)} characters, more than {MAX_CHARACTERS}",
            case="text_too_long",
            characters=len(text),
            limit=MAX_CHARACTERS,
        )
    kept = "".join(
        " " if character in "\t\r\x0b\x0c" else character
        for character in unicodedata.normalize("NFC", text)
        if character in "\n\t\r\x0b\x0c" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    if not kept.strip():
        raise SpeechError("the text is empty", case="empty")
    return kept


def detect_language(text: str) -> str | None:
    """espeak-ng's language for the text's script, or None when the script does not tell (Latin)."""
    return next((language for script, language in _SCRIPTS if script.search(text)), None)


def _voice(language: str, voice: str | None) -> str:
    """espeak-ng's voice name: a full voice replaces the language, a variant is added to it."""
    if voice is None:
        return language
    if language == _CHINESE_VOICE and _is_language(voice) and not voice.startswith("cmn"):
        return language  # a voice for the Latin words of a mixed text
    if voice.startswith("+"):
        return language + voice
    known_variant = re.fullmatch(r"[fm]\d|klatt\d?|croak|whisper[f]?|[A-Z]\w+|[a-z]+\d?", voice)
    return f"{language}+{voice}" if known_variant and not _is_language(voice) else voice


def _is_language(voice: str) -> bool:
    # every language code of espeak-ng has two or three letters, then perhaps more after a hyphen
    return re.fullmatch(r"[a-z]{2,3}(-.+)?", voice) is not None


def _chinese_parts(text: str, latin_voice: str) -> list[tuple[str, str]]:
    """(voice, text) in order: Chinese as numbered pinyin (the `cmn` voice reads characters as English), Latin words in
    `latin_voice`."""
    from pypinyin import Style, lazy_pinyin  # its dictionaries take a second to load

    def pinyin(part: str) -> str:
        part = re.sub(r"(\d+(?:\.\d+)?)\s*[%％]", r"百分之\1", part).translate(_PUNCTUATION)
        return " ".join(lazy_pinyin(part, style=Style.TONE3, neutral_tone_with_five=True, v_to_u=False))

    if not _HAN_CHARACTER.search(text):  # already pinyin, because the language was named
        return [(_CHINESE_VOICE, text)]
    parts: list[tuple[str, str]] = []
    place = 0
    for words in _LATIN_WORDS.finditer(text):
        parts += [(_CHINESE_VOICE, text[place : words.start()]), (latin_voice, words[0])]
        place = words.end()
    parts.append((_CHINESE_VOICE, text[place:]))
    spoken = [
        (voice, pinyin(part) if voice == _CHINESE_VOICE else part) for voice, part in parts if re.search(r"\w", part)
    ]
    if not spoken:
        raise SpeechError("nothing in the text can be spoken in 'cmn'", case="nothing_spoken", language="cmn")
    return spoken
