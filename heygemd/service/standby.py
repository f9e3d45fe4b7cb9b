"""Several daemons on one share: one works, the others stand by. From the first look until the share is given up."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from heygemd.core.errors import ConfigError, HeygemdError, LeaseLostError
from heygemd.core.job import Job, JobState
from heygemd.files import write_json
from heygemd.ops import systemd
from heygemd.service.fleet import LogEvent
from heygemd.spool.claims import ClaimBook
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.lease import FOLDER, Keeper, Lease, last_link

_UNFINISHED = frozenset(state for state in JobState if not state.final)
_LOOK_SECONDS = 2.0


class Stop(Protocol):
    """What ends the waiting."""

    reason: str | None


class Ownership:
    """The share is ours: what must be asked, and told, while it is."""

    def __init__(self, lease: Lease, book: ClaimBook) -> None:
        self._lease = lease
        self._keeper = Keeper(lease)
        self.book = book

    def turn(self) -> None:
        """In every round of the loop. Raises LeaseLostError."""
        self._keeper.turn()

    def fence(self) -> None:
        """Before an effect on the share that must happen once. Raises LeaseLostError; may block on the share."""
        self._lease.renew()

    def end(self) -> None:
        self._keeper.stop()
        with contextlib.suppress(HeygemdError):  # the share is away or another's: the others wait their time
            self._lease.release()


@contextlib.contextmanager
def owned(
    layout: Layout, takeover_seconds: float, stop: Stop, feed: Callable[[], object], log: LogEvent
) -> Iterator[Ownership | None]:
    """Wait until the share is ours. None where there is nothing to share with, or where `stop` came first.

    Raises ConfigError where other daemons stand by for each other and this one was not told to.
    """
    if takeover_seconds <= 0:
        last = last_link(layout.root / FOLDER)
        if last is not None and not last.released:
            raise ConfigError(
                f"daemons that stand by for each other serve {layout.root}; the last to work was on {last}",
                remedy="Set service.takeover_seconds here as it is there; or, if that is over for good, delete "
                f"{layout.root / FOLDER}.",
            )
        yield None
        return
    lease = Lease(layout.root, _identity(layout.state), takeover_seconds)
    if not _wait(lease, stop, feed, log):
        yield None
        return
    ownership = Ownership(lease, ClaimBook(layout.root))
    try:
        yield ownership
    finally:
        ownership.end()


class Works(Protocol):
    """A daemon, as far as taking turns goes."""

    def run(self, once: bool) -> int: ...

    def close(self) -> None: ...


def in_turn(
    layout: Layout,
    takeover_seconds: float,
    journal: Journal,
    stop: Stop,
    log: LogEvent,
    make: Callable[[Ownership | None], Works],
    once: bool,
    feed: Callable[[], object],
) -> int:
    """Work while the share is ours, stand by while it is another daemon's; the exit code. `feed`: tells the service
    manager that all is well, while there is nothing but waiting."""
    while True:
        with owned(layout, takeover_seconds, stop, feed, log) as ownership:
            if stop.reason is not None:
                return 0
            try:
                if ownership is not None:
                    adopt(journal, ownership.book, log)
                daemon = make(ownership)
                try:
                    return daemon.run(once)
                finally:
                    daemon.close()
            except LeaseLostError as error:
                log("daemon.gave_up", reason=error.message, error=error)


def adopt(journal: Journal, book: ClaimBook, log: LogEvent) -> None:
    """Bring the journal in step with the claims on the share: they are the truth about what is unfinished.

    What this journal holds and the share does not, another daemon has finished; what the share holds and this journal
    does not, another daemon has left behind.
    """
    claimed = {job.id: job for job in book.open()}
    for job in journal.jobs(_UNFINISHED):
        if job.id not in claimed:
            log("job.handed_over", **job.log_context())
            journal.remove(job.id)
    for job in claimed.values():
        known = journal.get(job.id)
        if known is not None and known.id == job.id:
            if known.state.final:
                book.release(known)  # we were ended before we could
            continue
        take_in(journal, job)
        log("job.adopted", **job.log_context(), folder=job.folder)


def take_in(journal: Journal, job: Job) -> Job | None:
    """A job that another daemon has claimed. What it did to the job's work files is on its own disk: from the start."""
    namesake = journal.get(job.name)
    if namesake is not None and namesake.id != job.id and namesake.state.final:
        journal.remove(namesake.id)  # only its history goes: the name on the share is the other one's now
    fresh = job.evolve(state=JobState.QUEUED, started_seconds=None)
    return next(iter(journal.add_all([fresh])), None)


def _wait(lease: Lease, stop: Stop, feed: Callable[[], object], log: LogEvent) -> bool:
    told: str | None = None
    trouble: str | None = None
    while stop.reason is None:
        try:
            if lease.attempt():
                if told is not None:
                    log("daemon.took_over", reason=f"{told} is silent or has let go")
                return True
        except HeygemdError as error:
            if isinstance(error, LeaseLostError):
                raise
            if error.message != trouble:
                trouble = error.message
                log("daemon.degraded", reason=trouble, error=error)
        holder = str(lease.holder) if lease.holder is not None else None
        if holder is not None and holder != told:
            told = holder
            log("daemon.standby", reason=f"{holder} works")
            systemd.ready(f"standing by for {holder}")
        feed()
        time.sleep(min(_LOOK_SECONDS, lease.seconds / 8))
    return False


def _identity(state: Path) -> str:
    """This state folder's name among the daemons of a share; made once."""
    file = state / "owner.json"
    try:
        return str(json.loads(file.read_text())["owner"])
    except FileNotFoundError:
        owner = secrets.token_hex(16)
        write_json(file, {"owner": owner})
        return owner
    except (ValueError, KeyError, TypeError):
        raise HeygemdError(f"{file} is damaged", remedy="Delete it and start again.", path=str(file)) from None
