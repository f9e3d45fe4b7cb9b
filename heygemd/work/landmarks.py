"""Whether landmarks are to be had here: the operator's file for them, found by what is in it. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from heygemd.core.errors import CheckpointError
from heygemd.faces.landmarks_network import require_network
from heygemd.work.checkpoints import candidates, load_registry

LANDMARKS_BYTES = 560 * 2**20
"""RAM of the process that finds them, beside the one that prepares: torch and face-alignment 330 MiB, the network 95,
one picture on its way through it 75. Measured with weights of the true size."""
OFF = "off"


def find_landmarks(mode: str, file: Path | None, checkpoint_dir: Path) -> Path | None:
    """The network's file, or None. `mode`: as in `engines.landmarks`; `file`: the one that the operator names.

    Else the file of the registry's name in `checkpoint_dir`, else any there that holds the network. Raises
    CheckpointError where a file that is named, here or in the registry, is not what it should be.
    """
    if mode == OFF:
        return None
    published = [checkpoint_dir / entry.name for entry in load_registry().files if entry.kind == "landmarks"]
    named = file if file is not None else next((path for path in published if path.is_file()), None)
    if named is not None:
        wrong = _wrong_with(named)
        if wrong is not None:
            raise CheckpointError(
                wrong, remedy="Get the file again, remove it, or set engines.landmarks = 'off'.", path=str(named)
            )
        return named
    return next((path for path in candidates(checkpoint_dir) if _wrong_with(path) is None), None)


def why_none(mode: str, checkpoint_dir: Path) -> str:
    """In words, where `find_landmarks` gives None."""
    return "engines.landmarks is off" if mode == OFF else f"no weights for landmarks lie in {checkpoint_dir.name}"


def _wrong_with(path: Path) -> str | None:
    try:
        require_network(path)
    except CheckpointError as error:
        return error.message
    return None
