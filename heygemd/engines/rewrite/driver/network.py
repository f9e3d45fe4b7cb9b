"""Our own small network, trained on synthesised speech (bench/train_driver), run in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from heygemd.engines.rewrite.driver.features import FEATURE_RATE, NUM_BANDS, Floats

_BLOCK_ROWS = 3000


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


@lru_cache(maxsize=1)
def _weights() -> dict[str, np.ndarray]:
    with files("heygemd.engines.rewrite.driver").joinpath("network.npz").open("rb") as stream:
        data = np.load(stream, allow_pickle=False)
        return {k: data[k].astype(np.float32) if data[k].dtype == np.float16 else data[k] for k in data.files}


def hear(bands: Floats) -> Heard:
    """What the network makes of (rows, 40) normalised bands. Works in blocks of a minute."""
    return run(bands, _weights())


def run(features: Floats, weights: dict[str, np.ndarray]) -> Heard:
    """The same from (rows, 40) features with given weights."""
    depth = sum(name.startswith("weight") for name in weights)
    reach = sum(int(weights[f"dilation{k}"]) * (len(weights[f"weight{k}"]) // 2) for k in range(depth))
    rows = len(features)
    size = weights["head_weight"].shape[0]
    hidden = np.empty((rows, size), np.float32)
    for start in range(0, rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, rows)
        first, last = max(0, start - reach), min(rows, stop + reach)
        x = features[first:last].reshape(-1, NUM_BANDS)
        for k in range(depth):
            x = _convolved(x, weights[f"weight{k}"], weights[f"bias{k}"], int(weights[f"dilation{k}"]))
        hidden[start:stop] = x[start - first : stop - first]
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
