"""What to do after a failure. Pure: error and history in, decision out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heygemd.core.errors import (
    CancelledError,
    CannotFitError,
    DiskFullError,
    EncoderUnavailableError,
    HeygemdError,
    InputBusyError,
    OutOfMemoryError,
    ShareAwayError,
    WorkerDiedError,
)

Action = Literal["retry", "smaller", "split", "alone", "software", "pause", "fail"]

_ENCODER_TRIES = 2
_ENCODER_WAIT_SECONDS = 5.0
_DEVICE_WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class Rung:
    """Where a segment stands on the out-of-memory ladder: smaller batch → smaller segment → the whole device alone."""

    batch: int = 1
    can_split: bool = False
    alone: bool = True


@dataclass(frozen=True)
class Decision:
    """`retry`: the same again after `wait_seconds`; `smaller`: with half the batch; `split`: as two segments; `alone`:
    the smallest batch on a device where nothing else runs; `software`: the item without the card's encoder; `pause`:
    the whole queue waits for the machine and the attempt does not count; `fail`: the item is over."""

    action: Action
    wait_seconds: float = 0.0


def decide(error: HeygemdError, *, attempt: int, max_attempts: int, rung: Rung | None = None) -> Decision:
    """After try number `attempt` (from 1) failed with `error`. `rung`: only for renders."""
    if isinstance(error, DiskFullError | ShareAwayError):
        return Decision("pause", 5.0)
    if isinstance(error, InputBusyError):
        return Decision("retry", 5.0)
    if rung is not None and isinstance(error, EncoderUnavailableError):
        # Drivers limit how many encoders run at once: another one may end soon. Without it, it always works.
        again = attempt < _ENCODER_TRIES and error.details.get("device") != "cpu"
        return Decision("retry", _ENCODER_WAIT_SECONDS) if again else Decision("software")
    if isinstance(error, CancelledError | CannotFitError) or not error.retryable:
        return Decision("fail")
    if rung is not None and isinstance(error, OutOfMemoryError):
        # Every rung is taken at most a few times, so the ladder ends by itself, whatever `max_attempts` says.
        return _down(rung)
    if attempt >= max_attempts:
        return Decision("fail")
    if isinstance(error, WorkerDiedError) and error.details.get("device_failed"):
        # A driver's reset takes seconds, and so does it until NVML is read again and says that the card is away.
        return Decision("retry", _DEVICE_WAIT_SECONDS * attempt)
    if rung is not None and not rung.alone and attempt > 1 and was_killed(error):
        # Killed twice: on a CPU that is how the kernel's out-of-memory killer looks. One careful try.
        return Decision("alone", 1.0)
    return Decision("retry", min(30.0, 2.0 ** (attempt - 1)))


def was_killed(error: HeygemdError) -> bool:
    """Ended by SIGKILL, and not by us."""
    return isinstance(error, WorkerDiedError) and error.details.get("signal") == "SIGKILL"


def _down(rung: Rung) -> Decision:
    if rung.batch > 1:
        return Decision("smaller", 1.0)
    if rung.can_split:
        return Decision("split", 1.0)
    if not rung.alone:
        return Decision("alone", 1.0)
    return Decision("fail")
