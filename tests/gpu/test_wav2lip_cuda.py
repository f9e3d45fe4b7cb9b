"""Wav2Lip on a CUDA device: the same numbers as on the CPU, within what each precision allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heygemd.engines.base import MemoryQuery
from heygemd.engines.wav2lip import Wav2LipEngine
from heygemd.engines.wav2lip.seeded import save_seeded
from heygemd.engines.wav2lip.variants import variant_named

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["classic96", "compressed96", "hd256", "hd288"])
@pytest.mark.parametrize(("precision", "least_db"), [("float32", 50.0), ("bfloat16", 40.0)])
def test_agrees_with_the_cpu(name: str, precision: str, least_db: float, tmp_path: Path) -> None:
    from heygemd.engines.wav2lip.runtime import Runtime

    variant = variant_named(name)
    path = save_seeded(variant, tmp_path / "w.pth")
    draw = np.random.default_rng(3)
    mel = draw.uniform(-4, 4, (5, 80, 16)).astype(np.float32)
    crops = draw.uniform(0, 1, (5, variant.size, variant.size, 3)).astype(np.float32)
    exact = Runtime(path, "cpu", "float32")(mel, crops)
    ours = Runtime(path, "cuda", precision)(mel, crops)
    assert -10 * np.log10(np.mean((exact - ours) ** 2)) >= least_db


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_stays_below_the_prediction(precision: str, tmp_path: Path) -> None:
    from heygemd.engines.wav2lip.runtime import Runtime

    variant = variant_named("classic96")
    path = save_seeded(variant, tmp_path / "w.pth")
    torch.cuda.reset_peak_memory_stats()
    run = Runtime(path, "cuda", precision)
    run(np.zeros((64, 80, 16), np.float32), np.zeros((64, 96, 96, 3), np.float32))
    query = MemoryQuery("cuda", precision, 64, 1920, 1080, variant.name)
    assert torch.cuda.max_memory_reserved() < Wav2LipEngine().memory_bytes(query)
