"""The networks against the public implementations' numbers; the loader against all it must accept or refuse."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from heygemd.core.errors import CheckpointError
from heygemd.engines.wav2lip import load_generator
from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.seeded import save_seeded, seeded_state, seeded_tensor
from heygemd.engines.wav2lip.variants import (
    COMPRESSED96,
    HD288,
    VARIANTS,
    Variant,
    recognise,
    variant_named,
)
from heygemd.weights.container import check_instructions, read_shapes, strip_prefix

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2].parent / "shared" / "golden"
NAMES = [variant.name for variant in VARIANTS]


def inputs(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    r = np.random.default_rng(seed)
    mel = r.uniform(-4, 4, (2, 1, 80, 16)).astype(np.float32)
    face = r.uniform(0, 1, (2, 6, size, size)).astype(np.float32)
    return torch.from_numpy(mel), torch.from_numpy(face)


def run(net: torch.nn.Module, size: int, seed: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        out: NDArray[np.float32] = net(*inputs(size, seed)).numpy()
    return out


@pytest.mark.parametrize(("name", "step"), [("classic96", 8), ("compressed96", 8), ("hd256", 16)])
def test_agrees_with_the_public_implementation(name: str, step: int, tmp_path: Path) -> None:
    golden = np.load(HERE / "golden_wav2lip.npz")
    net = load_generator(save_seeded(variant_named(name), tmp_path / "w.pth"))
    assert not net.training
    out = run(net, net.variant.size, int(golden[f"{name}_seed"]))
    np.testing.assert_allclose(out[:, :, ::step, ::step], golden[name], atol=1e-4)
    net.fold()
    folded = run(net, net.variant.size, int(golden[f"{name}_seed"]))
    np.testing.assert_allclose(folded[:, :, ::step, ::step], golden[name], atol=1e-4)


@pytest.mark.parametrize("act", ["relu", "mixed", "prelu"])
def test_288_with_every_activation_of_its_forks(act: str, tmp_path: Path) -> None:
    """No public golden numbers exist: these were made with the layers written out one by one as in the public code."""
    golden = np.load(HERE / "golden_wav2lip.npz")
    state = seeded_state(HD288)
    for layer in HD288.layers:
        if act == "prelu" or (act == "mixed" and layer.transposed):
            state[f"{layer.path}.act.weight"] = seeded_tensor(f"{layer.path}.act.weight", (1,))
    torch.save(state, tmp_path / "w.pth")
    out = run(load_generator(tmp_path / "w.pth"), 288, int(golden["hd288_seed"]))
    np.testing.assert_allclose(out[:, :, ::24, ::24], golden[f"hd288_{act}"], atol=1e-4)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared golden numbers are not beside the checkout")
@pytest.mark.parametrize("name", ["classic96", "compressed96", "hd256"])
def test_agrees_with_all_of_the_shared_numbers(name: str, tmp_path: Path) -> None:
    golden = np.load(SHARED / f"net_{name}_public.npz")
    variant = variant_named(name)
    out = run(load_generator(save_seeded(variant, tmp_path / "w.pth")), variant.size, int(golden["seed"]))
    np.testing.assert_allclose(out[:, :, ::4, ::4] if variant.size == 256 else out, golden["out"], atol=1e-4)
    described = json.loads((SHARED / "wav2lip_variants.json").read_text())[name]
    assert variant.state == {key: tuple(shape) for key, shape in described["state"]}
    assert variant.parameters == described["parameters"]


@pytest.mark.parametrize(
    ("name", "millions"), [("classic96", 36.30), ("compressed96", 1.26), ("hd256", 53.61), ("hd288", 48.52)]
)
def test_sizes(name: str, millions: float) -> None:
    variant = variant_named(name)
    assert round(variant.parameters / 1e6, 2) == millions
    side = (variant.size, variant.size)
    sizes = []
    for block in variant.face_blocks:
        for layer in block:
            side = layer.size_after(*side)
        sizes.append(side)
    assert side == (1, 1)
    for block in variant.decoder_blocks:
        for layer in block:
            side = layer.size_after(*side)
        assert side == sizes.pop()


# --- what must load ---------------------------------------------------------------------------------------------------

TINY = COMPRESSED96


def wrapped(kind: str, path: Path) -> Path:
    state = seeded_state(TINY)
    prefixed = {f"module.{key}": value for key, value in state.items()}
    if kind == "bare":
        torch.save(state, path)
    elif kind == "bare with module.":
        torch.save(prefixed, path)
    elif kind == "state_dict":
        torch.save({"state_dict": state, "optimizer": {"state": {0: {"step": 1}}}, "global_epoch": 3}, path)
    elif kind == "state_dict with module.":
        torch.save({"state_dict": prefixed, "optimizer": None}, path)
    elif kind == "legacy":
        torch.save({"state_dict": prefixed}, path, _use_new_zipfile_serialization=False)
    elif kind == "half":
        torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path)
    elif kind == "parameters":
        torch.save({key: torch.nn.Parameter(v) if v.is_floating_point() else v for key, v in state.items()}, path)
    elif kind in ("traced", "scripted module."):
        net: torch.nn.Module = Generator(TINY)
        net.load_state_dict(state)
        if kind == "scripted module.":
            net = torch.nn.ModuleDict({"module": net.eval()})
            net.forward = lambda mel, face: net["module"](mel, face)  # type: ignore[assignment, operator]
        traced = torch.jit.trace(net.eval(), inputs(96, 0))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(path))  # type: ignore[no-untyped-call]
    elif kind == "safetensors":
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        body = b""
        for key, value in state.items():
            raw = value.numpy().tobytes()
            dtype = "I64" if value.dtype == torch.int64 else "F32"
            header[key] = {
                "dtype": dtype,
                "shape": list(value.shape),
                "data_offsets": [len(body), len(body) + len(raw)],
            }
            body += raw
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


KINDS = ["bare", "bare with module.", "state_dict", "state_dict with module.", "legacy", "half", "parameters"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", [*KINDS, "traced", "scripted module.", "safetensors"])
def test_loads(kind: str, tmp_path: Path) -> None:
    path = wrapped(kind, tmp_path / "any.name")
    shapes = read_shapes(path)
    found = recognise({name: shapes[key] for name, key in strip_prefix(list(shapes)).items()})
    assert isinstance(found, Variant), found
    assert found.name == "compressed96"
    net = load_generator(path)
    assert net.variant.name == "compressed96"
    plain = Generator(TINY)
    plain.load_state_dict(seeded_state(TINY))
    np.testing.assert_allclose(run(net, 96, 5), run(plain.eval(), 96, 5), atol=2e-3 if kind == "half" else 1e-6)


# --- what must be refused ---------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_generator(path)
    message = str(caught.value)
    with pytest.raises(CheckpointError):  # the reader of shapes sees fewer bytes, but never lets an error through
        shapes = read_shapes(path)
        seen = recognise({name: shapes[key] for name, key in strip_prefix(list(shapes)).items()})
        raise CheckpointError(str(seen))
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 400
    assert caught.value.path == str(path)
    return message


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello, this is not a network\n" * 10, "a text file"),
        (b"<!DOCTYPE html><html><body>quota exceeded</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a checkpoint"),
        (bytes(1000), "not a checkpoint"),
        (b"\x80\x02.", "truncated, damaged"),
    ],
)
def test_refuses_foreign_files(data: bytes, says: str, tmp_path: Path) -> None:
    assert says in refused(write(tmp_path / "w.pth", data))


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.pth")
    assert "directory" in refused(tmp_path)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["bare", "legacy", "zip", "torchscript"])
def test_runs_nothing_that_a_pickle_says(form: str, protocol: int, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    evil = {"state_dict": Malicious(target)}
    path = tmp_path / "w.pth"
    if form == "bare":
        path.write_bytes(pickle.dumps(evil, protocol=protocol))
    elif form == "torchscript":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", pickle.dumps(evil, protocol=protocol))
            archive.writestr("w/constants.pkl", pickle.dumps((), protocol=2))
    else:
        torch.save(evil, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip")
    assert "besides numbers" in refused(path)
    assert not target.exists()


def test_refuses_a_tensor_that_reads_beyond_its_storage(tmp_path: Path) -> None:
    """as_strided in a TorchScript archive must not become a read of foreign memory."""

    class Tensor:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch._utils._rebuild_tensor_v2, (STORAGE, 0, (1000, 1000), (1000, 1), False, None)

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if obj is STORAGE else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"w": Tensor()})
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", buffer.getvalue())
        archive.writestr("w/constants.pkl", pickle.dumps((), protocol=2))
        archive.writestr("w/data/0", bytes(16))
    assert "beyond its storage" in refused(tmp_path / "w.pt")


STORAGE = object()


def test_refuses_what_is_another_network(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"

    def saved(state: object) -> Path:
        torch.save(state, path)
        return path

    zero = torch.zeros
    assert "no face_encoder_blocks" in refused(saved({"conv.weight": zero(3), "fc.bias": zero(2)}))
    assert "holds no tensors" in refused(saved({}))
    assert "no state dict, but 'epoch'" in refused(saved({"epoch": 3, "lr": 0.1}))
    assert "not a state dict" in refused(saved(zero(3)))
    assert "holds a list" in refused(saved([zero(3)]))
    assert "SAM" in refused(saved({"module.sam.sa.conv1.weight": zero(1), "audio_refine.0.weight": zero(1)}))
    assert "SyncNet" in refused(saved({"face_encoder.0.conv_block.0.weight": zero(32, 15, 7, 7)}))
    assert "discriminator" in refused(saved({"binary_pred.0.weight": zero(1, 512, 1, 1)}))
    assert "S3FD" in refused(saved({"conv1_1.weight": zero(64, 3, 3, 3), "conv3_3_norm_mbox_conf.weight": zero(4)}))


def test_says_how_a_near_miss_differs(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    state = seeded_state(TINY)
    wrong = dict(state)
    wrong["audio_encoder.2.conv_block.0.weight"] = torch.zeros(32, 16, 5, 5)
    torch.save(wrong, path)
    message = refused(path)
    assert "nearest compressed96, 1 differences" in message
    assert "audio_encoder.2.conv_block.0.weight is 32x16x5x5, not 32x16x3x3" in message
    del wrong["audio_encoder.2.conv_block.0.weight"]
    torch.save(wrong, path)
    assert "audio_encoder.2.conv_block.0.weight is missing" in refused(path)
    torch.save(state | {"extra.weight": torch.zeros(1)}, path)
    assert "extra.weight is unknown" in refused(path)
    state["output_block.1.bias"][0] = float("nan")
    torch.save(state, path)
    assert "not finite" in refused(path)


@pytest.mark.parametrize("kind", ["bare", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_refuses_a_truncated_file(kind: str, share: float, tmp_path: Path) -> None:
    whole = wrapped(kind, tmp_path / "whole").read_bytes()
    message = refused(write(tmp_path / "cut.pth", whole[: int(len(whole) * share)]))
    assert any(word in message for word in ("truncated", "damaged", "is a text file", "not a checkpoint"))


@pytest.mark.parametrize("kind", ["bare", "legacy", "safetensors"])
def test_a_damaged_file_loads_or_is_refused_and_nothing_else(kind: str, tmp_path: Path) -> None:
    whole = wrapped(kind, tmp_path / "whole").read_bytes()
    draw = random.Random(1)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 4, 20])):
            place = draw.randrange(20000)
            data[draw.choice([place, len(data) - 1 - place])] = draw.randrange(256)
        path = write(tmp_path / "w.pth", bytes(data))
        try:
            read_shapes(path)
            load_generator(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"refused"}


@pytest.mark.parametrize("data", [b"\x80\x02Nr\xff\xff\xff\xff.", b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f."])
def test_four_bytes_cannot_ask_for_all_memory(data: bytes) -> None:
    """LONG_BINPUT with the highest index; BYTEARRAY8 with the highest length."""
    with pytest.raises(ValueError, match=r"impossible|expected|truncat|exceed"):
        check_instructions(io.BytesIO(data))


def test_recognise_needs_no_torch() -> None:
    code = "import sys, heygemd.engines.wav2lip.variants, heygemd.engines.wav2lip; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    found = recognise(TINY.state)
    assert isinstance(found, Variant)
    assert found.name == "compressed96"


def test_identify_prints_one_json_document(tmp_path: Path) -> None:
    good = save_seeded(TINY, tmp_path / "good.pth")
    bad = write(tmp_path / "bad.pth", b"no")
    documents = []
    for path in (good, bad):
        command = [sys.executable, "-m", "heygemd.engines.wav2lip.identify", str(path)]
        documents.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert documents[0]["ok"] is True
    assert documents[0]["variant"] == "compressed96"
    assert documents[1]["ok"] is False
    assert "a text file" in documents[1]["error"]["message"]
