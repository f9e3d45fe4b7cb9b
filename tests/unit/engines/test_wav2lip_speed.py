"""What makes the networks fast must not change what they say: rows left out, kernels fused, weights laid out anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heygemd.engines.wav2lip import onednn
from heygemd.engines.wav2lip.blend import first_row, region_mask
from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.rows import decoder_starts
from heygemd.engines.wav2lip.runtime import Runtime
from heygemd.engines.wav2lip.seeded import save_seeded, seeded_state
from heygemd.engines.wav2lip.variants import CLASSIC96, COMPRESSED96, HD256, HD288, VARIANTS, Variant

needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="this build of torch has no oneDNN")


def made(variant: Variant) -> Generator:
    net = Generator(variant)
    net.load_state_dict(seeded_state(variant))
    return net.eval()


def inputs(variant: Variant, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    r = np.random.default_rng(5)
    mel = torch.from_numpy(r.uniform(-4, 4, (batch, 1, 80, 16)).astype(np.float32))
    return mel, torch.from_numpy(r.uniform(0, 1, (batch, 6, variant.size, variant.size)).astype(np.float32))


@pytest.mark.parametrize("variant", [CLASSIC96, COMPRESSED96, HD256, HD288], ids=lambda v: v.name)
def test_rows_that_are_made_equal_those_of_the_whole(variant: Variant) -> None:
    net, (mel, face) = made(variant), inputs(variant, 1)
    with torch.inference_mode():
        whole = net(mel, face)
        for row in (1, 17, first_row(variant.size), variant.size - 1):
            part = net(mel, face, row)
            assert part.shape == (1, 3, variant.size - row, variant.size)
            assert torch.allclose(part, whole[:, :, row:], atol=2e-6), row
    assert float(whole.std()) > 0.01


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_rows_are_left_out_where_they_can_be(variant: Variant) -> None:
    starts = decoder_starts(variant, first_row(variant.size))
    assert starts[-1] == first_row(variant.size) - 1  # the last convolution sees one row more
    assert list(starts) == sorted(starts)
    assert decoder_starts(variant, 0) == (0,) * len(starts)


@pytest.mark.parametrize("size", [96, 256, 288])
def test_nothing_that_shows_is_above_the_first_row(size: int) -> None:
    row = first_row(size)
    assert not region_mask(size)[: row + 2].any()
    assert region_mask(size)[row + 2].any()


@needs_onednn
@pytest.mark.parametrize("variant", [CLASSIC96, COMPRESSED96, HD288], ids=lambda v: v.name)
@pytest.mark.parametrize("prelu", [False, True], ids=["relu", "prelu"])
def test_packed_blocks_equal_the_plain_ones(variant: Variant, prelu: bool) -> None:
    if prelu:
        # One of each kind: plain, residual, transposed.
        variant = replace(
            variant, prelu=frozenset({"face_encoder_blocks.1.0", "audio_encoder.1", "face_decoder_blocks.2.0"})
        )
    net, (mel, face) = made(variant), inputs(variant)
    with torch.inference_mode():
        expected = net(mel, face)
        net.fold()
        onednn.pack(net, mel, face, 0)
        got = net(mel, face)
    assert sum(isinstance(module, onednn.PackedBlock) for module in net.modules()) == len(variant.layers)
    assert float((got - expected).abs().max()) < 2e-5
    assert float(expected.std()) > 0.01


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_runtime_gives_the_same_rows_with_and_without_the_upper_ones(precision: str, tmp_path: Path) -> None:
    path = save_seeded(COMPRESSED96, tmp_path / "w.pth")
    r = np.random.default_rng(2)
    mel, crops = r.uniform(-4, 4, (3, 80, 16)).astype(np.float32), r.uniform(0, 1, (3, 96, 96, 3)).astype(np.float32)
    whole, part = Runtime(path, "cpu", precision)(mel, crops), Runtime(path, "cpu", precision, 43)(mel, crops)
    assert part.shape == (3, 53, 96, 3)
    assert np.abs(whole[:, 43:] - part).max() < (1e-5 if precision == "float32" else 2e-2)
    assert Runtime(path, "cpu", precision, 43)(mel[:0], crops[:0]).shape == (0, 53, 96, 3)
