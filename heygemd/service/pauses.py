"""Why nothing new starts: reasons that stand side by side, each until somebody or its time lets it go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from heygemd.core.errors import DiskFullError, HeygemdError, ShareAwayError
from heygemd.service.fleet import LogEvent

Cause = Literal["operator", "file", "disk", "share", "input"]
"""Of a pause, in one word."""


class Pauses:
    """Of the queue. A disk that has room again does not end the pause that somebody asked for."""

    def __init__(self, log: LogEvent, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._causes: dict[str, Cause] = {}  # by reason
        self._until: dict[str, float] = {}  # reason → when it is looked at again

    def pause(self, reason: str, *, cause: Cause = "operator", for_seconds: float | None = None) -> None:
        """Start nothing new. With `for_seconds` it goes on by itself to see whether the cause has gone."""
        if reason not in self._until:
            self._causes[reason] = cause
            self._log("queue.paused", reason=reason)
        self._until[reason] = float("inf") if for_seconds is None else self._clock() + for_seconds

    def pause_for(self, error: HeygemdError, seconds: float) -> None:
        """The machine refuses: start nothing new, and see again after a while."""
        cause: Cause = "share" if isinstance(error, ShareAwayError) else "input"
        self.pause(error.message, cause="disk" if isinstance(error, DiskFullError) else cause, for_seconds=seconds)

    def resume(self, reason: str | None = None) -> None:
        """Let one reason go, or all of them."""
        for gone in [known for known in self._until if reason in (None, known)]:
            del self._until[gone], self._causes[gone]
            self._log("queue.resumed", reason=gone)

    def look_again(self, now: float) -> None:
        """Let those go whose time has come."""
        for reason in [known for known, until in self._until.items() if now >= until]:
            self.resume(reason)

    @property
    def reason(self) -> str | None:
        """Of several the one that lasts longest."""
        return max(self._until, key=lambda reason: self._until[reason], default=None)

    @property
    def causes(self) -> frozenset[Cause]:
        """Of all pauses that stand."""
        return frozenset(self._causes.values())
