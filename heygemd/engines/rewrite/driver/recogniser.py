"""What the inner layers of a small phoneme recogniser make of speech: where a recording's sounds are told apart best.

The package `hama` (Apache-2.0) carries a conformer of 2 million weights that was trained on real speech to write down
phonemes. Its last layer speaks in single peaks; the three before it say at every moment which sound it is and what
comes before and after. Only the file of its weights is read: the package's own engine gives the last layer alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from heygemd.engines.rewrite.driver.features import FEATURE_RATE, Floats

PACKAGE, VERSION = "hama", "1.7.0"
_SHA256 = "a9fcfe73e179ca48e399cd76a90a6b3e1887bf5037ecc52b778d13a149563328"
_FILE = "assets/asr_waveform.hama"

LAYERS = 3
WIDTH = 144
NUM_FEATURES = LAYERS * WIDTH

_HEADS = 4
_HOP, _WINDOW = 160, 400
_ROW_SAMPLES = 2 * _HOP
_EDGE_ROWS = FEATURE_RATE  # a second of context to either side
_FLOOR = 1e-9
_FIRST_PRODUCT, _FIRST_FILTER = 829, 804  # numbers that the file gives the weights of its first block
_PRODUCTS, _FILTERS = 9, 3  # how far apart those of two blocks lie


@lru_cache(maxsize=1)
def weights_file() -> Path | None:
    """The weights that `listener.npz` was trained with, or None where they are not installed.

    The package is not imported: it would load a native library that nothing here needs.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _FILE
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256:
            return path
    return None


def layers(samples: Floats, gain: float, first: int, last: int) -> Floats:
    """(last - first, 432) at FEATURE_RATE: three layers side by side for those rows of (n,) float32 `samples` · `gain`.

    Depends on a second of sound to either side, not on where a recording is cut beyond that.
    """
    low, high = max(0, first - _EDGE_ROWS), last + _EDGE_ROWS
    piece = samples[low * _ROW_SAMPLES : high * _ROW_SAMPLES] * np.float32(gain)
    least = (last - low + 1) * _ROW_SAMPLES  # beyond the end there is silence
    both = _blocks(_log_mel(np.pad(piece, (0, max(0, least - len(piece))))))
    return np.concatenate(both, axis=1)[first - low : last - low]


@lru_cache(maxsize=1)
def _weights() -> dict[str, Floats]:
    """By the file's own names. Its head is a magic number, the number of entries, and for each a name, a type, a shape
    and a place; 0 is float32 and 1 float16."""
    path = weights_file()
    if path is None:
        raise RuntimeError(f"{PACKAGE} is not installed")
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 8)
    at, entries = 12, []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode("ascii")
        at += 2 + length
        kind, depth = data[at], data[at + 1]
        shape = struct.unpack_from(f"<{depth}I", data, at + 2)
        place, size = struct.unpack_from("<QQ", data, at + 2 + 4 * depth)
        at += 18 + 4 * depth
        entries.append((name, kind, shape, place, size))
    start = len(data) - max(place + size for *_, place, size in entries)
    return {
        name: np.frombuffer(data, ("<f4", "<f2")[kind], int(np.prod(shape)), start + place)
        .reshape(shape)
        .astype(np.float32)
        for name, kind, shape, place, _ in entries
    }


def _log_mel(samples: Floats) -> Floats:
    """(n // 160 + 1, 80); the ends are mirrored."""
    kept = _weights()
    padded = np.pad(samples, _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    power = (frames @ kept["stft_real_kernel"][:, 0].T) ** 2 + (frames @ kept["stft_imag_kernel"][:, 0].T) ** 2
    return np.asarray(np.log(power @ kept["mel_fb"] + np.float32(_FLOOR)), np.float32)


def _blocks(mel: Floats) -> list[Floats]:
    """(rows, 144) after each of the first blocks; rows are half as many as the spectra, rounded up."""
    kept = _weights()
    padded = np.pad(mel, ((1, 2), (0, 0)))
    taps = kept["onnx::Conv_801"]
    rows = (len(mel) + 1) // 2
    x = sum((padded[k : k + 2 * rows : 2] @ taps[:, :, k].T for k in range(3)), kept["onnx::Conv_802"])
    x = np.asarray(x * (0.5 + 0.5 * erf(x / np.sqrt(2))), np.float32)
    found = []
    for number in range(LAYERS):
        x = _block(x, number)
        found.append(x)
    return found


def _block(x: Floats, number: int) -> Floats:
    """One conformer block (Gulati et al., 2020): half a feed-forward, attention, convolution, half a feed-forward."""
    prefix = f"acoustic_model.model.blocks.{number}."
    product = _FIRST_PRODUCT + _PRODUCTS * number
    x = x + 0.5 * _forward(x, prefix + "ffn1.", product, product + 1)
    x = x + _attended(_normal(x, prefix + "attn_norm."), prefix + "attn.", product + 2, product + 6)
    x = x + _filtered(_normal(x, prefix + "conv.norm."), prefix + "conv.", _FIRST_FILTER + _FILTERS * number)
    x = x + 0.5 * _forward(x, prefix + "ffn2.", product + 7, product + 8)
    return _normal(x, prefix + "norm.")


def _product(number: int) -> Floats:
    return _weights()[f"onnx::MatMul_{number}"]


def _normal(x: Floats, prefix: str) -> Floats:
    kept = _weights()
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(1e-5))
    return np.asarray(scaled * kept[prefix + "weight"] + kept[prefix + "bias"], np.float32)


def _swish(x: Floats) -> Floats:
    return np.asarray(x / (1 + np.exp(-np.maximum(x, -60))), np.float32)


def _forward(x: Floats, prefix: str, first: int, second: int) -> Floats:
    kept = _weights()
    inner = _swish(_normal(x, prefix + "norm.") @ _product(first) + kept[prefix + "fc1.bias"])
    return np.asarray(inner @ _product(second) + kept[prefix + "fc2.bias"], np.float32)


def _attended(x: Floats, prefix: str, first: int, second: int) -> Floats:
    kept = _weights()
    joined = x @ _product(first) + kept[prefix + "in_proj_bias"]
    query, key, value = joined.reshape(len(x), 3, _HEADS, WIDTH // _HEADS).transpose(1, 2, 0, 3)
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(WIDTH // _HEADS))
    likely = np.exp(scores - scores.max(axis=2, keepdims=True))
    mixed = (likely / likely.sum(axis=2, keepdims=True)) @ value
    return np.asarray(
        mixed.transpose(1, 0, 2).reshape(len(x), WIDTH) @ _product(second) + kept[prefix + "out_proj.bias"], np.float32
    )


def _filtered(x: Floats, prefix: str, number: int) -> Floats:
    """Gated, then every channel by its own filter of 31 taps."""
    kept = _weights()
    both = x @ kept[prefix + "pointwise1.weight"][:, :, 0].T + kept[prefix + "pointwise1.bias"]
    gated = both[:, :WIDTH] / (1 + np.exp(-np.maximum(both[:, WIDTH:], -60)))
    taps: NDArray[np.float32] = kept[f"onnx::Conv_{number}"][:, 0]
    reach = taps.shape[1] // 2
    padded = np.pad(gated, ((reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps.shape[1], axis=0)
    made = _swish(np.einsum("rck,ck->rc", windows, taps) + kept[f"onnx::Conv_{number + 1}"])
    return np.asarray(
        made @ kept[prefix + "pointwise2.weight"][:, :, 0].T + kept[prefix + "pointwise2.bias"], np.float32
    )
