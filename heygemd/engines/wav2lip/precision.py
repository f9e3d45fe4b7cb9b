"""What a network is computed in, by what the device and the network can. No torch in here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from heygemd.engines.wav2lip.variants import Variant

INT8 = "int8"
FIRST_INT8_BLOCK = 2
"""Of the decoder; the blocks before it have few pixels and stay as they are."""
_LEAST_INT8_PARAMETERS = 10_000_000
"""In smaller networks the passes between the layers take what the layers save (compressed 96: 0.83 of the speed)."""


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 itself (AVX512-BF16 or AMX); elsewhere it is emulated, and slow."""
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})


def cpu_has_int8() -> bool:
    """Whether the CPU adds products of 8 bits up in 32 (VNNI or AMX); elsewhere such sums may overflow."""
    return bool(_cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"})


def takes_int8(variant: Variant) -> bool:
    """Whether the network's decoder can be computed in 8 bits, and gains by it."""
    layers = [layer for block in variant.decoder_blocks[FIRST_INT8_BLOCK:] for layer in block]
    published = all(
        layer.kernel == 3 and layer.padding == 1 and layer.stride == ((2, 2) if layer.transposed else (1, 1))
        for layer in layers
    )
    return published and not variant.prelu and variant.parameters >= _LEAST_INT8_PARAMETERS


def precisions(kind: str, variant: Variant, *, reference: bool) -> tuple[str, ...]:
    """Best first: the fastest whose error is far below an encoder's. `kind`: cpu or cuda. In reference mode, where
    people compare numbers, nothing below bfloat16."""
    if kind == "cuda":
        return ("bfloat16", "float32")
    wide = ("bfloat16", "float32") if cpu_has_bfloat16() else ("float32", "bfloat16")
    narrow = cpu_has_int8() and takes_int8(variant) and not reference
    return (INT8, *wide) if narrow else wide


def wide_precision() -> str:
    """What `int8` computes the rest of the network in."""
    return "bfloat16" if cpu_has_bfloat16() else "float32"
