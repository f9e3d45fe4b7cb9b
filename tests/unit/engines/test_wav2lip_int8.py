"""8 bits must not be seen: exact sums, small errors, frames beyond the scales made anew, checkpoints that take it badly
left in full precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from heygemd.core.options import Options
from heygemd.engines.base import Computed
from heygemd.engines.wav2lip import int8, precision, runtime
from heygemd.engines.wav2lip.blend import first_row
from heygemd.engines.wav2lip.engine import Wav2LipEngine
from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.precision import cpu_has_int8, precisions, takes_int8, wide_precision
from heygemd.engines.wav2lip.runtime import Runtime
from heygemd.engines.wav2lip.samples import sample_inputs
from heygemd.engines.wav2lip.seeded import save_seeded, seeded_state
from heygemd.engines.wav2lip.variants import CLASSIC96, COMPRESSED96, HD256, HD288, Layer, Variant
from heygemd.work.choose import precisions_of

needs_int8 = pytest.mark.skipif(not cpu_has_int8(), reason="NOT RUN: this CPU has no VNNI")
ROW = first_row(96)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seeded(CLASSIC96, tmp_path_factory.mktemp("weights") / "classic96.pth")


@pytest.fixture(scope="module")
def narrow(checkpoint: Path) -> Runtime:
    return Runtime(checkpoint, "cpu", "int8", ROW)


@pytest.fixture(scope="module")
def wide(checkpoint: Path) -> Runtime:
    return Runtime(checkpoint, "cpu", wide_precision(), ROW)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(np.float64) - other) ** 2, axis=(1, 2, 3)).max()))


# ---- one layer ----


@needs_int8
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("transposed", [None, 0, 1])
def test_a_layer_of_whole_numbers_is_computed_exactly(transposed: int | None, residual: bool) -> None:
    if residual and transposed is not None:
        return  # there is no such layer
    r = np.random.default_rng(3)
    outputs = 32 if residual else 48
    stride = (1, 1) if transposed is None else (2, 2)
    layer = Layer("x", 32, outputs, 3, stride, 1, transposed or 0, transposed=transposed is not None, residual=residual)
    weight = torch.from_numpy(r.integers(-127, 128, (outputs, 32, 3, 3)).astype(np.float32))
    weight[:, 0, 0, 0] = 127  # so that the scale of every channel is 1
    bias = torch.from_numpy(r.integers(-500, 500, outputs).astype(np.float32))
    x = torch.from_numpy(r.integers(0, 256, (2, 32, 7, 9)).astype(np.float32))
    if transposed is None:
        expected = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        given = weight
    else:
        given = weight.transpose(0, 1).contiguous()
        expected = torch.nn.functional.conv_transpose2d(x, given, bias, 2, 1, transposed)
    if residual:
        expected = expected + x
    ends = int8._Ends(1.0, torch.ones(32), 512.0 if residual else 1.0, torch.ones(outputs) if residual else None)
    made = int8._Layer(layer, int8.Weights(given, bias), ends, tuple(x.shape))
    got = made(x.to(torch.uint8).contiguous(memory_format=torch.channels_last))
    expected = expected.relu()
    if residual:
        assert got.dtype == torch.uint8
        expected = (expected / 512).round().clamp(max=255)
    assert got.shape == expected.shape
    assert torch.equal(got.float(), expected)
    assert expected.std() > 1


def test_channel_scales_are_never_exceeded_and_never_nothing() -> None:
    peaks = torch.tensor([0.0, 1e-9, 0.5, 3.0, 40.0])
    scales = int8._equalised(peaks)
    assert (scales > 0).all()
    assert float((peaks / scales).max()) == pytest.approx(1.0)
    assert scales[4] == pytest.approx(40.0)
    assert scales[2] > 0.5, "a quiet channel keeps room"
    assert (int8._equalised(torch.zeros(3)) > 0).all()


# ---- the network ----


@needs_int8
@pytest.mark.parametrize(
    ("variant", "whole"),
    [(CLASSIC96, True), (CLASSIC96, False), (HD256, False), (HD288, False)],
    ids=lambda v: v.name if isinstance(v, Variant) else "whole" if v else "rows",
)
def test_the_decoder_is_close_to_the_plain_one(variant: Variant, whole: bool) -> None:
    net = Generator(variant)
    net.load_state_dict(seeded_state(variant))
    net.eval().fold()
    net.output_block = torch.nn.Sequential(net.output_block[0])
    row = 0 if whole else first_row(variant.size)
    mel, crops = (torch.from_numpy(part) for part in sample_inputs(variant.size, 2))
    face = torch.cat((crops, crops), dim=3).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        audio, features = net.audio_encoder(mel[:, None]), net.encode_face(face)
        with int8.watched(net) as seen:
            expected = net.decode(audio, features, row)
        decoder = int8.Int8Decoder(net, int8.weights_of(net), seen, row)
        got, beyond = decoder(audio, features)
    assert not any(module._forward_hooks for module in net.modules()), "nothing is watched any more"
    assert got.shape == expected.shape
    assert not beyond.any()
    relative = float((got - expected).square().mean().sqrt() / expected.std())
    assert relative < 0.05
    assert relative > 1e-4, "8 bits were really used"


@needs_int8
def test_a_runtime_in_8_bits_is_close_to_float32(narrow: Runtime, checkpoint: Path) -> None:
    mel, crops = sample_inputs(96, 24, seed=50)
    exact = Runtime(checkpoint, "cpu", "float32", ROW)(mel, crops)
    got = narrow(mel, crops)
    assert narrow.computed().precision == "int8"
    assert narrow.computed().why == ""
    assert got.shape == exact.shape == (24, 96 - ROW, 96, 3)
    assert 50 < psnr(got, exact) < 90
    assert exact.std() > 0.01


@needs_int8
def test_a_frame_does_not_depend_on_its_neighbours(narrow: Runtime) -> None:
    mel, crops = sample_inputs(96, 16, seed=51)
    together = narrow(mel, crops)
    assert np.array_equal(narrow(mel[5:16], crops[5:16]), together[5:])
    assert np.array_equal(narrow(mel[15:], crops[15:]), together[15:])


@needs_int8
def test_frames_beyond_the_scales_are_made_anew(checkpoint: Path, wide: Runtime) -> None:
    run = Runtime(checkpoint, "cpu", "int8", ROW)
    mel, crops = sample_inputs(96, 8, seed=52)
    before = run(mel, crops)
    assert run.computed().remade_frames == 0
    crops[3] *= 40  # no picture, but what a network may make of one
    after = run(mel, crops)
    assert run.computed().remade_frames == 1
    assert np.array_equal(after[3], wide(mel, crops)[3])
    others = [0, 1, 2, 4, 5, 6, 7]
    assert np.array_equal(after[others], before[others])


@needs_int8
def test_where_most_frames_go_beyond_8_bits_are_given_up(checkpoint: Path, wide: Runtime) -> None:
    run = Runtime(checkpoint, "cpu", "int8", ROW)
    mel, crops = sample_inputs(96, 8, seed=53)
    crops *= 40
    for _ in range(-(-runtime._LOOK_FRAMES // 8)):
        run(mel, crops)
    computed = run.computed()
    assert computed.precision == wide_precision()
    assert "beyond" in computed.why
    assert computed.remade_frames >= runtime._LOOK_FRAMES
    mel, crops = sample_inputs(96, 8, seed=54)
    assert np.array_equal(run(mel, crops), wide(mel, crops))
    run.begin()
    assert run.computed() == Computed("int8"), "the next job may be another person's"
    assert not np.array_equal(run(mel, crops), wide(mel, crops))


def test_hours_of_good_frames_do_not_hide_a_bad_clip() -> None:
    count = runtime._Count()
    assert not any(count.too_many(8, 0) for _ in range(10_000))
    assert not any(count.too_many(8, remade) for remade in [1] + [0] * 100), "one now and then does not matter"
    assert any(count.too_many(8, 8) for _ in range(2 * runtime._LOOK_FRAMES // 8))


@needs_int8
def test_a_checkpoint_that_8_bits_spoil_is_left_in_full(
    checkpoint: Path, wide: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LEAST_INT8_DB", 90.0)
    run = Runtime(checkpoint, "cpu", "int8", ROW)
    computed = run.computed()
    assert computed.precision == wide_precision()
    assert "dB" in computed.why
    mel, crops = sample_inputs(96, 8, seed=55)
    assert np.array_equal(run(mel, crops), wide(mel, crops))


@needs_int8
def test_weights_that_overflow_are_not_believed(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in seeded_state(CLASSIC96).items()}
    state["module.face_decoder_blocks.5.1.conv_block.0.weight"][0, 0, 0, 0] = 1e36
    path = tmp_path / "enormous.pth"
    torch.save({"state_dict": state}, path)
    computed = Runtime(path, "cpu", "int8", ROW).computed()
    assert computed.precision == wide_precision()
    assert computed.why


# ---- who gets it ----


def with_flags(monkeypatch: pytest.MonkeyPatch, *flags: str) -> None:
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ("float32", "bfloat16")),
        (("avx512_vnni",), ("int8", "float32", "bfloat16")),
        (("avx_vnni", "amx_bf16"), ("int8", "bfloat16", "float32")),
        (("avx512_bf16",), ("bfloat16", "float32")),
    ],
)
def test_the_best_precision_of_a_cpu(
    flags: tuple[str, ...], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_flags(monkeypatch, *flags)
    assert precisions("cpu", CLASSIC96, reference=False) == expected
    assert precisions("cuda", CLASSIC96, reference=False) == ("bfloat16", "float32")
    assert "int8" not in precisions("cpu", CLASSIC96, reference=True), "people compare its numbers"
    assert "int8" not in precisions("cpu", COMPRESSED96, reference=False), "it would be slower"


def test_negative_activations_are_not_for_8_bits() -> None:
    assert takes_int8(CLASSIC96) and takes_int8(HD256) and takes_int8(HD288)
    assert not takes_int8(replace(HD288, prelu=frozenset({"face_decoder_blocks.3.0"})))


def test_another_machine_than_the_one_that_planned(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan of a cluster may be made where the CPU can what the one here cannot."""
    with_flags(monkeypatch)
    computed = Runtime(checkpoint, "cpu", "int8", ROW).computed()
    assert computed.precision == "float32"
    assert computed.why == "this CPU does not compute in int8"


@needs_int8
def test_a_cpu_without_bfloat16_computes_the_rest_in_float32(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_flags(monkeypatch, "avx512_vnni")
    run, exact = (Runtime(checkpoint, "cpu", name, ROW) for name in ("int8", "float32"))
    assert run.computed() == Computed("int8")
    mel, crops = sample_inputs(96, 8, seed=56)
    assert 50 < psnr(run(mel, crops), exact(mel, crops)) < 90
    crops[2] *= 40
    assert np.array_equal(run(mel, crops)[2], exact(mel, crops)[2]), "made anew in float32"


@needs_int8
def test_another_torch_than_the_one_that_is_known(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert int8.is_available()
    monkeypatch.setattr(int8, "_ARGUMENTS", (*int8._ARGUMENTS, "something_new"))
    computed = Runtime(checkpoint, "cpu", "int8", ROW).computed()
    assert computed.precision == wide_precision()
    assert torch.__version__ in computed.why


@pytest.mark.parametrize("prepare", [lambda path: None, lambda path: path])
def test_a_wish_holds_where_there_is_a_choice(
    prepare: Callable[[Path], Path | None], checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_flags(monkeypatch, "avx512_vnni", "avx512_bf16")
    engine = Wav2LipEngine()
    engine.availability(prepare(checkpoint))
    assert precisions_of(engine, "cpu", Options(), "auto") == ("int8", "bfloat16", "float32")
    assert precisions_of(engine, "cpu", Options(), "float32") == ("float32",)
    assert precisions_of(engine, "cuda", Options(), "int8") == ("bfloat16", "float32"), "a card has none"
    assert precisions_of(engine, "cpu", Options(reference=True), "int8")[0] == "bfloat16"


# ---- the samples ----


@pytest.mark.parametrize("size", [96, 288])
def test_samples_are_pictures_and_sounds_and_always_the_same(size: int) -> None:
    mel, crops = sample_inputs(size, 8, seed=1)
    assert mel.shape == (8, 80, 16) and crops.shape == (8, size, size, 3)
    assert mel.dtype == crops.dtype == np.float32
    assert crops.min() >= 0 and crops.max() <= 1
    assert crops.mean(axis=(1, 2, 3)).std() > 0.05, "in different light"
    assert -4 <= mel.min() < -3.9 and 1 < mel.max() <= 4
    again = sample_inputs(size, 8, seed=1)
    assert np.array_equal(mel, again[0]) and np.array_equal(crops, again[1])
    assert not np.array_equal(crops, sample_inputs(size, 8, seed=2)[1])
