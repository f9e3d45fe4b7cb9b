"""The driver without our network: sounds, articulation, closures, gates, awkward sound."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.core.clip import Phone
from heygemd.engines.rewrite.driver import MouthMotion, drive
from heygemd.engines.rewrite.driver.articulate import timed_sounds
from heygemd.engines.rewrite.driver.phonetic import chunks
from heygemd.engines.rewrite.driver.sounds import SOUNDS, sounds_of, sounds_of_arpabet

FPS = Fraction(25)
SILENT = np.zeros(16000 * 4, np.float32)


def phones_of(symbols: str, seconds: float = 0.1, start: float = 0.3) -> list[Phone]:
    return [Phone(symbol, start + k * seconds, start + (k + 1) * seconds) for k, symbol in enumerate(symbols.split())]


def spoken(symbols: str, fps: Fraction = FPS, language: str | None = "en-us") -> MouthMotion:
    return drive(SILENT, round(4 * fps), fps, phones=phones_of(symbols), language=language)


def at(motion: MouthMotion, seconds: float) -> int:
    return round(seconds * motion.fps)


@pytest.mark.parametrize(
    ("symbol", "names"),
    [
        ("a#", ("a",)),
        ("aI", ("a", "ih")),
        ("ts.h", ("t", "srt")),
        ("tS;h", ("t", "spal")),
        ("i.", ("ii",)),
        ("ong", ("o", "k")),
        ("ph", ("p",)),
        ("h", ("h",)),
        ("_:", ("pause",)),
        ("_|", ("pause",)),
        ("(en)", ()),
        (":", ()),
        ("3:", ("er",)),
        ("t#", ("t",)),
        ("ˈaː", ("a",)),
        ("pF", ("p", "f")),
        ("n^", ("n",)),
        ("A~", ("a",)),
        ("d͡ʒ", ("t", "sh")),
    ],
)
def test_symbols_are_read(symbol: str, names: tuple[str, ...]) -> None:
    assert sounds_of(symbol, "en-us") == names


def test_every_name_has_a_sound() -> None:
    printable = [chr(c) for c in range(33, 0x2B0)]
    named = {name for char in printable for name in sounds_of(char, None)}
    named |= {name for symbol in ("AY", "JH", "SIL", "XX", "ER0") for name in sounds_of_arpabet(symbol)}
    assert named <= set(SOUNDS)


def test_r_rounds_only_in_english() -> None:
    assert sounds_of("r", "en-us") == ("r",)
    assert sounds_of("r", "de") == ("rr",)


def test_open_vowel_opens_more_than_round_vowel_and_round_rounds() -> None:
    motion = spoken("h A: A: h u: u: h i: i: h")
    a, u, i = (at(motion, t) for t in (0.5, 0.8, 1.1))
    assert motion.opening[a] > motion.opening[i] > motion.opening[u]
    assert motion.width[u] < -0.5
    assert motion.width[i] > 0.4
    assert motion.teeth[i] > motion.teeth[u]


@pytest.mark.parametrize("fps", [FPS, Fraction(30000, 1001), Fraction(60), Fraction(15)])
@pytest.mark.parametrize("stop", ["p", "b", "m"])
def test_bilabials_close_the_lips_at_every_rate_and_phase(fps: Fraction, stop: str) -> None:
    for phase in np.linspace(0, 0.07, 8):
        phones = [Phone(p.symbol, p.start_seconds + phase, p.end_seconds + phase) for p in phones_of(f"A: {stop} A:")]
        motion = drive(SILENT, round(4 * fps), fps, phones=phones, language="en-us")
        near = slice(at(motion, 0.36 + phase) - 1, at(motion, 0.5 + phase) + 2)
        assert motion.opening[near].min() < 0.1 * motion.opening.max()
        assert motion.closure[near].max() > 0.9


def test_mouth_leads_the_sound_and_the_offset_moves_it() -> None:
    phones = phones_of("_ A: A: _")
    plain = drive(SILENT, 400, Fraction(100), phones=phones)
    late = drive(SILENT, 400, Fraction(100), phones=phones, offset_seconds=0.2)
    assert np.argmax(late.opening) - np.argmax(plain.opening) == pytest.approx(20, abs=1)
    middle = np.average(np.arange(400), weights=plain.opening * (plain.opening > 0.5)) / 100
    assert middle == pytest.approx(0.5 - 0.04, abs=0.02)


def test_pause_in_speech_stays_a_little_open_and_long_silence_rests() -> None:
    motion = spoken("A: t A: _ A: t A:")
    assert 0.1 < motion.opening[at(motion, 0.61)] < 0.8 * motion.opening.max()
    assert motion.activity[at(motion, 0.65)] > 0.9
    assert motion.activity[at(motion, 3.0) :].max() == 0
    assert motion.opening[at(motion, 3.0) :].max() == 0


def test_timed_sounds_keep_the_time() -> None:
    found = timed_sounds([Phone("aI", 1.0, 1.2), Phone("(en)", 1.2, 1.2), Phone("m", 1.2, 1.3)])
    assert [(s.name, round(s.start_seconds, 3), round(s.end_seconds, 3)) for s in found] == [
        ("a", 1.0, 1.1),
        ("ih", 1.1, 1.2),
        ("m", 1.2, 1.3),
    ]


def _checked(motion: MouthMotion, num_frames: int) -> MouthMotion:
    for name in ("opening", "width", "closure", "teeth", "activity"):
        track = getattr(motion, name)
        assert track.dtype == np.float32, name
        assert track.shape == (num_frames,), name
        assert np.isfinite(track).all(), name
        assert track.min() >= (-1 if name == "width" else 0), name
        assert track.max() <= 1, name
    return motion


def _noise(seconds: float, level: float) -> NDArray[np.float32]:
    return (np.random.default_rng(7).standard_normal(round(seconds * 16000)) * level).astype(np.float32)


def test_silence_rests() -> None:
    motion = _checked(drive(SILENT, 100, FPS), 100)
    assert motion.activity.max() == 0
    assert motion.opening.max() == 0
    faint = _checked(drive(_noise(4, 1e-5), 100, FPS), 100)
    assert faint.opening.max() == 0


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.03, 0.1, 0.5])
def test_very_short_sound(seconds: float) -> None:
    frames = max(1, round(seconds * 25))
    _checked(drive(_noise(seconds, 0.1), frames, FPS), frames)


def test_not_finite_and_clipped_samples() -> None:
    sound = _noise(1, 3.0)
    sound[5000:5100] = np.nan
    sound[7000] = np.inf
    _checked(drive(sound, 25, FPS), 25)


def test_frames_beyond_the_sound_rest() -> None:
    motion = _checked(drive(_noise(1, 0.1) * np.hanning(16000).astype(np.float32), 100, FPS), 100)
    assert motion.opening[60:].max() == 0


def test_no_frames() -> None:
    _checked_shape = drive(_noise(1, 0.1), 0, FPS)
    assert _checked_shape.opening.shape == (0,)


def test_same_sound_gives_the_same_motion() -> None:
    sound = _noise(3, 0.1) * (np.sin(np.arange(48000) / 2000) > 0)
    first, second = drive(sound, 75, FPS), drive(sound, 75, FPS)
    assert np.array_equal(first.opening, second.opening)
    assert np.array_equal(first.width, second.width)


def test_chunks_cover_everything_and_meet_at_quiet_places() -> None:
    sound = _noise(75, 0.1)
    sound[round(19.0 * 16000) : round(19.3 * 16000)] = 0
    spans = chunks(sound)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(sound)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert 19.0 <= spans[0][1] / 16000 <= 19.3
    assert max(b - a for a, b in spans) <= 24 * 16000
