"""Peak memory of this process on its GPU: torch's allocator, and what lies outside of it. For workers.

The CUDA context and cuDNN's workspaces are not in the allocator's numbers; NVML counts them, where it may tell
processes apart. torch is used only where the engine has loaded it already.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heygemd.gpu.devices import CardSnapshot, cards

OUTSIDE_BYTES = 600 * 2**20
"""Context, kernels, workspaces, where neither NVML nor a calibration says. Generous: 300 to 550 MiB on most cards."""


@dataclass(frozen=True)
class GpuPeak:
    """`allocated_bytes`, `cached_bytes`: the allocator's peaks, of tensors and of what it keeps for them.
    `outside_bytes`: what the process holds beside the allocator; `outside_known`: whether that was measured.
    `device_bytes`: what the whole card has more in use than before, None where that was not asked."""

    allocated_bytes: int
    cached_bytes: int
    outside_bytes: int
    outside_known: bool
    device_bytes: int | None = None

    @property
    def total_bytes(self) -> int:
        return self.cached_bytes + self.outside_bytes


def reset_peak(torch: Any = None, *, release: bool = False) -> None:
    """Let the allocator's peak start again. `release`: give back first what it only keeps. Nothing happens before torch
    has opened a GPU."""
    cuda = _cuda(torch)
    if cuda is not None:
        if release:
            cuda.empty_cache()
        cuda.reset_peak_memory_stats()


def used_bytes(found: Sequence[CardSnapshot] | None = None) -> int | None:
    """In use on the visible cards, by whomever; None where there is none."""
    here = [card for card in (cards() if found is None else found) if card.problem is None]
    return sum(card.total_bytes - card.free_bytes for card in here) if here else None


def gpu_peak(
    torch: Any = None, found: Sequence[CardSnapshot] | None = None, before_bytes: int | None = None
) -> GpuPeak | None:
    """The process's peak on its GPU; None where no GPU was opened. `before_bytes`: what was in use on the card before
    this process opened it, if nobody else has come or gone since; it tells what lies outside of the allocator where
    NVML does not tell processes apart (in containers it often does not)."""
    cuda = _cuda(torch)
    if cuda is None:
        return None
    seen = cards() if found is None else found
    kept, used = int(cuda.memory_reserved()), used_bytes(seen)
    own = sum(card.processes.get(os.getpid(), 0) for card in seen)
    more = None if before_bytes is None or used is None else max(0, used - before_bytes)
    outside: int | None = None
    if own:
        outside = max(0, own - kept)
    elif more is not None and more > kept:
        outside = more - kept
    return GpuPeak(
        int(cuda.max_memory_allocated()),
        int(cuda.max_memory_reserved()),
        OUTSIDE_BYTES if outside is None else outside,
        outside is not None,
        more,
    )


def peak_bytes(
    torch: Any = None, found: Sequence[CardSnapshot] | None = None, outside_bytes: int | None = None
) -> int | None:
    """Peak of the allocator plus what this process holds outside of it now; None where no GPU was opened.
    `outside_bytes`: what a calibration has found for the latter, for where NVML does not tell."""
    peak = gpu_peak(torch, found)
    if peak is None:
        return None
    if outside_bytes and not peak.outside_known:
        return peak.cached_bytes + outside_bytes
    return peak.total_bytes


def _cuda(torch: Any) -> Any:
    module = sys.modules.get("torch") if torch is None else torch
    return module.cuda if module is not None and module.cuda.is_initialized() else None
