"""The network, in torch for training; heygemd runs the same thing in numpy (driver/network.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

SPECTRUM_LAYERS = ((128, 5, 1), (128, 5, 2), (96, 5, 3))
"""Channels, taps and dilation of each convolution. Together they see 240 ms to either side."""

RECOGNISER_LAYERS = ((128, 1, 1), (128, 5, 1), (96, 5, 2))
"""The recogniser's layers have seen a second and more already: these see 120 ms."""


class Net(nn.Module):
    """(batch, inputs, rows) → motion (batch, 3, rows), logits of closure and activity (batch, 2, rows), of the sounds.

    `mean`, `deviation` (inputs,): what is taken from the inputs before, and what they are divided by.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(
        self,
        mean: torch.Tensor,
        deviation: torch.Tensor,
        sounds: int,
        layers: tuple[tuple[int, int, int], ...],
        drop: float,
    ):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        blocks: list[nn.Module] = []
        width = len(mean)
        for channels, taps, dilation in layers:
            blocks += [
                nn.Conv1d(width, channels, taps, padding=dilation * (taps // 2), dilation=dilation),
                nn.BatchNorm1d(channels),
                nn.ReLU(),
                nn.Dropout(drop),
            ]
            width = channels
        self.body = nn.Sequential(*blocks)
        self.head = nn.Conv1d(width, 5, 1)
        self.sounds = nn.Conv1d(width, sounds, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.body((x - self.mean[:, None]) / self.deviation[:, None])
        head = self.head(hidden)
        return head[:, :3], head[:, 3:], self.sounds(hidden)


def export(net: Net, path: Path, notes: dict[str, str]) -> None:
    """Weights as float16 arrays, batch norm folded into the convolutions. No pickle."""
    arrays: dict[str, NDArray[np.generic]] = {}
    blocks = list(net.body)
    for k in range(0, len(blocks), 4):
        conv, norm = blocks[k], blocks[k + 1]
        assert isinstance(conv, nn.Conv1d)
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        assert conv.bias is not None
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = conv.weight * gain[:, None, None]  # (out, in, taps)
        bias = (conv.bias - norm.running_mean) * gain + norm.bias
        if k == 0:
            weight = weight / net.deviation[None, :, None]
            bias = bias - (weight * net.mean[None, :, None]).sum(dim=(1, 2))
        arrays[f"weight{k // 4}"] = weight.permute(2, 1, 0).detach().numpy().astype(np.float16)
        arrays[f"bias{k // 4}"] = bias.detach().numpy().astype(np.float16)
        arrays[f"dilation{k // 4}"] = np.array(conv.dilation[0])
    assert net.head.bias is not None
    arrays["head_weight"] = net.head.weight[:, :, 0].t().detach().numpy().astype(np.float16)
    arrays["head_bias"] = net.head.bias.detach().numpy().astype(np.float16)
    assert net.sounds.bias is not None
    arrays["sounds_weight"] = net.sounds.weight[:, :, 0].t().detach().numpy().astype(np.float16)
    arrays["sounds_bias"] = net.sounds.bias.detach().numpy().astype(np.float16)
    for name, text in notes.items():
        arrays[f"note_{name}"] = np.array(text)
    np.savez_compressed(path, allow_pickle=False, **arrays)
