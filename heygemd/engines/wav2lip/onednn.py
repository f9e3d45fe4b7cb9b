"""Convolutions for the CPU, their weights laid out once and what follows them worked in: oneDNN's fused kernels.

torch lays a convolution's weights out anew with every call, and adds and clips in passes of their own. Its operators
for compiled graphs take weights that are laid out already and fuse the sum and the ReLU, and they can be called without
a compiler: 84 → 106 frames a second for the classic network on two cores, and 0.03 s to prepare.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heygemd.engines.wav2lip.network import ConvBlock, Generator


def is_available() -> bool:
    """Whether this build of torch has oneDNN (x86-64 always, ARM sometimes)."""
    return bool(torch._C._has_mkldnn)


class PackedBlock(nn.Module):
    """Does what a folded `ConvBlock` does."""

    def __init__(self, block: ConvBlock, input_shape: tuple[int, ...]) -> None:
        """`input_shape` (B, C, H, W) is what the layout is chosen for; others work too, slower."""
        super().__init__()
        conv = block.conv_block[0]
        assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))  # noqa: S101 - as ConvBlock makes it
        self._residual = block.residual
        self._act = None if isinstance(block.act, nn.ReLU) else block.act
        self._transposed = isinstance(conv, nn.ConvTranspose2d)
        self._bias = conv.bias
        self._fused = "relu" if self._act is None else "none"
        ops = torch.ops.mkldnn
        lay_out = ops._reorder_convolution_transpose_weight if self._transposed else ops._reorder_convolution_weight
        extra = [list(conv.output_padding)] if self._transposed else []
        self._geometry = (list(conv.padding), *extra, list(conv.stride), list(conv.dilation), 1)
        self._weight = lay_out(conv.weight.detach(), *self._geometry, list(input_shape))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self._weight, self._bias, *self._geometry)
        ops = torch.ops.mkldnn
        out: Tensor
        if self._transposed:
            out = ops._convolution_transpose_pointwise(x, *weights, self._fused, [], "")
        elif self._residual:
            then = None if self._act is not None else "relu"
            out = ops._convolution_pointwise.binary(x, x, *weights, "add", 1.0, then, [], "")
        else:
            out = ops._convolution_pointwise(x, *weights, self._fused, [], "")
        return out if self._act is None else self._act(out)


def pack(net: Generator, mel: Tensor, face: Tensor, first_row: int) -> None:
    """Replace every block of a folded network. `mel` and `face` are inputs of the size that will come."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        shapes[module] = tuple(given[0].shape)

    blocks = [(name, module) for name, module in net.named_modules() if isinstance(module, ConvBlock)]
    hooks = [module.register_forward_pre_hook(note) for _, module in blocks]
    with torch.inference_mode():
        net(mel, face, first_row)
    for hook in hooks:
        hook.remove()
    for name, module in blocks:
        parent, _, number = name.rpartition(".")
        container = net.get_submodule(parent)
        assert isinstance(container, nn.Sequential)  # noqa: S101 - as Generator makes it
        container[int(number)] = PackedBlock(module, shapes[module])
