"""Tensors out of a checkpoint file, without running anything that the file says.

A checkpoint is untrusted input. Ordinary ones go through torch's own restricted unpickler (`weights_only=True`).
TorchScript archives are programs: `torch.jit.load` would compile the file's code, and `weights_only` refuses them.
Only their numbers are wanted, so `_read_torchscript` walks the archive's data with an unpickler that knows a few
harmless functions and turns every class of the program into an inert bag of attributes. Safetensors hold nothing but
numbers.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heygemd.core.errors import CheckpointError

MAX_FILE_BYTES = 8 << 30
MAX_TENSORS = 100_000

# What torch.load and the readers below raise for files that are damaged, foreign or hostile; found by flipping bits and
# cutting files. torch says nothing of the kinds, so they are listed one by one.
_READ_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,  # torch: damaged zip, unknown storage; NotImplementedError and RecursionError are among its children
    ValueError,  # UnicodeDecodeError and json.JSONDecodeError are among its children
    TypeError,
    LookupError,  # KeyError, IndexError
    AttributeError,
    AssertionError,
    EOFError,
    ArithmeticError,  # OverflowError
    ImportError,
    MemoryError,
    OSError,
)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by name, on the CPU, as they are named there. Raises CheckpointError."""
    kind = _kind(path)
    try:
        if kind == "torchscript":
            state = _read_torchscript(path)
        elif kind == "safetensors":
            state = _read_safetensors(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of what a damaged file says before it fails on it
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
            state = _unwrap(loaded, path)
    except CheckpointError:
        raise
    except _READ_ERRORS as error:
        raise _explain(path, kind, error) from error
    if not state:
        raise CheckpointError(f"{path.name} holds no tensors", path=str(path))
    if len(state) > MAX_TENSORS:
        raise CheckpointError(f"{path.name} holds {len(state)} tensors: that is no checkpoint", path=str(path))
    return state


def _kind(path: Path) -> str:
    """zip, torchscript, safetensors or pickle, by the first bytes. Raises CheckpointError for what is none of these."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}", path=str(path)) from error
    if size == 0:
        raise CheckpointError(f"{path.name} is empty", path=str(path))
    if size > MAX_FILE_BYTES:
        raise CheckpointError(f"{path.name} has {size} bytes: too large for a checkpoint", path=str(path))
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    if head[:1] == b"\x80" and head[1] <= 5:
        return "pickle"
    text = head.lstrip()[:15].lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "a web page: the download gave an error or a confirmation page"
    elif text.startswith(b"version https:"):
        what = "a Git LFS pointer, not the file itself"
    elif all(9 <= byte < 127 for byte in head):
        what = "a text file"
    else:
        what = f"not a checkpoint (it begins with {head[:8].hex(' ')})"
    raise CheckpointError(f"{path.name} is {what}", path=str(path))


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except _READ_ERRORS as error:
        raise CheckpointError(
            f"{path.name} is truncated or damaged (its zip directory is unreadable)", path=str(path)
        ) from error
    # torch stores numbers as they are; a compressed entry is foreign and might unfold to any size. Only the code of
    # TorchScript, which is never read, comes compressed.
    read = [entry for entry in entries if not entry.filename.partition("/")[2].startswith("code/")]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in read):
        raise CheckpointError(f"{path.name} is a compressed zip archive, not a checkpoint", path=str(path))
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "data.pkl" not in names:
        raise CheckpointError(f"{path.name} is a zip archive without data.pkl, not a checkpoint", path=str(path))
    return "torchscript" if "constants.pkl" in names else "zip"


def _explain(path: Path, kind: str, error: BaseException) -> CheckpointError:
    """One line for whatever reading raised; torch's own texts run over many lines and advise to load unsafely."""
    text = str(error)
    if isinstance(error, MemoryError):
        what = "claims more tensors than fit in memory: damaged, or made to do harm"
    elif "unsupported global" in text.lower():
        named = text.partition("GLOBAL ")[2].split(" ")[0].strip(".,")
        what = f"holds code or objects besides numbers ({named[:80]}): refused"
    elif "Unsupported operand" in text:
        what = "is damaged, or holds code or objects besides numbers: refused"
    else:
        text = text.partition("WeightsUnpickler error:")[2] or text
        first = text.strip().splitlines()[0][:120] if text.strip() else type(error).__name__
        what = f"is truncated, damaged or not a checkpoint ({kind}: {first})"
    return CheckpointError(f"{path.name} {what}", path=str(path))


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside: bare, or under a usual name."""
    if isinstance(loaded, Mapping):
        for key in ("state_dict", "model_state_dict", "model", "generator"):
            if isinstance(loaded.get(key), Mapping):
                loaded = loaded[key]
                break
    if isinstance(loaded, Tensor) or not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(loaded).__name__}, not a state dict", path=str(path))
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not state and loaded:
        sample = ", ".join(repr(key)[:40] for key in list(loaded)[:4])
        raise CheckpointError(f"{path.name} holds no state dict, but {sample}", path=str(path))
    return state


# --- safetensors: 8 bytes of length, a JSON header, raw numbers -------------------------------------------------------

_SAFE_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_SAFE_TYPES |= {"I64": torch.int64, "I32": torch.int32}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100 << 20:
            raise ValueError("the header is too long")
        header = json.loads(file.read(length))
        data = file.read()
    state: dict[str, Tensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = _SAFE_TYPES[entry["dtype"]]
        count = math.prod(entry["shape"])
        if not 0 <= begin <= end <= len(data) or end - begin != count * dtype.itemsize:
            raise ValueError(f"{name} lies outside the file")
        raw = bytearray(data[begin:end])
        tensor = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        state[name] = tensor.reshape(entry["shape"])
    return state


# --- TorchScript: a program with its numbers --------------------------------------------------------------------------

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Bag:
    """Stands for any object of the program: keeps its attributes, does nothing."""

    def __init__(self, *_args: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = {str(key): value for key, value in state.items()}


def _list(values: object = (), *_rest: object) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else []


def _first(value: object, *_rest: object) -> object:
    return value


def _ordered(*_rest: object) -> OrderedDict[str, Any]:
    return OrderedDict()


def _tensor(storage: object, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_rest: object) -> Tensor:
    """A view into a storage, checked against its length: as_strided itself would read beyond."""
    if not isinstance(storage, Tensor) or len(size) != len(stride) or len(size) > 8:
        raise ValueError("a tensor without a storage")
    numbers = (offset, *size, *stride)
    if any(not isinstance(number, int) or number < 0 for number in numbers):
        raise ValueError("a tensor with a negative size")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.numel():
        raise ValueError("a tensor reaches beyond its storage")
    return storage.as_strided(size, stride, offset).clone()


_SAFE: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("torch.jit._pickle", "build_intlist"): _list,
    ("torch.jit._pickle", "build_doublelist"): _list,
    ("torch.jit._pickle", "build_boollist"): _list,
    ("torch.jit._pickle", "build_tensorlist"): _list,
}


class _ScriptReader(pickle.Unpickler):
    """Knows four functions and the names of storages; every other global is refused, the program's classes are bags."""

    _SAFE: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("collections", "OrderedDict"): _ordered,
        ("torch._utils", "_rebuild_parameter"): _first,
        ("torch.jit._pickle", "restore_type_tag"): _first,
    } | {("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor")}

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{prefix}/data.pkl")))
        self._archive, self._prefix = archive, prefix
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Bag
        if module == "torch" and name in _STORAGES:
            return name
        try:
            return _SAFE[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Tensor:
        kind, storage, key, _device, count = pid
        if kind != "storage" or storage not in _STORAGES:
            raise ValueError("an unknown storage")
        if str(key) not in self._storages:
            dtype = _STORAGES[storage]
            raw = bytearray(self._archive.read(f"{self._prefix}/data/{key}"))
            if len(raw) < int(count) * dtype.itemsize:
                raise ValueError("a storage is cut short")
            self._storages[str(key)] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return self._storages[str(key)]


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        data = next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
        root = _ScriptReader(archive, data.partition("/")[0]).load()
    if not isinstance(root, _Bag):
        raise CheckpointError(f"{path.name} is a TorchScript archive without a module", path=str(path))
    state = dict(_walk(root, "", 0))
    if not state:
        raise CheckpointError(f"{path.name} is a frozen TorchScript archive: its weights have no names", path=str(path))
    return state


def _walk(bag: _Bag, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > 50:
        raise ValueError("modules within modules without end")
    for name, value in bag.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Bag):
            yield from _walk(value, f"{prefix}{name}.", depth + 1)
