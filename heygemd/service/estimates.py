"""What measured peaks and failures teach the memory model, and telling people about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from heygemd.core.plan import Choice
from heygemd.gpu.calibration import CalibrationStore
from heygemd.service.planning import ItemMemory
from heygemd.work.item import Prepared

_SHORT_FRAMES = 25


class Estimates:
    """Feeds the calibration. `threads`: of the CPU workers. `log` gets the events."""

    def __init__(self, store: CalibrationStore, threads: int, log: Callable[..., None]) -> None:
        self._store = store
        self._threads = threads
        self._log = log

    def learn(
        self, prepared: Prepared, choice: Choice, measured_bytes: int, num_frames: int, context: Mapping[str, Any]
    ) -> None:
        """One segment's measured peak."""
        if num_frames < _SHORT_FRAMES and measured_bytes < choice.predicted_bytes:
            return  # it has not filled its queues: it may raise the estimate, not lower it
        memory = ItemMemory(prepared, self._store.calibration, self._threads)
        load = memory.load(choice.kind, choice.precision, choice.batch)
        formula = memory.formula_bytes(choice.kind, choice.precision, choice.batch)
        correction, telling = self._store.learn(load, formula, measured_bytes)
        if telling:
            self._tell(choice, measured_bytes, f"{load.key} takes {correction.ratio:.2f} of the formula", context)

    def raise_after_oom(
        self, prepared: Prepared, choice: Choice, reserved_bytes: int, context: Mapping[str, Any]
    ) -> None:
        """The segment did not fit into what was reserved for it."""
        memory = ItemMemory(prepared, self._store.calibration, self._threads)
        load = memory.load(choice.kind, choice.precision, choice.batch)
        formula = memory.formula_bytes(choice.kind, choice.precision, choice.batch)
        correction = self._store.raise_after_oom(load, formula, choice.reserved_bytes)
        reason = f"out of memory: {load.key} counts as {correction.ratio:.2f} of the formula now"
        self._tell(choice, reserved_bytes, reason, context)

    def _tell(self, choice: Choice, measured_bytes: int, reason: str, context: Mapping[str, Any]) -> None:
        self._log(
            "memory.corrected",
            **context,
            predicted_bytes=choice.predicted_bytes,
            measured_bytes=measured_bytes,
            batch=choice.batch,
            precision=choice.precision,
            reason=reason,
        )
