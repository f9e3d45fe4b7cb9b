"""A real daemon in a child process, for tests."""

from __future__ import annotations

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
            self.command(*arguments), capture_output=True, text=True, timeout=120, env=self.environment
        )

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM, as systemd does; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL the daemon and, as a machine that loses power would, everything it started."""
        if self.process is None:
            return
        for pid in [*self.children(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
        self.process = None

    def children(self) -> list[int]:
        """Pids of all descendants."""
        assert self.process is not None
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except (FileNotFoundError, ProcessLookupError):
                    continue
        found, todo = [], [self.process.pid]
        while todo:
            parent = todo.pop()
            below = [pid for pid, above in parents.items() if above == parent]
            found += below
            todo += below
        return found

    def drop(self, clip: Path, voice: Path, *names: str) -> None:
        """A pair for each name; a name may lead into a folder."""
        for name in names:
            target = self.inbox / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(clip, target.with_suffix(".mp4"))
            shutil.copy(voice, target.with_suffix(".wav"))

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
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
