"""Peak memory of this process on its GPU: torch's allocator, and what lies outside of it. For workers.

The CUDA context and cuDNN's workspaces are not in the allocator's numbers; NVML counts them, where it may tell
processes apart. torch is used only where the engine has loaded it already.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from heygemd.gpu.devices import CardSnapshot, cards

OUTSIDE_BYTES = 600 * 2**20
"""Context, kernels and workspaces, where NVML does not say. Generous: about 300 to 550 MiB on most cards."""


def reset_peak(torch: Any = None) -> None:
    """Let the allocator's peak start again. Nothing happens before torch has opened a GPU."""
    cuda = _cuda(torch)
    if cuda is not None:
        cuda.reset_peak_memory_stats()


def peak_bytes(torch: Any = None, found: Sequence[CardSnapshot] | None = None) -> int | None:
    """Peak of the allocator plus what this process holds outside of it now; None where no GPU was opened."""
    cuda = _cuda(torch)
    if cuda is None:
        return None
    reserved, most = int(cuda.memory_reserved()), int(cuda.max_memory_reserved())
    own = sum(card.processes.get(os.getpid(), 0) for card in (cards() if found is None else found))
    return most + (max(0, own - reserved) if own else OUTSIDE_BYTES)


def _cuda(torch: Any) -> Any:
    module = sys.modules.get("torch") if torch is None else torch
    return module.cuda if module is not None and module.cuda.is_initialized() else None
