"""The Wav2Lip family. Importing this package imports no torch: the daemon asks the engine for its memory model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from heygemd.engines.wav2lip.engine import Wav2LipEngine

if TYPE_CHECKING:
    from heygemd.engines.wav2lip.network import Generator


__all__ = ["Wav2LipEngine", "load_generator"]


def load_generator(path: str | Path, device: str = "cpu") -> Generator:
    """The network of a checkpoint in eval mode; see `loading.load_generator`. Raises CheckpointError."""
    from heygemd.engines.wav2lip import loading

    return loading.load_generator(path, device)
