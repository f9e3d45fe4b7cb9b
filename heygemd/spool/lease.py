"""Which of several daemons owns the share: a chain of numbered files, each made by whoever owns the share then.

A link of the chain is created exclusively (link(2), which the server decides, whatever a client has cached), so of all
that want to make the next link exactly one does. The owner makes one every quarter of `seconds`: that is its heartbeat.
Who has seen the same last link for `seconds`, by its own clock, may make the next one and is the owner then. No clock
is compared with another machine's. An owner that was paused cannot go on: the link that it would make next is there
already. It learns so in `renew`, which is called right before every effect on the share that must not happen twice.

`spool.lock` is the other half: one process for each state folder. It makes sure that a chain that ends with our own
name belongs to a process that is gone, so a restarted daemon need not wait.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import LeaseLostError, ShareAwayError
from heygemd.failpoints import failpoint
from heygemd.files import explained, fsync_directory, rename_noreplace, temp_name

FOLDER = ".heygemd-owner"
_KEPT_LINKS = 100
"""Older ones go. A listing that a network client has cached for a minute still shows links that exist."""
_PREFIX = "link-"


@dataclass(frozen=True)
class Link:
    """One link of the chain. `released`: its maker has let go in order."""

    number: int
    owner: str
    host: str
    pid: int
    released: bool = False

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


def boot_clock() -> float:
    """Seconds that go on while the machine sleeps: a laptop's lid must not lengthen a lease."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """See the module. All methods may block on the share; any thread may call them."""

    def __init__(
        self,
        root: Path,
        owner: str,
        seconds: float,
        *,
        host: str | None = None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.seconds = seconds
        self._folder = root / FOLDER
        self._owner = owner
        self._host = platform.node() if host is None else host
        self._clock = clock
        self._seen: Link | None = None
        self._seen_at = clock()
        self._mine: int | None = None
        self._guard = threading.Lock()
        self.lost: str | None = None  # why it is not ours any more

    @property
    def holder(self) -> Link | None:
        """The last link that `attempt` saw."""
        return self._seen

    def attempt(self) -> bool:
        """Look once, and take the share where it is free. Raises ShareAwayError and its like."""
        try:
            with explained("the owner's folder on the share"):
                self._folder.mkdir(exist_ok=True)
                last = last_link(self._folder)
        except BaseException:
            self._seen_at = self._clock()  # while we cannot look, nobody is silent
            raise
        if last != self._seen:
            self._seen, self._seen_at = last, self._clock()
        if last is not None and not self._is_free(last):
            return False
        with self._guard, explained("the owner's folder on the share"):
            self.lost = None
            return self._make((0 if last is None else last.number) + 1)

    def renew(self) -> None:
        """The next link: proof that the share is ours at this moment. Also right before every effect that must happen
        once. Raises LeaseLostError, and ShareAwayError where the share cannot be reached."""
        with self._guard:
            if self.lost is not None or self._mine is None:
                raise LeaseLostError(f"this daemon does not own the share: {self.lost or 'it has let go'}")
            with explained("the owner's folder on the share"):
                made = self._make(self._mine + 1)
                last = None if made else last_link(self._folder)
            if not made:
                who = "its folder was removed" if last is None else f"another daemon has taken over ({last})"
                self.lost = who
                raise LeaseLostError(who)

    def release(self) -> None:
        """Let go, so that nobody has to wait."""
        with self._guard:
            if self._mine is not None and self.lost is None:
                with explained("the owner's folder on the share"):
                    self._make(self._mine + 1, released=True)
                self._mine = None

    def _is_free(self, last: Link) -> bool:
        own = last.owner == self._owner and last.host == self._host
        return last.released or own or self._clock() - self._seen_at >= self.seconds

    def _make(self, number: int, *, released: bool = False) -> bool:
        """Make that link. False where somebody else was quicker."""
        link = {"owner": self._owner, "host": self._host, "pid": os.getpid(), "released": released}
        target = self._folder / f"{_PREFIX}{number:012d}"
        temp = temp_name(target)
        with temp.open("x", encoding="utf-8") as file:
            file.write(json.dumps(link))
            file.flush()
            os.fsync(file.fileno())
        try:
            failpoint("lease.take")
            rename_noreplace(temp, target)
        except FileExistsError:
            return False
        finally:
            temp.unlink(missing_ok=True)
        fsync_directory(self._folder)
        last = last_link(self._folder)
        if last is not None and last.number > number:
            return False  # we had an old listing, and made a link that was removed long ago
        self._mine = number
        (self._folder / f"{_PREFIX}{number - _KEPT_LINKS:012d}").unlink(missing_ok=True)
        return True


def last_link(folder: Path) -> Link | None:
    """The end of the chain; None where there is none. Raises OSError."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.startswith(_PREFIX))
    except FileNotFoundError:
        return None
    if not names:
        return None
    number = int(names[-1].removeprefix(_PREFIX))
    try:
        data: dict[str, Any] = json.loads((folder / names[-1]).read_text())
    except (FileNotFoundError, ValueError):
        data = {}  # damaged: it still is the last, and its maker has to renew it like any other
    return Link(
        number,
        str(data.get("owner", "")),
        str(data.get("host", "unknown")),
        int(data.get("pid", 0)),
        bool(data.get("released", False)),
    )


class Keeper:
    """Renews a lease from a thread of its own, as long as the loop that it serves goes round."""

    def __init__(self, lease: Lease, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._clock = clock
        self._patience_seconds = max(60.0, lease.seconds)
        self._turned_at = clock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def turn(self) -> None:
        """The loop goes round. Raises LeaseLostError when the share is another daemon's."""
        self._turned_at = self._clock()
        if self._lease.lost is not None:
            raise LeaseLostError(self._lease.lost)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stopped.wait(self._lease.seconds / 4):
            if self._clock() - self._turned_at > self._patience_seconds:
                continue  # the loop hangs: somebody else shall have the share
            try:
                self._lease.renew()
            except LeaseLostError:
                return  # `turn` says so
            except ShareAwayError:
                continue  # tried again; if somebody took over meanwhile, that tells
