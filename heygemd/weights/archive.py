"""Tensors out of a checkpoint file, without running anything that the file says.

Ordinary checkpoints go through torch's own restricted unpickler (`weights_only=True`). TorchScript archives are
programs: `torch.jit.load` would compile the file's code, and `weights_only` refuses them. Only their numbers are
wanted, so they are read with `container.SafeUnpickler`. Safetensors hold nothing but numbers.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heygemd.core.errors import CheckpointError
from heygemd.weights.container import (
    READ_ERRORS,
    SafeUnpickler,
    Shape,
    explain,
    kind_of,
    named_values,
    no_tensors,
    safetensors_header,
)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by name, on the CPU, as they are named there. Raises CheckpointError."""
    kind = kind_of(path)
    try:
        if kind == "torchscript":
            loaded = _read_torchscript(path)
        elif kind == "safetensors":
            loaded = _read_safetensors(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of what a damaged file says before it fails on it
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
        values = named_values(loaded, path)
    except CheckpointError:
        raise
    except READ_ERRORS as error:
        raise explain(path, kind, error) from error
    state = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    if not state:
        raise no_tensors(path, kind, values)
    return state


_SAFE_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        header = safetensors_header(file)
        data = file.read()
    state: dict[str, Tensor] = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = _SAFE_TYPES[entry["dtype"]]
        if not 0 <= begin <= end <= len(data) or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"{name} lies outside the file")
        state[name] = _from_bytes(data[begin:end], dtype).reshape(entry["shape"])
    return state


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def _read_torchscript(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        data = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
        prefix = data.partition("/")[0]
        storages: dict[str, Tensor] = {}

        def storage(kind: str, key: str, count: int) -> Tensor:
            if key not in storages:
                dtype = _STORAGES[kind]
                raw = archive.read(f"{prefix}/data/{key}")
                if len(raw) < count * dtype.itemsize:
                    raise ValueError("a storage is cut short")
                storages[key] = _from_bytes(raw, dtype)
            return storages[key]

        return SafeUnpickler(io.BytesIO(archive.read(data)), storage, _view).load()


def _view(storage: Any, offset: int, size: Shape, stride: Shape) -> Tensor:
    """Checked against the storage's length: as_strided itself would read beyond."""
    if not isinstance(storage, Tensor):
        raise ValueError("a tensor without a storage")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.numel():
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(size) > storage.numel():  # strides of 0 would unfold four bytes to any size
        raise ValueError("a tensor is larger than its storage")
    return storage.as_strided(size, stride, offset).clone()


def _from_bytes(raw: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
