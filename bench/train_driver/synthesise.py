"""Scripts to training clips: sound, room, noise, features and exact targets."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import Script, script
from espeak import Espeak, Utterance
from numpy.typing import NDArray
from scipy.signal import fftconvolve, resample_poly

from heygemd.core.clip import Phone
from heygemd.engines.rewrite.driver import recogniser
from heygemd.engines.rewrite.driver.articulate import TRACK_RATE, TimedSound, articulate, timed_sounds
from heygemd.engines.rewrite.driver.evidence import level_gain
from heygemd.engines.rewrite.driver.features import log_mel, normalised
from heygemd.engines.rewrite.driver.network import RECOGNISED_ROWS
from heygemd.engines.rewrite.driver.sounds import SOUNDS, sounds_of_arpabet

Floats = NDArray[np.float32]
SOUND_NAMES = tuple(SOUNDS)
_RATE = 16000
_ARPABET_OF_FLITE = {"pau": "SIL", "ax": "AH", "axr": "ER", "h#": "SIL"}


@dataclass(frozen=True)
class Clip:
    """Rows of 20 ms. `features`: (rows, inputs); `targets`: opening, width, teeth, closure, activity.

    `labels`: sounds, by their place in SOUND_NAMES.
    """

    features: NDArray[np.float16]
    targets: NDArray[np.float16]
    labels: NDArray[np.int8]
    language: str


def flite(text: str, voice: str, stretch: float) -> Utterance:
    """One sentence by the flite program. Its phones are ARPAbet in lower case."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.wav"
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "-t", f" {text} "]
        command += ["-o", str(path), "-psdur"]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as sound:
            rate = sound.getframerate()
            samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(np.float32) / 32768
    phones, start = [], 0.0
    for entry in told.split():
        name, _, end = entry.rpartition(":")
        phones.append((name, start, float(end)))
        start = float(end)
    return Utterance(samples, rate, phones)


def _sounds(utterance: Utterance, voice: str, language: str, shift: float, scale: float) -> list[TimedSound]:
    if voice.startswith("flite:"):
        found = []
        for symbol, start, end in utterance.phones:
            names = sounds_of_arpabet(_ARPABET_OF_FLITE.get(symbol, symbol.upper()))
            step = (end - start) / len(names)
            found += [TimedSound(n, start + k * step, start + (k + 1) * step) for k, n in enumerate(names)]
    else:
        found = timed_sounds([Phone(*p) for p in utterance.phones], language)
    return [TimedSound(s.name, shift + s.start_seconds * scale, shift + s.end_seconds * scale) for s in found]


def spoken(what: Script, generator: np.random.Generator, engine: Espeak) -> tuple[Floats, list[TimedSound]]:
    """Speech at 16 kHz and its sounds. The voice is made larger or smaller by resampling."""
    pieces, sounds, position = [], [], int(generator.integers(0, _RATE))
    pieces.append(np.zeros(position, np.float32))
    pitch, width = int(generator.integers(20, 80)), int(generator.integers(20, 80))
    speed, stretch = int(generator.integers(135, 215)), float(generator.uniform(0.85, 1.15))
    size = float(generator.uniform(0.9, 1.12))
    for text, pause in what.sentences:
        if what.voice.startswith("flite:"):
            said = flite(text, what.voice[6:], stretch)
        else:
            said = engine.speak(text, what.voice, speed, pitch, width)
        down = max(1, round(said.rate / 50 * size))
        samples = resample_poly(said.samples, 320, down).astype(np.float32)
        scale = 320 * said.rate / (down * _RATE)  # of the time, since the ratio is not exactly the rates'
        sounds += _sounds(said, what.voice, what.language, position / _RATE, scale)
        gap = np.zeros(round(pause * _RATE), np.float32)
        pieces += [samples, gap]
        position += len(samples) + len(gap)
    return np.concatenate(pieces), sounds


def _coloured(generator: np.random.Generator, count: int, slope: float) -> Floats:
    spectrum = np.fft.rfft(generator.standard_normal(count))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -slope
    sound = np.fft.irfft(spectrum, count)
    return np.asarray(sound / (sound.std() + 1e-9), np.float32)


def _music(generator: np.random.Generator, count: int) -> Floats:
    """Chords of decaying harmonics."""
    sound = np.zeros(count, np.float32)
    step = int(generator.uniform(0.15, 0.8) * _RATE)
    for start in range(0, count, step):
        time = np.arange(min(3 * step, count - start)) / _RATE
        for _ in range(int(generator.integers(1, 4))):
            base = 110 * 2 ** (generator.integers(0, 36) / 12)
            tone = sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, int(generator.integers(2, 8))))
            sound[start : start + len(time)] += np.asarray(tone * np.exp(-3 * time), np.float32)
    return sound / (sound.std() + 1e-9)


def worsened(speech: Floats, generator: np.random.Generator, others: list[Floats]) -> Floats:
    """A random channel: room, tone, noise, level. A third of the clips stay clean."""
    if generator.random() < 0.33:
        return speech * float(10 ** generator.uniform(-1, 0.2))
    if generator.random() < 0.5:
        seconds = generator.uniform(0.1, 0.6)
        time = np.arange(round(seconds * _RATE)) / _RATE
        room = generator.standard_normal(len(time)) * np.exp(-6.9 * time / seconds) * generator.uniform(0.02, 0.12)
        room[0] = 1.0
        speech = fftconvolve(speech, room)[: len(speech)].astype(np.float32)
    if generator.random() < 0.7:
        gains = np.interp(np.linspace(0, 1, 65), np.linspace(0, 1, 7), 10 ** (generator.uniform(-8, 8, 7) / 20))
        if generator.random() < 0.3:
            gains[round(generator.uniform(0.45, 0.9) * 64) :] *= 0.03
        taps = np.fft.irfft(gains)
        speech = fftconvolve(speech, np.roll(taps, 64) * np.hanning(128), mode="same").astype(np.float32)
    if generator.random() < 0.75:
        kind = generator.random()
        if kind < 0.25 and others:
            noise = np.resize(others[int(generator.integers(len(others)))], len(speech)).astype(np.float32)
            noise = noise / (noise.std() + 1e-9)
            ratio_db = generator.uniform(10, 30)
        elif kind < 0.45:
            noise, ratio_db = _music(generator, len(speech)), generator.uniform(5, 30)
        else:
            noise, ratio_db = _coloured(generator, len(speech), generator.uniform(0, 1)), generator.uniform(5, 40)
        speech = speech + noise * np.float32(speech.std() * 10 ** (-ratio_db / 20))
    return np.asarray(speech * 10 ** generator.uniform(-1, 0.2), np.float32)


def recognised(samples: Floats) -> Floats:
    """(rows, 432) of the recogniser's layers, as `network.hear_recognised` asks for them."""
    gain, rows = level_gain(samples), -(-len(samples) // 320)
    starts = range(0, rows, RECOGNISED_ROWS)
    return np.concatenate(
        [recogniser.layers(samples, gain, start, min(rows, start + RECOGNISED_ROWS)) for start in starts]
    )


def clip_of(samples: Floats, sounds: list[TimedSound], language: str, exact: bool, listener: str) -> Clip:
    """Features and targets of one clip; both have a row for every 20 ms. `listener`: "spectrum" or "recogniser"."""
    features = recognised(samples) if listener == "recogniser" else normalised(log_mel(samples))
    rows = len(features)
    tracks = articulate(sounds, 2 * rows, exact=exact)
    pairs = np.stack([tracks.opening, tracks.width, tracks.teeth, tracks.closure, tracks.activity], 1).reshape(
        rows, 2, 5
    )
    targets = pairs.mean(axis=1)
    labels = np.full(2 * rows, SOUND_NAMES.index("pause"), np.int8)
    for sound in sounds:
        a, b = round(sound.start_seconds * TRACK_RATE), round(sound.end_seconds * TRACK_RATE)
        labels[max(0, a) : max(0, b)] = SOUND_NAMES.index(sound.name)
    return Clip(features.astype(np.float16), targets.astype(np.float16), labels[::2].copy(), language)


def make(
    seed: int, minutes: float, listener: str = "spectrum", flite_share: float = 0.3, clean: bool = False
) -> list[Clip]:
    """At least `minutes` of training clips. The same seed gives the same clips."""
    generator, engine = np.random.default_rng(seed), Espeak()
    lists: dict[str, tuple[str, ...]] = {}
    others: list[Floats] = []
    clips: list[Clip] = []
    seconds = 0.0
    while seconds < minutes * 60:
        if not clean and generator.random() < 0.03:  # no speech at all
            count = int(generator.uniform(4, 12) * _RATE)
            noise = (
                _music(generator, count)
                if generator.random() < 0.5
                else _coloured(generator, count, generator.random())
            )
            quiet = noise * np.float32(10 ** generator.uniform(-3, -1))
            clips.append(clip_of(quiet, [], "", True, listener))
            seconds += count / _RATE
            continue
        what = script(generator, lists, flite_share)
        samples, sounds = spoken(what, generator, engine)
        heard = samples if clean else worsened(samples, generator, others)
        others = [samples, *others[:7]]
        clips.append(clip_of(heard, sounds, what.language, not what.voice.startswith("flite:"), listener))
        seconds += len(samples) / _RATE
    return clips
