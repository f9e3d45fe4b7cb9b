"""A stand-in for trained weights: every tensor drawn from a generator seeded by its own name.

The golden numbers were made with these, and the benchmark uses them, so neither needs a checkpoint that somebody owns.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heygemd.engines.wav2lip.variants import Variant
from heygemd.weights.container import Shape


def seeded_tensor(name: str, shape: Shape) -> Tensor:
    """The tensor that belongs to this key of a state dict."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith("running_var"):
        values = draw.uniform(0.8, 1.2, shape)
    elif name.endswith(("running_mean", "bias")):
        values = draw.normal(0, 0.05, shape)
    elif len(shape) == 1:
        values = draw.uniform(0.8, 1.2, shape)
    else:
        values = draw.normal(0, float(np.sqrt(1 / np.prod(shape[1:]))), shape)
    if name == "output_block.1.weight":
        return torch.from_numpy(values.astype(np.float32) * np.float32(0.2))
    return torch.from_numpy(values.astype(np.float32))


def seeded_state(variant: Variant) -> dict[str, Tensor]:
    """A whole state dict."""
    return {name: seeded_tensor(name, shape) for name, shape in variant.state.items()}


def save_seeded(variant: Variant, path: Path) -> Path:
    """Write a checkpoint in the shape of the public ones: {"state_dict": {"module.…": tensor}}."""
    state = {f"module.{name}": tensor for name, tensor in seeded_state(variant).items()}
    torch.save({"state_dict": state, "global_step": 1}, path)
    return path
