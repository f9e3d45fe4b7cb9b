"""How much memory a worker took: its own peak and that of the ffmpeg processes it has beside it."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heygemd.core.errors import RenderError

_MOST_SECONDS, _LEAST_SECONDS = 0.25, 0.01
_SHARE = 0.1


class PeakMeter:
    """Peak resident bytes of this process since `reset`, plus the most that its children held at one time.

    A thread looks at the children while a task runs (`watching`), often at first and then four times a second. The
    kernel's own sum, RUSAGE_CHILDREN, knows only the largest child of the whole life of the process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children_bytes = 0
        self._since = time.monotonic()
        self._over = False
        self._wake = threading.Event()

    def reset(self) -> None:
        """Begin again. What the last task has freed goes back to the system first, or it would count for the next."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        with self._lock:
            self._children_bytes = 0
        self.closely()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
        except OSError:
            return  # not permitted here: the peak is then that of the process's life, which is only larger

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Begin again, and look at the children until the end of the block."""
        self.reset()
        thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over = True
            self._wake.set()
            thread.join()
            self._over = False

    def closely(self) -> None:
        """Look often again from now on: short-lived children begin."""
        self._since = time.monotonic()
        self._wake.set()

    def _watch(self) -> None:
        while not self._over:
            self.sample()
            elapsed = time.monotonic() - self._since
            self._wake.wait(min(_MOST_SECONDS, max(_LEAST_SECONDS, _SHARE * elapsed)))
            self._wake.clear()

    def sample(self) -> None:
        """Look at the children now: a moment when they have taken what they take."""
        held = sum(_peak_of(str(pid)) or 0 for pid in _children() if not _is_copy(pid))
        with self._lock:
            self._children_bytes = max(self._children_bytes, held)

    @property
    def peak_bytes(self) -> int:
        own = _peak_of("self")
        if own is None:
            raise RenderError("/proc/self/status has no VmHWM")
        return own + self._children_bytes


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += [int(pid) for pid in (task / "children").read_text().split()]
        except OSError:
            continue  # the thread has just ended, or the kernel does not keep this list
    return found


def _is_copy(pid: int) -> bool:
    """Whether it has not begun its own program yet: between fork and exec its memory is this process's."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
    except OSError:
        return False  # it has just ended


def _peak_of(process: str) -> int | None:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None  # it has just ended
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None  # a zombie
