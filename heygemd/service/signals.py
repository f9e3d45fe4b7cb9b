"""The signals that mean something to the daemon."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Signals:
    """What the outside wants: `reason` to stop, `reload` wanted. Handlers only set flags."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.reload = False
        self.woken = threading.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Signals are ours inside; outside the main thread (tests) there are none to catch."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.reason = signal.Signals(number).name
        self.woken.set()
