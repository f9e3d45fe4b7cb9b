"""Which sounds a recording holds, how surely, and where they pull the mouth: nothing of it trained by us.

pocketsphinx's English acoustic model says how well each of 42 phones, in three parts, explains every 10 ms. A hidden
Markov model over those 126 states, run forward and backward, turns that into probabilities, and the articulation table
into the motion to be expected: doubt between two sounds gives a mouth between theirs, where a single best guess jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heygemd.core.heartbeat import beat
from heygemd.engines.base import SPEECH_RATE
from heygemd.engines.rewrite.driver.articulate import (
    OPEN_BLEND_SECONDS,
    TEETH_BLEND_SECONDS,
    TRACK_RATE,
    WIDTH_BLEND_SECONDS,
    Floats,
    Tracks,
    smooth,
    weighted,
)
from heygemd.engines.rewrite.driver.cepstra import NUM_CEPSTRA, static_cepstra, with_differences
from heygemd.engines.rewrite.driver.sounds import BREATH, SOUNDS, sounds_of_arpabet

_PARTS = 3
_STREAMS = 3  # cepstra and their differences, each with its own mixtures
_STEP = 1024 * 1e-4  # of the mixtures' logarithms, stored as bytes
_BLOCK_ROWS = 512
_CHUNK_SECONDS = 20
_SEARCH_SECONDS = 4
_HOP = SPEECH_RATE // TRACK_RATE

# Rows of 10 ms are not independent and the model is too sure of itself: its logarithms count a quarter.
_EVIDENCE = 0.25
_MOST_AGAINST = 30.0
_STAY, _STAY_SILENT = 0.6, 0.9
_NOISE_SHARE = 0.1  # breath and noise marks are rarer than sounds
_CLOSURE_BLEND_SECONDS = 0.10


@dataclass(frozen=True)
class _Model:
    """Gaussian mixtures of the phones' states, tied by phone.

    `squares_and_values[s]` (26, phones · mixtures) and `constants[s]` (phones · mixtures,): the log densities of stream
    s as a product with its squared and plain values. `shares[s]` (phones, mixtures, parts): the mixtures' weights.
    """

    phones: tuple[str, ...]
    squares_and_values: tuple[Floats, ...]
    constants: tuple[Floats, ...]
    shares: tuple[Floats, ...]


@lru_cache(maxsize=1)
def _model() -> _Model:
    from pocketsphinx import get_model_path

    folder = Path(get_model_path()) / "en-us" / "en-us"
    phones, states = _phone_names(folder / "mdef")
    means = _parameters(folder / "means")
    variances = np.maximum(_parameters(folder / "variances"), 1e-4)
    count, streams, mixtures, _ = means.shape
    dump = np.frombuffer((folder / "sendump").read_bytes(), np.uint8)[-streams * mixtures * states :]
    stored = dump.reshape(streams, mixtures, states)[:, :, : count * _PARTS].astype(np.float32)
    shares = np.exp(-_STEP * stored).reshape(streams, mixtures, count, _PARTS).transpose(0, 2, 1, 3)
    products, constants = [], []
    for stream in range(streams):
        mean = means[:, stream].reshape(-1, NUM_CEPSTRA).astype(np.float64)
        variance = variances[:, stream].reshape(-1, NUM_CEPSTRA).astype(np.float64)
        products.append(np.concatenate([-0.5 / variance, mean / variance], axis=1).T.astype(np.float32))
        constants.append((-0.5 * (mean**2 / variance + np.log(2 * np.pi * variance)).sum(axis=1)).astype(np.float32))
    return _Model(phones, tuple(products), tuple(constants), tuple(np.ascontiguousarray(s) for s in shares))


def _phone_names(path: Path) -> tuple[tuple[str, ...], int]:
    """Names of the phones, in the order of their states, and the number of all states, from a binary `mdef`."""
    data = path.read_bytes()
    words = np.frombuffer(data[4:12], "<i4")  # version, length of a description
    start = 12 + int(words[1])
    numbers = np.frombuffer(data[start : start + 40], "<i4")
    names = data[start + 40 :].split(b"\0", int(numbers[0]))[: int(numbers[0])]
    return tuple(name.decode("ascii") for name in names), int(numbers[4])


def _parameters(path: Path) -> NDArray[np.float32]:
    """(phones, streams, mixtures, 13) from a file of means or variances."""
    data = path.read_bytes()
    words = np.frombuffer(data, "<i4", 3, data.index(b"endhdr\n") + 7 + 4)
    phones, streams, mixtures = (int(word) for word in words)
    values = np.frombuffer(data[-4 * phones * streams * mixtures * NUM_CEPSTRA - 4 : -4], "<f4")
    return values.reshape(phones, streams, mixtures, NUM_CEPSTRA)


def log_likelihoods(features: Floats) -> Floats:
    """(rows, 126) natural logarithms of each state's density at (rows, 39) features."""
    model = _model()
    count = len(model.phones)
    found = np.zeros((len(features), count * _PARTS), np.float32)
    for start in range(0, len(features), _BLOCK_ROWS):
        block = features[start : start + _BLOCK_ROWS]
        for stream in range(_STREAMS):
            values = block[:, stream * NUM_CEPSTRA : (stream + 1) * NUM_CEPSTRA]
            logs = np.concatenate([values * values, values], axis=1) @ model.squares_and_values[stream]
            logs = (logs + model.constants[stream]).reshape(len(block), count, -1)
            most = logs.max(axis=2, keepdims=True)
            dense = np.exp(np.maximum(logs - most, -_MOST_AGAINST)).transpose(1, 0, 2)
            mixed = np.log((dense @ model.shares[stream]).transpose(1, 0, 2) + 1e-20) + most
            found[start : start + len(block)] += mixed.reshape(len(block), -1)
    return found


@lru_cache(maxsize=1)
def _transitions() -> NDArray[np.float64]:
    """(126, 126): part after part, then any phone. No language is assumed."""
    names = _model().phones
    stay = np.array([_STAY_SILENT if _is_pause(name) else _STAY for name in names])
    entry = np.array([_NOISE_SHARE if name.startswith("+") else 1.0 for name in names])
    entry /= entry.sum()
    made = np.diag(np.repeat(stay, _PARTS))
    for phone, left in enumerate(1 - stay):
        first = phone * _PARTS
        for part in range(_PARTS - 1):
            made[first + part, first + part + 1] = left
        made[first + _PARTS - 1, ::_PARTS] += left * entry
    return made


def probabilities(logs: Floats) -> Floats:
    """(rows, 126): each state's probability, given all of (rows, 126) log likelihoods before and after."""
    if not len(logs):
        return logs
    transitions = _transitions()
    against = np.maximum(_EVIDENCE * (logs - logs.max(axis=1, keepdims=True)), -_MOST_AGAINST)
    evidence = np.exp(against.astype(np.float64))
    forward = np.empty(evidence.shape, np.float32)
    state = np.full(evidence.shape[1], 1 / evidence.shape[1])
    for row, seen in enumerate(evidence):
        state = (state @ transitions if row else state) * seen
        state /= state.sum()
        forward[row] = state
    backward = np.ones(evidence.shape[1])
    for row in range(len(evidence) - 2, -1, -1):
        backward = transitions @ (evidence[row + 1] * backward)
        backward /= backward.sum()
        forward[row] *= backward
    return np.asarray(forward / np.maximum(forward.sum(axis=1, keepdims=True), 1e-30), np.float32)


def _is_pause(name: str) -> bool:
    return name.startswith("+") or name == "SIL"


@lru_cache(maxsize=1)
def _pulls() -> Floats:
    """(126, 7): what a state pulls towards: opening and width by weight, both weights, teeth, closure, speech."""
    rows = []
    for name in _model().phones:
        sounds = [BREATH] if name.startswith("+") else [SOUNDS[found] for found in sounds_of_arpabet(name)]
        for part in range(_PARTS):
            # A diphthong begins as its first sound and ends as its last; its middle is both.
            here = (sounds[:1], sounds, sounds[-1:])[part]
            values = [
                (s.opening * s.open_weight, s.width * s.width_weight, s.open_weight, s.width_weight, s.teeth, s.closed,
                 not s.pause)
                for s in here
            ]  # fmt: skip
            rows.append(np.mean(np.array(values, np.float32), axis=0))
    return np.array(rows, np.float32)


def chunks(samples: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Sample spans of about 20 s that meet at the quietest place near each border, so that no sound is cut.

    All but the last are whole hundredths of a second long.
    """
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


def listen(samples: NDArray[np.float32], levels: Floats, rows: int) -> Tracks:
    """The motion to be expected of (n,) float32 speech at 16 kHz with its `band_levels`, `rows` at TRACK_RATE.

    `closure` and `activity` are probabilities. Memory beside the tracks is one chunk's.
    """
    static = static_cepstra(levels)
    pulls = np.zeros((rows, _pulls().shape[1]), np.float32)
    for start, end in chunks(samples):
        beat()
        a, b = start // _HOP, min(rows, -(-end // _HOP))
        pulls[a:b] = probabilities(log_likelihoods(with_differences(static, a, min(b, len(static))))) @ _pulls()
    if rows > len(static):
        pulls[len(static) :] = pulls[len(static) - 1] if len(static) else 0
    opening, width, open_weight, width_weight, teeth, closed, speech = np.maximum(pulls.T, _least())
    return Tracks(
        weighted(opening / open_weight, open_weight, OPEN_BLEND_SECONDS),
        weighted(width / width_weight, width_weight, WIDTH_BLEND_SECONDS),
        np.clip(smooth(closed, _CLOSURE_BLEND_SECONDS), 0, 1),
        smooth(teeth, TEETH_BLEND_SECONDS),
        np.clip(speech, 0, 1),
    )


@lru_cache(maxsize=1)
def _least() -> Floats:
    """Weights stay above 0 where a recording is empty."""
    least = np.full((_pulls().shape[1], 1), -np.inf, np.float32)
    least[2:4] = 1e-3
    return least
