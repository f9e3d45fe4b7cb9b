"""Inputs on which a network is looked at before its first job: a face that everybody may use, and a kind of speech.

The face is NASA's portrait of Eileen Collins (public domain), which scikit-image carries: in other light, from the
other side, blurred and noisy. The sound is a voice of harmonics and hiss that comes and goes.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.engines.wav2lip.variants import MEL_COLUMNS
from heygemd.media.mel import COLUMNS_PER_SECOND, SAMPLE_RATE, mel_spectrogram

_FACE = (slice(62, 168), slice(180, 280))
_SECONDS = 4.0

Array = NDArray[np.float32]


def sample_inputs(size: int, count: int, seed: int = 0) -> tuple[Array, Array]:
    """mel (count, 80, 16) and crops (count, size, size, 3) BGR 0..1, the same for the same numbers."""
    draw = np.random.default_rng(seed)
    with as_file(files("skimage.data") / "astronaut.png") as path:
        portrait = cv2.imread(str(path))
    if portrait is None:
        raise RuntimeError("scikit-image lacks its astronaut; install heygemd again")
    face = cv2.resize(portrait[_FACE], (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    crops = np.stack([_in_other_light(face, draw) for _ in range(count)])
    heard = _heard()
    first = draw.integers(0, int(_SECONDS * COLUMNS_PER_SECOND) - MEL_COLUMNS, count)
    return np.stack([heard[:, start : start + MEL_COLUMNS] for start in first]).astype(np.float32), crops


def _in_other_light(face: Array, draw: np.random.Generator) -> Array:
    if draw.random() < 0.5:
        face = face[:, ::-1]
    tint = draw.uniform(0.85, 1.15, 3)
    seen = np.clip(face ** draw.uniform(0.6, 1.7) * (draw.uniform(0.6, 1.3) * tint), 0, 1)
    if draw.random() < 0.3:
        seen = cv2.GaussianBlur(seen, (0, 0), len(face) / 96)
    noisy = seen + draw.normal(0, draw.uniform(0, 0.03), face.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


@cache
def _heard() -> Array:
    """(80, T): the mel of all samples, which take windows of it."""
    heard = mel_spectrogram(_voice(np.random.default_rng(0)))
    heard.setflags(write=False)
    return heard


def _voice(draw: np.random.Generator) -> Array:
    """(n,) at 16 kHz, -1..1: syllables of a gliding pitch under three resonances, hiss between them, some silence."""
    time = np.arange(int(_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 150 + 50 * np.sin(2 * np.pi * 0.4 * time)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    resonances = ((600, 2.1), (1500, 1.3), (2600, 0.7))
    formants = [centre * (1 + 0.3 * np.sin(2 * np.pi * rate * time)) for centre, rate in resonances]
    voiced = np.zeros_like(time)
    for number in range(1, 40):
        loudness = 0.05 + sum(np.exp(-(((number * pitch - centre) / 250) ** 2)) for centre in formants)
        voiced += loudness / number**0.5 * np.sin(2 * np.pi * number * phase)
    syllable = np.sin(2 * np.pi * 3.3 * time)
    hiss = draw.normal(0, 0.2, len(time)) * np.clip(-syllable - 0.7, 0, 1)
    loud = np.where(time < 0.9 * _SECONDS, 0.3 + 0.25 * time, 0)
    vowels = voiced / np.abs(voiced).max() * np.clip(syllable + 0.5, 0, 1)
    return np.asarray(np.clip((vowels + hiss) * loud, -1, 1), np.float32)
