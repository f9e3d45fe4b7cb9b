"""Hints that something changed in the inbox. A hint only makes the next scan sooner; missing all of them costs time.

Events need inotify, which never sees what other hosts write to a network mount: there the observer polls.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from heygemd.spool.mounts import fs_type, is_network

Mode = Literal["events", "polling"]
_QUIET_EVENTS = ("opened", "closed_no_write")  # our own scans and copies cause these


def _not_of_a_stop(record: logging.LogRecord) -> bool:
    """An emitter that is stopped while it reads calls that an error; `Watch.stop` asks for it, and nobody else."""
    return "when the thread is inactive" not in record.getMessage()


logging.getLogger("watchdog.observers.inotify").addFilter(_not_of_a_stop)


def choose_mode(folder: Path, wanted: Literal["auto", "events", "polling"]) -> Mode:
    """auto: events on local filesystems, polling on network filesystems and FUSE."""
    if wanted != "auto":
        return wanted
    return "polling" if is_network(fs_type(folder)) else "events"


class _Poke(FileSystemEventHandler):
    def __init__(self, poke: Callable[[], None]) -> None:
        self._poke = poke

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _QUIET_EVENTS:
            self._poke()


class Watch:
    """Calls `poke` from threads of its own. Call `check` now and then: it starts anew what died."""

    def __init__(
        self,
        folder: Path,
        poke: Callable[[], None],
        *,
        wanted: Literal["auto", "events", "polling"] = "auto",
        poll_seconds: float = 5.0,
    ) -> None:
        self._folder = folder
        self._handler = _Poke(poke)
        self._wanted = wanted
        self._poll_seconds = poll_seconds
        self._observer: BaseObserver | None = None
        self.mode: Mode | None = None
        self.problem: str | None = None
        """Why there are no hints at present."""

    def start(self) -> bool:
        """Start watching. False, with `problem`, where it cannot be done now (no folder, no inotify watches left)."""
        self.stop()
        try:
            self.mode = choose_mode(self._folder, self._wanted)
            there = self._folder.is_dir()
        except OSError as error:  # a mount whose server has gone answers ENOTCONN or ESTALE even to stat
            self.problem = f"no hints: {error.strerror or error}"
            return False
        if not there:
            self.problem = f"{self._folder} is not there"
            return False
        observer: BaseObserver = (
            Observer(timeout=1.0) if self.mode == "events" else PollingObserver(timeout=self._poll_seconds)
        )
        try:
            observer.schedule(self._handler, str(self._folder), recursive=True)
            observer.start()
        except OSError as error:
            # ENOSPC, EMFILE: fs.inotify.max_user_watches or max_user_instances are used up. Scans go on all the same.
            observer.unschedule_all()
            self.problem = f"no hints: {error.strerror or error}"
            return False
        self._observer = observer
        self.problem = None
        return True

    def healthy(self) -> bool:
        """Whether the observer and every emitter of it live. An observer alone stays alive when its emitter died."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        emitters = observer.emitters
        return bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def check(self) -> bool:
        """Start again what died; True when it had to."""
        if self.healthy():
            return False
        self.start()
        return True

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Stop the threads. Those that a dead share holds are left behind as daemons."""
        observer, self._observer = self._observer, None
        if observer is None or not observer.is_alive():
            return
        # stop() joins nothing, but unscheduling may wait for an emitter that hangs in the kernel on a dead mount.
        stopper = threading.Thread(target=observer.stop, name="watch-stop", daemon=True)
        stopper.start()
        stopper.join(timeout_seconds)
        if not stopper.is_alive():
            observer.join(timeout_seconds)
