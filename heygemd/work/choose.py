"""Which engine renders an item, and why: the receipt says both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.errors import EngineUnavailableError
from heygemd.core.options import Options
from heygemd.engines.base import LipSyncEngine, engine_names, load_engine
from heygemd.work.checkpoints import best_checkpoint

_SAMPLE_BYTES = 1 << 20
EMBEDDED = "rewrite"
"""The engine that needs nothing but the installed packages."""


@dataclass(frozen=True)
class EngineChoice:
    engine: LipSyncEngine
    checkpoint: Path | None
    reason: str


def choose_engine(wanted: str, default: str, checkpoint_dir: Path, checkpoint: Path | None) -> EngineChoice:
    """`wanted`: the job's word, `default`: the configuration's, used where the job says auto.

    `checkpoint`: a file that the user named; it is used as it is. Raises EngineUnavailableError.
    """
    name = wanted if wanted != "auto" else default
    if name != "auto":
        engine = load_engine(name)
        said = "the job asks for it" if wanted != "auto" else "the configuration asks for it"
        if engine.needs_checkpoint and checkpoint is None:
            found = best_checkpoint(checkpoint_dir)
            checkpoint = found.path if found.ok else None
            said += f"; {found.reason}"
        return _checked(engine, checkpoint if engine.needs_checkpoint else None, said)
    if checkpoint is not None:
        return _checked(load_engine("wav2lip"), checkpoint, f"checkpoint {checkpoint.name} was given")
    found = best_checkpoint(checkpoint_dir)
    if found.ok and "wav2lip" in engine_names():
        engine = load_engine("wav2lip")
        if engine.availability(found.path).ok:
            return EngineChoice(engine, found.path, found.reason)
    return _checked(load_engine(EMBEDDED), None, found.reason)


def device_kinds_of(engine: LipSyncEngine, kinds: tuple[str, ...], cpu_only: Collection[str]) -> tuple[str, ...]:
    """Of the device kinds that are offered, those that the engine renders on; the CPU where it is kept to that.

    `cpu_only`: as in the settings."""
    return ("cpu",) if engine.name in cpu_only else kinds


def precisions_of(engine: LipSyncEngine, kind: str, options: Options, wanted: str) -> tuple[str, ...]:
    """What devices of that kind may compute in, best first. `wanted`: as in the settings; it holds where the engine has
    a choice and that is among it."""
    found = engine.precisions(kind, options)
    return (wanted,) if wanted in found else found


def best_batch_of(engine: LipSyncEngine) -> dict[str, int]:
    """By device kind, the batch beyond which only memory grows, where the engine knows one."""
    return dict(getattr(engine, "best_batch", {}))


def checkpoint_id(path: Path) -> str:
    """Eight characters that tell a file from others of its kind, for what is measured of it: from its length, its
    beginning and its end, because reading all of it would take as long as loading it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for start in (0, max(0, size - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:8]


def _checked(engine: LipSyncEngine, checkpoint: Path | None, reason: str) -> EngineChoice:
    state = engine.availability(checkpoint)
    if not state.ok:
        raise EngineUnavailableError(
            f"engine {engine.name} cannot run here: {state.reason}",
            remedy=state.remedy or None,
            case="unavailable",
            engine=engine.name,
        )
    return EngineChoice(engine, checkpoint, reason)
