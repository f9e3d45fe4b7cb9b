"""What kinds of file hold a checkpoint, and how to look into one without torch and without running what it says.

A checkpoint is untrusted input: a pickle is a program. `SafeUnpickler` knows a handful of harmless functions and turns
every other class of a TorchScript archive into an inert `Bag`; any other global is refused. With it `read_shapes` lists
the names and shapes of the tensors, which is all that recognising a network takes, in milliseconds and without numbers.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple

from heygemd.core.errors import CheckpointError

Shape = tuple[int, ...]
Kind = Literal["zip", "torchscript", "safetensors", "pickle"]

MAX_FILE_BYTES = 8 << 30
MAX_HEADER_BYTES = 100 << 20
MAX_DIMENSIONS = 8
MAX_INSTRUCTIONS = 2_000_000  # a network's pickle has some ten thousand

# What torch.load and the readers here raise for files that are damaged, foreign or hostile; found by flipping bits and
# cutting files. torch does not document the kinds, so they are listed one by one.
READ_ERRORS = (
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


def kind_of(path: Path) -> Kind:
    """By the first bytes. Raises CheckpointError for what is no checkpoint, and says what it is instead."""
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
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
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


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except READ_ERRORS as error:
        message = f"{path.name} is truncated or damaged (its zip directory is unreadable)"
        raise CheckpointError(message, path=str(path)) from error
    # torch stores numbers as they are; a compressed entry is foreign and might unfold to any size. Only the code of
    # TorchScript, which is never read, comes compressed.
    read = [entry for entry in entries if not entry.filename.partition("/")[2].startswith("code/")]
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in read):
        raise CheckpointError(f"{path.name} is a compressed zip archive, not a checkpoint", path=str(path))
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "data.pkl" not in names:
        raise CheckpointError(f"{path.name} is a zip archive without data.pkl, not a checkpoint", path=str(path))
    return "torchscript" if "constants.pkl" in names else "zip"


def explain(path: Path, kind: str, error: BaseException) -> CheckpointError:
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


# --- pickles ----------------------------------------------------------------------------------------------------------


class Bag:
    """Stands for any object of a TorchScript program: keeps its attributes, does nothing."""

    def __init__(self, *_args: object) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.attributes = {str(key): value for key, value in state.items()}


def _ordered(*_rest: object) -> OrderedDict[str, Any]:
    return OrderedDict()


def _list(values: object = (), *_rest: object) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else []


def _first(value: object, *_rest: object) -> object:
    return value


def _size(sides: Iterable[Any] = ()) -> tuple[Any, ...]:
    return tuple(sides)


_HARMLESS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("torch.jit._pickle", "build_intlist"): _list,
    ("torch.jit._pickle", "build_doublelist"): _list,
    ("torch.jit._pickle", "build_boollist"): _list,
    ("torch.jit._pickle", "build_tensorlist"): _list,
}


def check_instructions(file: BinaryIO) -> None:
    """Read one pickle without obeying it. Raises ValueError where obeying it could take any amount of memory.

    CPython's unpickler makes room for a memo as large as the highest index: four damaged bytes can mean 64 GiB.
    """
    try:
        for count, (instruction, argument, _place) in enumerate(pickletools.genops(file)):
            if count > MAX_INSTRUCTIONS:
                raise ValueError("a pickle without end")
            if "PUT" in instruction.name and int(argument or 0) > MAX_INSTRUCTIONS:
                raise ValueError("a pickle with an impossible memo")
    except (MemoryError, OverflowError) as error:
        raise ValueError("a pickle with an impossible length") from error


class SafeUnpickler(pickle.Unpickler):
    """`storage(type, key, count)` gives a storage, `tensor(storage, offset, size, stride)` a tensor."""

    def __init__(
        self, file: BinaryIO, storage: Callable[[str, str, int], Any], tensor: Callable[[Any, int, Shape, Shape], Any]
    ) -> None:
        super().__init__(file)
        self._file, self._storage, self._tensor = file, storage, tensor

    def load(self) -> Any:
        """As pickle's, but only after a look at every instruction. Raises ValueError too."""
        start = self._file.tell()
        check_instructions(self._file)
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Bag
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._rebuild
        try:
            return _HARMLESS[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}") from None

    def _rebuild(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: object) -> Any:
        size, stride = tuple(size), tuple(stride)
        if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
            raise ValueError("a tensor of impossible shape")
        if any(not isinstance(number, int) or number < 0 for number in (offset, *size, *stride)):
            raise ValueError("a tensor of negative shape")
        return self._tensor(storage, offset, size, stride)

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] != "storage" or not isinstance(pid[1], str):
            raise ValueError("an unknown storage")
        return self._storage(pid[1], str(pid[2]), int(pid[4]))


def strip_prefix(keys: list[str]) -> dict[str, str]:
    """Each key without the `module.` that DataParallel puts before it, and the key it came from."""
    return {key.removeprefix("module."): key for key in keys}


def named_values(loaded: Any, path: Path) -> dict[str, Any]:
    """The state dict inside, by name: bare, under a usual key, or a TorchScript module. Raises CheckpointError."""
    if isinstance(loaded, Bag):
        return dict(_walk(loaded, "", 0))
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(loaded).__name__}, not a state dict", path=str(path))
    for key in ("state_dict", "model_state_dict", "model", "generator"):
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    return {str(key): value for key, value in loaded.items()}


def _walk(bag: Bag, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > 50:
        raise ValueError("modules within modules without end")
    for name, value in bag.attributes.items():
        if isinstance(value, Bag):
            yield from _walk(value, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name, value


def no_tensors(path: Path, kind: Kind, values: Mapping[str, Any]) -> CheckpointError:
    """The error for a file in which nothing of `values` is a tensor."""
    if kind == "torchscript":
        what = "is a frozen TorchScript archive: its weights have no names"
    elif values:
        what = "holds no state dict, but " + ", ".join(repr(key)[:40] for key in list(values)[:4])
    else:
        what = "holds no tensors"
    return CheckpointError(f"{path.name} {what}", path=str(path))


# --- safetensors: 8 bytes of length, a JSON header, raw numbers -------------------------------------------------------


def safetensors_header(file: BinaryIO) -> dict[str, Any]:
    """The header without its metadata; the file stands at the first number then."""
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError("the header is too long")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return dict(header)


# --- shapes -----------------------------------------------------------------------------------------------------------


class _Sized(NamedTuple):
    shape: Shape


def _sized(_storage: object, _offset: int, size: Shape, _stride: Shape) -> _Sized:
    return _Sized(size)


class _Storages:
    """Adds up the bytes of the storages that a pickle speaks of."""

    WIDTHS: ClassVar = {"Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2}

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def __call__(self, kind: str, key: str, count: int) -> None:
        self._bytes[key] = count * self.WIDTHS.get(kind.removesuffix("Storage"), 1)

    @property
    def total_bytes(self) -> int:
        return sum(self._bytes.values())


def read_shapes(path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors, as they are named in the file. Raises CheckpointError.

    Reads no numbers, but notices when the file is too short to hold them.
    """
    kind = kind_of(path)
    try:
        if kind == "safetensors":
            with path.open("rb") as file:
                header = safetensors_header(file)
                end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
                if end > path.stat().st_size - file.tell():
                    raise ValueError("numbers are missing at the end")
            return {name: tuple(int(side) for side in entry["shape"]) for name, entry in header.items()}
        values = named_values(_load_sized(path, kind), path)
    except CheckpointError:
        raise
    except READ_ERRORS as error:
        raise explain(path, kind, error) from error
    shapes = {name: value.shape for name, value in values.items() if isinstance(value, _Sized)}
    if not shapes:
        raise no_tensors(path, kind, values)
    return shapes


def _load_sized(path: Path, kind: Kind) -> Any:
    storages = _Storages()
    if kind == "pickle":
        with path.open("rb") as file:
            for _ in range(3):  # torch's old format: a magic number, a version and the machine come first
                SafeUnpickler(file, storages, _sized).load()
            loaded = SafeUnpickler(file, storages, _sized).load()
            if storages.total_bytes > path.stat().st_size - file.tell():
                raise ValueError("numbers are missing at the end")
        return loaded
    with zipfile.ZipFile(path) as archive:
        data = next(entry for entry in archive.infolist() if entry.filename.partition("/")[2] == "data.pkl")
        if data.file_size > MAX_HEADER_BYTES:
            raise ValueError("data.pkl is too long")
        return SafeUnpickler(io.BytesIO(archive.read(data)), storages, _sized).load()
