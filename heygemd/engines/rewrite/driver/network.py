"""Our own small networks, trained on synthesised speech (bench/train_driver), run in numpy.

One listens to a recogniser's inner layers, the other, where no recogniser is installed, to the spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from heygemd.core.heartbeat import beat
from heygemd.engines.rewrite.driver import recogniser
from heygemd.engines.rewrite.driver.features import FEATURE_RATE, Floats

_BLOCK_ROWS = 3000
RECOGNISED_ROWS = 500
"""Rows that the recogniser is asked for at once, with a second more to either side."""


@dataclass(frozen=True)
class Heard:
    """The network's answer, rows at FEATURE_RATE. `hidden` (rows, h): its last layer.

    `opening` (standardised), `width`, `teeth` as in Tracks; `closure`, `activity`: probabilities.
    """

    hidden: Floats
    opening: Floats
    width: Floats
    teeth: Floats
    closure: Floats
    activity: Floats


@lru_cache(maxsize=2)
def _weights(name: str) -> dict[str, np.ndarray]:
    with files("heygemd.engines.rewrite.driver").joinpath(name).open("rb") as stream:
        data = np.load(stream, allow_pickle=False)
        return {k: data[k].astype(np.float32) if data[k].dtype == np.float16 else data[k] for k in data.files}


def hear(bands: Floats) -> Heard:
    """What the network makes of (rows, 40) normalised bands. Works in blocks of a minute."""
    return run(bands, _weights("network.npz"))


def hear_recognised(samples: Floats, gain: float, rows: int) -> Heard:
    """What the other network makes of the recogniser's layers over (n,) samples at 16 kHz, ten seconds at a time."""
    weights = _weights("listener.npz")
    reach = _reach(weights)
    hidden = np.empty((rows, len(weights["head_weight"])), np.float32)
    for start in range(0, rows, RECOGNISED_ROWS):
        beat()
        stop = min(start + RECOGNISED_ROWS, rows)
        first, last = max(0, start - reach), min(rows, stop + reach)
        made = _hidden(recogniser.layers(samples, gain, first, last), weights)
        hidden[start:stop] = made[start - first : stop - first]
    return _heads(hidden, weights)


def run(features: Floats, weights: dict[str, np.ndarray]) -> Heard:
    """What a network with the given weights makes of (rows, inputs) features."""
    reach = _reach(weights)
    rows = len(features)
    hidden = np.empty((rows, len(weights["head_weight"])), np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        beat()
        stop = min(start + _BLOCK_ROWS, rows)
        first, last = max(0, start - reach), min(rows, stop + reach)
        hidden[start:stop] = _hidden(features[first:last], weights)[start - first : stop - first]
    return _heads(hidden, weights)


def _depth(weights: dict[str, np.ndarray]) -> int:
    return sum(name.startswith("weight") for name in weights)


def _reach(weights: dict[str, np.ndarray]) -> int:
    """Rows to either side that the hidden layer depends on."""
    return sum(int(weights[f"dilation{k}"]) * (len(weights[f"weight{k}"]) // 2) for k in range(_depth(weights)))


def _hidden(x: Floats, weights: dict[str, np.ndarray]) -> Floats:
    for k in range(_depth(weights)):
        x = _convolved(x, weights[f"weight{k}"], weights[f"bias{k}"], int(weights[f"dilation{k}"]))
    return x


def _heads(hidden: Floats, weights: dict[str, np.ndarray]) -> Heard:
    out = hidden @ weights["head_weight"] + weights["head_bias"]
    likely = 1 / (1 + np.exp(-np.clip(out[:, 3:], -30, 30)))
    return Heard(hidden, out[:, 0], out[:, 1], out[:, 2], likely[:, 0], likely[:, 1])


def _convolved(x: Floats, weight: Floats, bias: Floats, dilation: int) -> Floats:
    """Same-length convolution over rows, zeros beyond the ends, then ReLU. `weight`: (taps, in, out)."""
    taps = len(weight)
    pad = dilation * (taps // 2)
    padded = np.pad(x, ((pad, pad), (0, 0)))
    total = np.broadcast_to(bias, (len(x), len(bias))).copy()
    for k in range(taps):
        total += padded[k * dilation : k * dilation + len(x)] @ weight[k]
    return np.maximum(total, 0, out=total)


def at_rate(rows: Floats, num: int, rate: int) -> Floats:
    """Rows of the network (or one column of it) at `num` instants of `rate` a second, straight lines between."""
    where = np.arange(num) / rate * FEATURE_RATE - 0.25
    if not len(rows):
        return np.zeros((num, *rows.shape[1:]), np.float32)
    if rows.ndim == 1:
        return np.interp(where, np.arange(len(rows)), rows).astype(np.float32)
    low = np.clip(np.floor(where).astype(int), 0, len(rows) - 1)
    high = np.minimum(low + 1, len(rows) - 1)
    part = np.clip(where - low, 0, 1)[:, None].astype(np.float32)
    return np.asarray(rows[low] * (1 - part) + rows[high] * part, np.float32)
