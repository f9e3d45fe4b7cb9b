"""A real daemon in a child process, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heygemd.failpoints import ONCE_VARIABLE

QUICK = {
    "HEYGEMD_INBOX__SETTLE_SECONDS": "0.3",
    "HEYGEMD_INBOX__SCAN_SECONDS": "0.5",
    "HEYGEMD_SERVICE__STATUS_SECONDS": "0.1",
    "HEYGEMD_SERVICE__DRAIN_SECONDS": "2",
    "HEYGEMD_MEDIA__PRESET": "ultrafast",
}


class Daemon:
    """`heygemd serve` on `root`. A context manager: leaving it ends the process group."""

    def __init__(self, root: Path, *, state: Path | None = None, log: Path | None = None, **settings: str) -> None:
        self.root = root
        self.state = state or root / ".state"
        self.inbox = root / "inbox"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.process: subprocess.Popen[str] | None = None
        self.log = log or root.parent / f"{root.name}.log"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | QUICK | {f"HEYGEMD_{k}": v for k, v in self.settings.items()}

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    def command(self, *arguments: str) -> list[str]:
        places = ["--root", str(self.root), "--state", str(self.state)]
        return [sys.executable, "-m", "heygemd.cli", *places, *arguments]

    def start(self, *, once: bool = False) -> Daemon:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command("serve", *(["--once"] if once else [])),
                stderr=log,
                env=self.environment,
                text=True,
                start_new_session=True,
            )
        return self

    def once(self, timeout: float = 180) -> int:
        """Run `serve --once` to its end; the exit code."""
        self.start(once=True)
        assert self.process is not None
        return self.process.wait(timeout)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=180, env=self.environment
        )

    def stop(self, timeout: float = 120) -> int:
        """SIGTERM, as systemd does; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL the daemon and, as a machine that loses power would, everything it started."""
        if self.process is None:
            return
        still: list[int] = []  # all stand still before the first is gone: none sees another die, none starts one more
        while fresh := [pid for pid in (self.process.pid, *self.children()) if pid not in still]:
            _signal(signal.SIGSTOP, fresh)
            still += fresh
        _signal(signal.SIGKILL, still)
        self.process.wait(120)
        self.process = None

    def children(self) -> list[int]:
        """Pids of all descendants."""
        assert self.process is not None
        parents = {
            int(entry.name): _parent(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdecimal()
        }
        found, todo = [], [self.process.pid]
        while todo:
            parent = todo.pop()
            below = [pid for pid, above in parents.items() if above == parent]
            found += below
            todo += below
        return found

    def wait_still(self) -> int:
        """The pid of what stands still below it, by a failpoint that says `stop`; waited for."""
        return int(self.wait(lambda: next((p for p in self.children() if _state(p) == "T"), 0), what="a standstill"))

    def drop(self, clip: Path, voice: Path, *names: str) -> None:
        """A pair for each name; a name may lead into a folder."""
        for name in names:
            target = self.inbox / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(clip, target.with_suffix(".mp4"))
            shutil.copy(voice, target.with_suffix(".wav"))

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        written, _, _torn = self.log.read_text().rpartition("\n")  # who reads meets the writer in the middle of a line
        lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
        return [line for line in lines if name is None or line["event.action"] == name]

    def status(self, job: str) -> dict[str, Any]:
        try:
            data: dict[str, Any] = json.loads((self.root / "status" / f"{job}.json").read_text())
        except FileNotFoundError:
            return {"state": None}
        return data

    def wait(self, condition: Callable[[], Any], seconds: float = 180.0, what: str = "") -> Any:
        until = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < until, f"{what or 'it'} never happened; log:\n{self.log.read_text()[-4000:]}"
            assert self.process is None or self.process.poll() is None, self.log.read_text()[-4000:]
            time.sleep(0.1)
        return value

    def wait_state(self, job: str, *states: str, seconds: float = 180.0) -> dict[str, Any]:
        self.wait(lambda: self.status(job)["state"] in states, seconds, f"{job} in {states}")
        return self.status(job)

    def receipt(self, job: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.root / "outbox" / job / f"{job}.json").read_text())
        return data

    def error(self, job: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.root / "failed" / job / "error.json").read_text())
        return data

    def files(self, folder: str) -> set[str]:
        base = self.root / folder
        return {str(p.relative_to(base)) for p in base.rglob("*") if p.is_file() and not p.name.startswith(".heygemd-")}


def _signal(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stat(pid: int) -> list[str]:
    """From its state on (proc(5)); a dead one that is gone has X and no parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def once_at(folder: Path, where: str) -> dict[str, str]:
    """Settings of a daemon, one of whose processes acts at a failpoint, and none a second time."""
    marks = folder / "marks"
    marks.mkdir()
    return {"FAILPOINT": where, ONCE_VARIABLE.removeprefix("HEYGEMD_"): str(marks)}
