"""How many bytes a render takes, and in which batches, from the table of the network. No torch in here."""

from __future__ import annotations

from functools import cache

from heygemd.core.memory import GROUPS_AT_ONCE
from heygemd.engines.base import MemoryQuery, PrepareQuery
from heygemd.engines.wav2lip.precision import INT8, wide_precision
from heygemd.engines.wav2lip.variants import HD256, VARIANTS, Variant, variant_named

BEST_BATCH = {"cpu": 8, "cuda": 64}
"""Frames that the network takes at once at most. On a CPU more only spoil the caches."""
SMALLEST_BATCH = {"cpu": 8, "cuda": 1}
"""On a CPU always the same: oneDNN goes another way for each size, and the last bits differ: a split render would not
equal the whole."""

MIB = 1 << 20


def compute_batch(device: str, frames: int) -> int:
    """The size of the next run for `frames` waiting: the next power of two up, within the device's limits."""
    batch = SMALLEST_BATCH[device]
    while batch < frames and batch < BEST_BATCH[device]:
        batch *= 2
    return batch


def weights_of(variant: Variant) -> int:
    """Numbers in the folded network."""
    return variant.parameters


@cache
def activations_of(name: str) -> int:
    """Numbers alive at the worst moment of one frame's forward pass: kept face features and one layer's in and out."""
    variant = variant_named(name)
    height = width = variant.size
    kept: list[int] = []
    worst = 0
    current = 6 * height * width
    for block in variant.face_blocks:
        for layer in block:
            height, width = layer.size_after(height, width)
            after = layer.outputs * height * width
            worst = max(worst, sum(kept) + current + 2 * after)
            current = after
        kept.append(current)
    height = width = 1
    current = variant.audio_layers[-1].outputs
    for block in variant.decoder_blocks:
        for layer in block:
            height, width = layer.size_after(height, width)
            after = layer.outputs * height * width
            worst = max(worst, sum(kept) + current + 2 * after)
            current = after
        joined = current + kept[-1]
        worst = max(worst, sum(kept) + current + joined)
        kept.pop()
        current = joined
    after = variant.output_layer.outputs * height * width
    return max(worst, current + 2 * after)


def predict_bytes(query: MemoryQuery) -> int:
    """Peak bytes beyond a bare worker. An unknown variant counts as the largest that is common, the 256."""
    names = {variant.name for variant in VARIANTS}
    variant = variant_named(query.variant) if query.variant in names else HD256
    wide = wide_precision() if query.precision == INT8 else query.precision
    width_bytes = 2 if wide == "bfloat16" else 4
    batch = compute_batch(query.device, query.batch)
    activations = activations_of(variant.name) * batch * width_bytes
    weights = weights_of(variant)
    if query.device == "cuda":
        # Context and cuDNN's kernels, workspaces up to the activations again; weights twice while they change layout.
        return 600 * MIB + 2 * weights * width_bytes + 2 * activations
    # torch itself; three float32 copies of the weights (the public files carry Adam's two moments, and are read whole;
    # once they are gone, oneDNN's copies in its own layout take their place). 1.2 to 1.5 times what was measured.
    # A region is at most about a third of the frame, and takes float32 picture, patch and mask: 28 bytes a pixel.
    regions = GROUPS_AT_ONCE * query.batch * (query.region_pixels or query.width * query.height // 3) * 28
    # int8 keeps its own weights beside, of one byte: measured, 0 to 5 % more in all.
    return 330 * MIB + (13 if query.precision == INT8 else 12) * weights + 2 * GROUPS_AT_ONCE * activations + regions


def predict_prepare_bytes(query: PrepareQuery) -> int:
    """Peak of RAM in preparing, beyond a worker that decodes: torch, which is loaded meanwhile, then the mel and what
    each frame hears. Measured: 28 kB for a second of speech, 1.7 kB for a frame of the clip."""
    return (250 << 20) + 2_000 * query.video_frames + round(36_000 * query.speech_seconds)
