"""Which rows of the decoder are worth computing. No torch in here.

The mouth alone is taken from the generated crop, and a convolution looks only at its neighbours, so the rows above the
mouth, and what only they depend on, need not be made: a fifth of the work. The encoder sees the whole face as always.
"""

from __future__ import annotations

from heygemd.engines.wav2lip.variants import Layer, Variant


def decoder_starts(variant: Variant, first_row: int) -> tuple[int, ...]:
    """For each decoder block, the first row of its joined output that rows `first_row` … of the result depend on."""
    need = _needed(variant.output_layer, first_row)
    starts: list[int] = []
    for block in reversed(variant.decoder_blocks):
        starts.append(need)
        for layer in reversed(block):
            need = _needed(layer, need)
    return tuple(reversed(starts))


def row_strides(variant: Variant) -> tuple[int, ...]:
    """For each decoder block, how many rows come out of it for one that goes in."""
    strides = []
    for block in variant.decoder_blocks:
        stride = 1
        for layer in block:
            stride *= layer.stride[0] if layer.transposed else 1
        strides.append(stride)
    return tuple(strides)


def _needed(layer: Layer, row: int) -> int:
    """The first input row that output row `row` looks at (decoders have no strided convolutions)."""
    if not layer.transposed:
        return max(0, row - layer.padding)
    # Output row y gathers the inputs i with y = i * stride - padding + k, k below the kernel's size.
    return max(0, -(-(row + layer.padding - layer.kernel + 1) // layer.stride[0]))
