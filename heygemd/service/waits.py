"""What follows when a job's files cannot come in or go out now: it waits, says why, and holds nobody else up."""

from __future__ import annotations

from collections.abc import Mapping

from heygemd.core.errors import DiskFullError, HeygemdError, ShareAwayError
from heygemd.core.retry import decide
from heygemd.service.active import ActiveJob
from heygemd.service.admission import Admission
from heygemd.service.fleet import LogEvent
from heygemd.service.pauses import Pauses
from heygemd.service.pool import Kind

PAUSE_SECONDS = 5.0
_MOST_SECONDS = 300.0


class Waits:
    """Owns nothing. `active`: all jobs in work, by id."""

    def __init__(self, pauses: Pauses, admission: Admission, active: Mapping[str, ActiveJob], log: LogEvent) -> None:
        self._pauses = pauses
        self._admission = admission
        self._active = active
        self._log = log

    def blocked(self, kind: Kind, active: ActiveJob, error: HeygemdError, now: float, attempts: int) -> None:
        """Its inputs could not be copied, or its result not be delivered."""
        if isinstance(error, DiskFullError) and kind == "stage":
            self.no_room(active, error, now)
        elif isinstance(error, DiskFullError | ShareAwayError):
            self._pauses.pause_for(error, PAUSE_SECONDS)
            active.not_before_seconds = now + PAUSE_SECONDS
        elif kind == "stage":
            active.attempts += 1
            decision = decide(error, attempt=active.attempts, max_attempts=attempts)
            active.not_before_seconds = now + decision.wait_seconds
            if decision.action == "fail":
                active.error = error
            elif active.attempts >= attempts:
                self._step_aside(active, error, now)
        else:
            # The result exists; only its way out is blocked. Never give up on it.
            active.attempts += 1
            active.not_before_seconds = now + min(_MOST_SECONDS, PAUSE_SECONDS * 2 ** min(active.attempts, 8))
            self._tell("job.blocked", active, "its result cannot be delivered", error)

    def no_room(self, active: ActiveJob, error: DiskFullError, now: float) -> None:
        """Another job that ends makes room, so it must go on; only where none is at work does the queue wait."""
        active.not_before_seconds = now + PAUSE_SECONDS
        others = any(a is not active and any(item.staged for item in a.items) for a in self._active.values())
        if not others:
            self._pauses.pause(error.message, for_seconds=PAUSE_SECONDS)
        else:
            self._tell("job.waiting", active, "there is no room for its work files", error)

    def _step_aside(self, active: ActiveJob, error: HeygemdError, now: float) -> None:
        """Inputs may stay busy for hours: the next job gets its place, and it tells why it waits."""
        self._admission.release(active.job.id)
        active.not_before_seconds = now + min(_MOST_SECONDS, PAUSE_SECONDS * active.attempts)
        self._tell("job.blocked", active, "its inputs cannot be copied", error)

    def _tell(self, event: str, active: ActiveJob, reason: str, error: HeygemdError) -> None:
        """Once for each cause."""
        if active.waits_for != error.message:
            active.waits_for = error.message
            self._log(event, **active.job.log_context(), reason=f"{reason}: {error.message}", error=error)
