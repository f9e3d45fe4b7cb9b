"""What to do after a failure. Pure: error and history in, decision out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heygemd.core.errors import (
    CancelledError,
    DiskFullError,
    HeygemdError,
    InputBusyError,
    OutOfMemoryError,
    ShareAwayError,
)

Action = Literal["retry", "smaller", "pause", "fail"]


@dataclass(frozen=True)
class Decision:
    """`retry`: the same again after `wait_seconds`; `smaller`: with half the batch; `pause`: the whole queue waits
    for the machine and the attempt does not count; `fail`: the item is over."""

    action: Action
    wait_seconds: float = 0.0


def decide(error: HeygemdError, *, attempt: int, max_attempts: int, batch: int) -> Decision:
    """After try number `attempt` (from 1) failed with `error`."""
    if isinstance(error, DiskFullError | ShareAwayError):
        return Decision("pause", 5.0)
    if isinstance(error, InputBusyError):
        return Decision("retry", 5.0)
    if isinstance(error, CancelledError) or not error.retryable:
        return Decision("fail")
    if isinstance(error, OutOfMemoryError) and batch > 1:
        return Decision("smaller", 1.0)  # each rung halves the batch, so this ends by itself
    if attempt >= max_attempts:
        return Decision("fail")
    return Decision("retry", min(30.0, 2.0 ** (attempt - 1)))
