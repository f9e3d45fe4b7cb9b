"""A tree of processes that nothing escapes from: orphans come to us, so that a test can count what a kill left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process, as they become systemd's elsewhere."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def below(pid: int) -> list[int]:
    """Pids of all living descendants of `pid`, parents before their children. Zombies are dead."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state not in ("Z", "X"):
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below_it = children.get(todo.pop(0), [])
        found += below_it
        todo += below_it
    return found


def name_of(pid: int) -> str:
    """The command of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def kill_all_below(pid: int) -> int:
    """As when the power goes: everything stands still, then is gone. None of them sees another die. How many."""
    killed: set[int] = set()
    while found := [p for p in below(pid) if p not in killed]:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for one in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, number)
        killed.update(found)
    return len(killed)


def reap() -> None:
    """Take the exit codes of orphans that came to us. Only where no Popen waits for a child of its own."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def wait_until_none_below(pid: int, timeout_seconds: float) -> list[str]:
    """Commands of the descendants that are still alive after the time; empty when all have ended by themselves."""
    until = time.monotonic() + timeout_seconds
    while True:
        reap()
        left = [f"{one}: {name_of(one)}" for one in below(pid)]
        if not left or time.monotonic() >= until:
            return left
        time.sleep(0.02)
