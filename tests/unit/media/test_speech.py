import wave
from pathlib import Path

import pytest

from heygemd.core.errors import SpeechError
from heygemd.media.speech import EspeakSource, clean_text, detect_language


@pytest.fixture
def source() -> EspeakSource:
    return EspeakSource(max_seconds=60)


def test_phones_cover_the_sound_exactly(source: EspeakSource, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    spoken = source.speak("Papa, my Bob.", out)
    with wave.open(str(out)) as file:
        assert spoken.duration_seconds == pytest.approx(file.getnframes() / file.getframerate())
        assert file.getnchannels() == 1
    symbols = [phone.symbol for phone in spoken.phones]
    assert symbols.count("p") == 2 and symbols.count("b") == 2 and "m" in symbols
    assert spoken.language == "en-us"
    for phone, following in zip(spoken.phones, spoken.phones[1:], strict=False):
        assert phone.start_seconds < phone.end_seconds <= following.start_seconds
    assert spoken.phones[-1].end_seconds <= spoken.duration_seconds + 1e-6


def test_chinese_is_spoken_as_chinese_not_as_character_names(source: EspeakSource, tmp_path: Path) -> None:
    spoken = source.speak("你好，世界", tmp_path / "out.wav")
    assert spoken.language == "cmn"
    # espeak-ng 1.52 writes stress into the symbol: 'i
    symbols = [p.symbol.lstrip("'") for p in spoken.phones if not p.symbol.startswith("_")]
    assert symbols[:4] == ["n", "i", "X", "Au"]
    # four syllables, not four times "Chinese letter"
    assert spoken.duration_seconds < 2.5


def test_mixed_text_keeps_its_order_and_times_go_on(source: EspeakSource, tmp_path: Path) -> None:
    spoken = source.speak("我叫Bob Miller，你好", tmp_path / "out.wav")
    symbols = " ".join(p.symbol.lstrip("'") for p in spoken.phones if not p.symbol.startswith("_"))
    assert symbols.startswith("w o") and "b 0 b m I l" in symbols and symbols.endswith("n i X Au")
    starts = [p.start_seconds for p in spoken.phones]
    assert starts == sorted(starts) and spoken.phones[-1].end_seconds <= spoken.duration_seconds + 1e-6


def test_markup_is_text(source: EspeakSource, tmp_path: Path) -> None:
    plain = source.speak("one two", tmp_path / "a.wav").duration_seconds
    # SSML would make the break silent for ten seconds, phoneme input would speak one syllable
    tagged = source.speak('one <break time="10s"/> two', tmp_path / "b.wav")
    assert plain < tagged.duration_seconds < 10
    phonemes = source.speak("[[bA:]]", tmp_path / "c.wav")
    assert [p.symbol for p in phonemes.phones if not p.symbol.startswith("_")] != ["b", "A:"]


@pytest.mark.parametrize(
    ("language", "voice", "named"),
    [("xx", None, "xx"), (None, "en-us+nosuch", "nosuch"), (None, "../../etc", "etc"), ("a/b", None, "a/b")],
)
def test_unknown_voices_are_named(
    source: EspeakSource, tmp_path: Path, language: str | None, voice: str | None, named: str
) -> None:
    with pytest.raises(SpeechError, match=named):
        source.speak("hello", tmp_path / "out.wav", language=language, voice=voice)
    assert not (tmp_path / "out.wav").exists()


def test_variants_change_the_voice(source: EspeakSource, tmp_path: Path) -> None:
    source.speak("hello", tmp_path / "a.wav")
    source.speak("hello", tmp_path / "b.wav", voice="f3")
    source.speak("hello", tmp_path / "c.wav", voice="+f3")
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a != b and b == c


@pytest.mark.parametrize("text", ["", "  \n", "\x00\x01\x02", "\u200b\u202e"])
def test_empty_text_is_refused(text: str) -> None:
    with pytest.raises(SpeechError, match="empty"):
        clean_text(text)


def test_text_that_nobody_can_say_is_refused(source: EspeakSource, tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="nothing"):
        source.speak("...", tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_long_text_is_refused() -> None:
    with pytest.raises(SpeechError, match="100001"):
        clean_text("x" * 100_001)


def test_long_speech_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="longer than 2 s"):
        EspeakSource(max_seconds=2).speak("one two three four five six seven eight nine ten " * 5, tmp_path / "out.wav")


def test_control_characters_never_reach_the_library() -> None:
    assert clean_text("a\x01b\x7fc\u202ed\te\nf") == "abcd e\nf"


@pytest.mark.parametrize(
    ("text", "language"), [("hello", None), ("我 say hi", "cmn"), ("привет", "ru"), ("ひらがな", "ja"), ("한국", "ko")]
)
def test_the_script_tells_the_language(text: str, language: str | None) -> None:
    assert detect_language(text) == language


def test_kanji_is_refused_instead_of_spelled(source: EspeakSource, tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match="Japanese"):
        source.speak("日本語です", tmp_path / "out.wav")
