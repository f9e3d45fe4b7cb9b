"""The decoder in 8 bits, on CPUs with VNNI: twice the speed of bfloat16, for what takes most of a network's time.

Weights and what lies between the layers are whole numbers with a scale: one for each output channel of a weight; one
for each tensor, times one for each channel that is worked into the weights on both sides, so that a loud channel takes
no precision from quiet ones (the equalisation of Nagel et al., "Data-Free Quantization", 2019; the exponent of Xiao et
al., "SmoothQuant", 2022). What lies between the layers comes out of a ReLU and is never negative: 0..255 is all range.
Sums are exact in 32 bits, so what comes out does not depend on which frames are computed together.

The scales come from a look at samples (`samples.py`). A frame that goes beyond them is reported, and the caller makes
it anew without this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.precision import FIRST_INT8_BLOCK
from heygemd.engines.wav2lip.rows import decoder_starts, row_strides
from heygemd.engines.wav2lip.variants import Layer

MARGIN = 2.0
"""The scales leave room for so many times the largest value among the samples."""
EQUALISE = 0.5
"""0: one scale for all channels of a tensor; 1: every channel fills its range, and the weights take the difference."""
LEAST_SHARE = 1 / 256
"""A channel that was silent in the samples is taken to be so much of the loudest."""
_ONE, _NONE = [1, 1], [0, 0]


_ARGUMENTS = (
    *("qx", "x_scale", "x_zero_point", "qw", "w_scale", "w_zero_point", "qaccum", "bias"),
    *("stride", "padding", "dilation", "groups", "output_scale", "output_zero_point", "output_dtype"),
    *("accum_scale", "accum_zero_point", "binary_attr", "alpha", "unary_attr", "unary_scalars", "unary_algorithm"),
)
"""Of the operator with a sum, the youngest of the three that are used."""


def is_available() -> bool:
    """Whether this torch has the operators, as they are used here: they are made for its compiler, and nobody promises
    that they stay."""
    try:
        schema = torch.ops.onednn.qconv2d_pointwise.binary._schema
    except AttributeError:
        return False
    return tuple(argument.name for argument in schema.arguments) == _ARGUMENTS


@dataclass(frozen=True)
class Weights:
    """Of one folded layer, in float32."""

    weight: Tensor
    bias: Tensor


def weights_of(net: Generator) -> dict[str, Weights]:
    """Of every layer that `Int8Decoder` replaces; `net` is folded and still in float32."""
    state = net.state_dict()
    layers = [layer for block in net.variant.decoder_blocks[FIRST_INT8_BLOCK:] for layer in block]
    return {
        layer.path: Weights(*(state[f"{layer.path}.conv_block.0.{part}"].clone() for part in ("weight", "bias")))
        for layer in (*layers, net.variant.output_layer)
    }


@dataclass(frozen=True)
class Seen:
    """By one layer: the largest value of each channel, before it and after it; the shape of its input."""

    before: Tensor
    after: Tensor
    shape: tuple[int, ...]


@contextmanager
def watched(net: Generator) -> Iterator[dict[str, Seen]]:
    """What the layers of the decoder see while it computes, by their paths."""
    seen: dict[str, Seen] = {}

    def note(path: str, given: Tensor, out: Tensor) -> None:
        before, after = (part.float().amax((0, 2, 3)) for part in (given, out))
        known = seen.get(path)
        if known is not None:
            before, after = torch.maximum(before, known.before), torch.maximum(after, known.after)
        seen[path] = Seen(before, after, tuple(given.shape))

    layers = [layer for block in net.variant.decoder_blocks for layer in block]
    hooks = [
        net.get_submodule(layer.path).register_forward_hook(
            lambda _, given, out, path=layer.path: note(path, given[0], out)
        )
        for layer in (*layers, net.variant.output_layer)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class Int8Decoder:
    """Does what `Generator.decode` does, for the rows from `first_row` on."""

    def __init__(
        self, net: Generator, weights: Mapping[str, Weights], seen: Mapping[str, Seen], first_row: int
    ) -> None:
        """`net`: the same network, which computes the first blocks; `seen`: what its layers saw in batches of the size
        that will come."""
        self._small = [net.face_decoder_blocks[n] for n in range(FIRST_INT8_BLOCK)]
        self._first_row = first_row
        self._starts, self._strides = decoder_starts(net.variant, first_row), row_strides(net.variant)
        blocks = net.variant.decoder_blocks
        after = [*(block[0] for block in blocks[1:]), net.variant.output_layer]
        # Scales of the channels that each block gives, and of those of the face that it is joined with.
        made = [_equalised(torch.stack([seen[layer.path].after for layer in block]).amax(0)) for block in blocks]
        beside = [
            _equalised(seen[layer.path].before[block[-1].outputs :]) for block, layer in zip(blocks, after, strict=True)
        ]
        step = MARGIN / 255
        joined = torch.cat((made[FIRST_INT8_BLOCK - 1], beside[FIRST_INT8_BLOCK - 1]))
        self._enter = _over(joined, step)
        self._blocks: list[_Block] = []
        for number, block in enumerate(blocks[FIRST_INT8_BLOCK:], start=FIRST_INT8_BLOCK):
            layers = []
            scale, channels = step, joined
            for layer in block:
                # Only what is joined has to share its scale with what it is joined with.
                largest = 1.0 if layer is block[-1] else float((seen[layer.path].after / made[number]).amax())
                ends = _Ends(scale, channels, max(largest, LEAST_SHARE) * step, made[number])
                layers.append(_Layer(layer, weights[layer.path], ends, seen[layer.path].shape))
                scale, channels = ends.after, made[number]
            self._blocks.append(_Block(tuple(layers), _over(beside[number], step)))
            joined = torch.cat((made[number], beside[number]))
        output = net.variant.output_layer
        ends = _Ends(step, joined, 1.0, None)
        self._output = _Layer(output, weights[output.path], ends, seen[output.path].shape)

    def __call__(self, audio: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `Generator.decode`, in float32; and (B,) bool: frames that went beyond the scales."""
        peaks: list[Tensor] = []

        def note(whole: Tensor) -> Tensor:
            peaks.append(whole.amax((1, 2, 3)))
            return whole

        x, row = audio, 0
        steps = list(zip(reversed(features), self._starts, self._strides, strict=True))
        for small, (feature, start, stride) in zip(self._small, steps, strict=False):
            x = torch.cat((small(x)[:, :, start - row * stride :], feature[:, :, start:]), dim=1)
            row = start
        x = note(_quantised(x, self._enter))
        for block, (feature, start, stride) in zip(self._blocks, steps[FIRST_INT8_BLOCK:], strict=True):
            for layer in block.layers:
                x = note(layer(x))
            face = note(_quantised(feature[:, :, start:], block.beside))
            x = torch.cat((x[:, :, start - row * stride :], face), dim=1)
            row = start
        out = self._output(x)[:, :, self._first_row - row :]
        return out, (torch.stack(peaks) == 255).any(0)


@dataclass(frozen=True)
class _Block:
    """`beside`: the factors by which the features of the face that are joined to it become whole numbers."""

    layers: tuple[_Layer, ...]
    beside: Tensor


@dataclass(frozen=True)
class _Ends:
    """Scales of a layer's input and output: of the tensor, and of its channels. `channels_after` None: float32."""

    before: float
    channels_before: Tensor
    after: float
    channels_after: Tensor | None


class _Layer:
    """One convolution with bias, perhaps the sum with its input, and ReLU, in 8 bits."""

    def __init__(self, layer: Layer, weights: Weights, ends: _Ends, input_shape: tuple[int, ...]) -> None:
        batch, inputs, height, width = input_shape
        self._residual, self._transposed, self._extra = layer.residual, layer.transposed, layer.output_padding
        weight = weights.weight.transpose(0, 1) if layer.transposed else weights.weight
        weight = weight * ends.channels_before[:, None, None]
        scale = (weight.abs().amax((1, 2, 3)) / 127).clamp_min(1e-20)
        whole = (weight / scale[:, None, None, None]).round_().to(torch.int8)
        after = torch.ones(()) if ends.channels_after is None else ends.channels_after
        self._ends = ends
        self._scale, self._bias = scale / after, weights.bias / after
        self._zeros = torch.zeros(len(scale), dtype=torch.int32)
        self._dtype = torch.float32 if ends.channels_after is None else torch.uint8

        def lay_out(kernel: Tensor, padding: list[int], shape: list[int]) -> Tensor:
            ops = torch.ops.onednn
            laid: Tensor = ops.qconv_prepack(kernel, self._scale, ends.before, 0, _ONE, padding, _ONE, 1, shape)
            return laid

        if not layer.transposed:
            self._padding = [layer.padding, layer.padding]
            self._weight = lay_out(whole.contiguous(), self._padding, list(input_shape))
            return
        # A transposed convolution of stride 2 is four ordinary ones, for even and odd rows and columns of its output.
        self._phases = []
        for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            shape = [batch, inputs, height + y * self._extra, width + x * self._extra]
            self._phases.append((y, x, lay_out(_phase(whole, y, x), _NONE, shape)))

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) uint8 in channels-last, all of it."""
        if self._transposed:
            return self._upscaled(x)
        if not self._residual:
            return self._convolved(x, self._weight, self._padding)
        ends = self._ends
        out: Tensor = torch.ops.onednn.qconv2d_pointwise.binary(
            *(x, ends.before, 0, self._weight, self._scale, self._zeros, x.clone(), self._bias),
            *(_ONE, self._padding, _ONE, 1, ends.after, 0, self._dtype, ends.before, 0, "sum", 1.0, "relu", [], ""),
        )
        return out

    def _convolved(self, x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        ends = self._ends
        out: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *(x, ends.before, 0, weight, self._scale, self._zeros, self._bias),
            *(_ONE, padding, _ONE, 1, ends.after, 0, self._dtype, "relu", [], ""),
        )
        return out

    def _upscaled(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        extra = self._extra  # output padding: the last odd row and column look beyond the picture
        if extra:
            x = nn.functional.pad(x, (0, 1, 0, 1))
        size = (batch, 2 * height - 1 + extra, 2 * width - 1 + extra, len(self._scale))
        out = torch.empty(size, dtype=self._dtype).permute(0, 3, 1, 2)
        for odd_row, odd_column, weight in self._phases:
            rows = height + odd_row if extra else height
            columns = width + odd_column if extra else width
            out[:, :, odd_row::2, odd_column::2] = self._convolved(x[:, :, :rows, :columns], weight, _NONE)
        return out


def _phase(kernel: Tensor, odd_row: int, odd_column: int) -> Tensor:
    """The taps of a 3x3 kernel (O, I, 3, 3) that meet output pixels of that parity, in the order of the input."""
    rows, columns = ([2, 0] if odd else [1] for odd in (odd_row, odd_column))
    return kernel[:, :, rows][:, :, :, columns].contiguous()


def _equalised(peaks: Tensor) -> Tensor:
    """Channel scales for channels with these largest values: nothing is above 1 after division by them."""
    loudest = peaks.amax().clamp_min(1e-20)
    return (peaks / loudest).clamp_min(LEAST_SHARE) ** EQUALISE * loudest


def _over(channels: Tensor, step: float) -> Tensor:
    """The factors that bring float32 channels to whole numbers."""
    return (1 / (channels * step))[:, None, None].contiguous()


def _quantised(x: Tensor, factors: Tensor) -> Tensor:
    scaled = x * factors  # anew, in float32: `x` is still needed where a frame has to be made without this
    return scaled.add_(0.5).clamp_max_(255).to(torch.uint8, memory_format=torch.channels_last)
