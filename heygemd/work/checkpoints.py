"""The operator's checkpoints: which files are known, which are here, and which of them `auto` takes.

A file is identified by its hash, else by the names and shapes in it. Nothing here imports torch: shapes are read with
`weights.container`, and the one step that needs the numbers themselves runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import heygemd
from heygemd.core.errors import CheckpointError, ConfigError, HeygemdError
from heygemd.engines.wav2lip.variants import VARIANTS, recognise, variant_named
from heygemd.faces.landmarks_network import TITLE as LANDMARKS_TITLE
from heygemd.faces.landmarks_network import VARIANT as LANDMARKS_VARIANT
from heygemd.faces.landmarks_network import unlike_network
from heygemd.files import copy_hashed, explained, publish_file, sha256_of, temp_name, write_json
from heygemd.weights.container import read_shapes, strip_prefix

RECORD = ".verified.json"
"""In the checkpoint folder: what was verified when, so that 400 MB are not hashed for every job."""
SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar", ".zip")
"""Landmarks are published as .pth.tar, which is no tar archive, and as .zip."""
IDENTIFY_TIMEOUT_SECONDS = 600
Progress = Callable[[int, int | None], None]
"""Bytes done, bytes in all (None: unknown)."""


@dataclass(frozen=True)
class KnownFile:
    """One entry of checkpoints/registry.toml. `kind`: generator, detector or landmarks."""

    name: str
    kind: str
    variant: str
    title: str
    sha256: str
    licence: str
    source: str
    num_bytes: int | None = None
    url: str | None = None


@dataclass(frozen=True)
class Registry:
    """All known files."""

    files: tuple[KnownFile, ...]

    def named(self, name: str) -> KnownFile:
        """Raises CheckpointError."""
        for file in self.files:
            if file.name == name:
                return file
        known = ", ".join(file.name for file in self.files)
        raise CheckpointError(f"no checkpoint is named {name!r}; known: {known}", remedy="Choose one of these.")

    def hashed(self, sha256: str) -> KnownFile | None:
        return next((file for file in self.files if file.sha256 == sha256), None)


@dataclass(frozen=True)
class Verification:
    """What a file is. `ok`: fit for use. `known`: its entry when its hash is in the registry. `reason`: one line."""

    path: Path
    ok: bool
    reason: str
    kind: str = ""
    variant: str = ""
    sha256: str = ""
    known: KnownFile | None = None


@dataclass(frozen=True)
class Listed:
    """One line of `checkpoints list`: an entry, the files in the folder that are it, or a file that is no entry."""

    known: KnownFile | None
    found: tuple[Verification, ...]


@dataclass(frozen=True)
class BestCheckpoint:
    """What `auto` goes by. `path` is None where there is no usable generator; `reason` says why, either way."""

    ok: bool
    reason: str
    path: Path | None = None
    variant: str = ""


def registry_path() -> Path:
    """checkpoints/registry.toml of the checkout, or where an installed wheel puts it. Raises ConfigError."""
    places = (
        Path(heygemd.__file__).resolve().parents[1] / "checkpoints" / "registry.toml",
        Path(sys.prefix) / "share" / "heygemd" / "registry.toml",
    )
    for place in places:
        if place.is_file():
            return place
    raise ConfigError("checkpoints/registry.toml is missing", remedy="Install heygemd again.")


@cache
def load_registry(path: Path | None = None) -> Registry:
    """The registry. Raises ConfigError when the file does not say what it must."""
    path = path or registry_path()
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["file"]
        return Registry(tuple(KnownFile(**entry) for entry in entries))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path.name} cannot be used: {error}", path=str(path)) from error


def verify(path: Path, registry: Registry | None = None) -> Verification:
    """Size, hash and shapes of one file. Never raises for what the file holds; OSError becomes a HeygemdError."""
    registry = registry or load_registry()
    if not path.is_file():
        return Verification(path, False, f"{path.name} is not a file")
    with explained(path.name):
        sha256 = sha256_of(path)
    known = registry.hashed(sha256)
    if known is not None:
        reason = f"{path.name} is {known.name} ({known.title}), verified by its sha256"
        return Verification(path, True, reason, known.kind, known.variant, sha256, known)
    published = next((file for file in registry.files if file.name == path.name), None)
    try:
        shapes = read_shapes(path)
    except CheckpointError as error:
        size = path.stat().st_size
        short = published is not None and published.num_bytes is not None and size != published.num_bytes
        told = f"; {published.name} has {published.num_bytes} bytes, this file {size}" if short and published else ""
        return Verification(path, False, str(error) + told, sha256=sha256)
    shapes = {name: shapes[key] for name, key in strip_prefix(list(shapes)).items()}
    told = f", though not the published {published.name}" if published is not None else ""
    told += "; its sha256 is not in the registry"
    if not unlike_network(shapes):
        reason = f"{path.name} is the {LANDMARKS_TITLE} by its shapes{told}"
        return Verification(path, True, reason, "landmarks", LANDMARKS_VARIANT, sha256)
    found = recognise(shapes)
    if isinstance(found, str):
        return Verification(path, False, f"{path.name} is no generator heygemd knows: {found}", sha256=sha256)
    reason = f"{path.name} is a {found.title} by its shapes{told}"
    return Verification(path, True, reason, "generator", found.name, sha256)


def candidates(folder: Path) -> list[Path]:
    """Files in the folder that may be checkpoints, by name. A missing folder has none."""
    if not folder.is_dir():
        return []
    with explained(str(folder)):
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def verify_folder(folder: Path, registry: Registry | None = None, *, afresh: bool = False) -> list[Verification]:
    """`verify` for every candidate; unchanged files are taken from the record unless `afresh`."""
    registry = registry or load_registry()
    record = {} if afresh else _read_record(folder)
    results: list[Verification] = []
    fresh: dict[str, dict[str, object]] = {}
    for path in candidates(folder):
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = record.get(path.name)
        known = None if entry is None else registry.hashed(str(entry.get("sha256")))
        if entry is not None and entry.get("stamp") == stamp and entry.get("known") == (known is not None):
            result = _recorded(path, entry, registry)
        else:
            result = verify(path, registry)
        results.append(result)
        fresh[path.name] = {
            "stamp": stamp,
            "ok": result.ok,
            "reason": result.reason,
            "kind": result.kind,
            "variant": result.variant,
            "sha256": result.sha256,
            "known": result.known is not None,
        }
    if fresh != record:
        _write_record(folder, fresh)
    return results


def list_checkpoints(folder: Path, registry: Registry | None = None) -> list[Listed]:
    """Every entry of the registry with what is there of it, then the files that are no entry."""
    registry = registry or load_registry()
    results = verify_folder(folder, registry)
    lines = [Listed(entry, tuple(r for r in results if r.known == entry)) for entry in registry.files]
    return lines + [Listed(None, (result,)) for result in results if result.known is None]


def best_checkpoint(folder: Path, registry: Registry | None = None) -> BestCheckpoint:
    """The generator that `auto` takes: known files before others, then larger crops, then by name."""
    registry = registry or load_registry()
    results = verify_folder(folder, registry)
    usable = [result for result in results if result.ok and result.kind == "generator"]
    if not usable:
        refused = [result.reason for result in results if not result.ok]
        told = f" ({refused[0]})" if refused else ""
        return BestCheckpoint(False, f"no Wav2Lip checkpoint lies in {folder}{told}")
    best = min(usable, key=lambda result: _rank(result, registry))
    others = f"; {len(usable) - 1} other(s) there" if len(usable) > 1 else ""
    return BestCheckpoint(True, best.reason + others, best.path, best.variant)


def _rank(result: Verification, registry: Registry) -> tuple[bool, int, int, int, str]:
    """Small is good. Of two known files with the same network, the one that the registry names first."""
    variant = variant_named(result.variant)
    place = registry.files.index(result.known) if result.known is not None else 0
    return result.known is None, -variant.size, -variant.parameters, place, result.path.name


def import_file(path: Path, folder: Path, *, progress: Progress | None = None) -> Verification:
    """Copy a file that the operator has into the folder, under its published name when its hash is known.

    A file that only its shapes identify is read in full first, in a process of its own. Raises CheckpointError when the
    file is no checkpoint heygemd can use.
    """
    found = verify(path)
    if not found.ok:
        raise CheckpointError(found.reason, path=str(path))
    if found.known is None:
        _read_in_full(path, found.kind)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (found.known.name if found.known is not None else path.name)
    if target.exists():
        if sha256_of(target) == found.sha256:
            return verify(target)
        raise CheckpointError(f"{target.name} is in {folder} already, and differs", remedy="Remove or rename it first.")
    total = path.stat().st_size
    temp = temp_name(target)
    with explained(str(folder)), path.open("rb") as source:
        digest = copy_hashed(source, temp, on_bytes=None if progress is None else lambda done: progress(done, total))
        if digest != found.sha256:
            temp.unlink()
            raise CheckpointError(f"{path.name} changed while it was copied", path=str(path))
        publish_file(temp, target)
    return verify(target)


def _read_in_full(path: Path, kind: str) -> None:
    """Load the network once, elsewhere. Raises CheckpointError."""
    module = "heygemd.faces.landmarks_process" if kind == "landmarks" else "heygemd.engines.wav2lip.identify"
    command = [sys.executable, "-P", "-m", module, str(path)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=IDENTIFY_TIMEOUT_SECONDS,
            check=False,
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise CheckpointError(f"{path.name} could not be read to its end", path=str(path)) from error
    if not answer["ok"]:
        raise HeygemdError.from_dict(answer["error"])


def _read_record(folder: Path) -> dict[str, dict[str, object]]:
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # no record, or a damaged one: everything is verified again
    return data if isinstance(data, dict) else {}


def _write_record(folder: Path, record: dict[str, dict[str, object]]) -> None:
    try:
        write_json(folder / RECORD, record, durable=False)
    except OSError:
        return  # a folder that may only be read: verified again next time


def _recorded(path: Path, entry: dict[str, object], registry: Registry) -> Verification:
    sha256, variant = str(entry.get("sha256", "")), str(entry.get("variant", ""))
    known = registry.hashed(sha256)
    kind = str(entry.get("kind", ""))
    ok = entry.get("ok") is True and (kind != "generator" or variant in {known.name for known in VARIANTS})
    return Verification(path, ok, str(entry.get("reason", "")), kind, variant, sha256, known)
