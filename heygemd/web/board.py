"""The status folder, read once for everybody who asks at the same time; only files that changed are read again."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from heygemd.core.errors import ShareAwayError
from heygemd.files import explained
from heygemd.spool.layout import Layout
from heygemd.spool.viewing import daemon_state, pause_asked_for, paused, read_view

View = dict[str, Any]


class Board:
    """Used from several threads. What it returns is shared: do not change it."""

    def __init__(
        self, layout: Layout, *, fresh_seconds: float = 0.4, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._layout = layout
        self._fresh_seconds = fresh_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._files: dict[str, tuple[tuple[int, int, int], View]] = {}
        self._views: dict[str, View] = {}
        self._next = 0.0
        self._queue: dict[str, Any] = {"running": None, "paused": None, "asked_for": False}

    def views(self) -> dict[str, View]:
        """Job name → its status. Raises ShareAwayError."""
        with self._lock:
            self._refresh()
            return self._views

    def queue(self) -> dict[str, Any]:
        """`running`: whether a daemon does (None: unknown); `paused`: why, or None; `asked_for`: somebody wanted it."""
        with self._lock:
            self._refresh()
            return self._queue

    def _refresh(self) -> None:
        now = self._monotonic()
        if now < self._next:
            return
        found: dict[str, tuple[tuple[int, int, int], View]] = {}
        with explained("the status folder"):
            try:
                entries = list(os.scandir(self._layout.status))
            except FileNotFoundError:
                raise ShareAwayError("the share has no status folder", remedy="Has a daemon run there?") from None
            for entry in entries:
                if not entry.name.endswith(".json") or entry.name.startswith("."):
                    continue
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                stamp = (info.st_ino, info.st_mtime_ns, info.st_size)
                known = self._files.get(entry.name)
                if known is not None and known[0] == stamp:
                    found[entry.name] = known
                    continue
                view = read_view(self._layout.status / entry.name)
                if view is not None and "job" in view and "state" in view:
                    found[entry.name] = (stamp, view)
        self._files = found
        self._views = {str(view["job"]): view for _, view in found.values()}
        why = paused(self._layout)
        self._queue = {
            "running": daemon_state(self._layout)["running"],
            "paused": why,
            "asked_for": why is not None and pause_asked_for(self._layout) is not None,
        }
        self._next = self._monotonic() + self._fresh_seconds
