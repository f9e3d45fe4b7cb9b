"""How much memory a worker took: its own peak and that of the ffmpeg processes it has beside it."""

from __future__ import annotations

import ctypes
import gc
import time
from pathlib import Path

from heygemd.core.errors import RenderError

_SAMPLE_SECONDS = 0.25


class PeakMeter:
    """Peak resident bytes of this process since `reset`, plus the most that its children held at one time.

    Children are looked at in passing (`sample`), so one that lives for less than a quarter second can be missed. The
    kernel's own sum, RUSAGE_CHILDREN, knows only the largest child of the whole life of the process.
    """

    def __init__(self) -> None:
        self._children_bytes = 0
        self._last_seconds = 0.0

    def reset(self) -> None:
        """Begin again. What the last task has freed goes back to the system first, or it would count for the next."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        self._children_bytes = 0
        try:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from what is resident now
        except OSError:
            return  # not permitted here: the peak is then that of the process's life, which is only larger

    def sample(self, *, certainly: bool = False) -> None:
        """Look at the children. Cheap enough to be called with every frame. `certainly`: also right after another look,
        at a moment when they have taken what they take."""
        now = time.monotonic()
        if certainly or now - self._last_seconds >= _SAMPLE_SECONDS:
            self._last_seconds = now
            self._children_bytes = max(self._children_bytes, sum(_peak_of(str(pid)) or 0 for pid in _children()))

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


def _peak_of(process: str) -> int | None:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None  # it has just ended
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None  # a zombie
