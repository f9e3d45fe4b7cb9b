"""`heygemd web` in a child process, and a browser to look at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.daemon import QUICK


class WebServer:
    """A context manager; `url` is where the page is."""

    def __init__(self, root: Path, **settings: str) -> None:
        self._root = root
        self._log = root.parent / f"{root.name}.web.log"
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> WebServer:
        environment = os.environ | QUICK | {f"HEYGEMD_{k}": v for k, v in self._settings.items()}
        command = [sys.executable, "-m", "heygemd.cli", "--root", str(self._root), "web", "--port", "0"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stderr=log, env=environment, text=True, start_new_session=True)
        until = time.monotonic() + 120
        while not self.url:
            assert self._process.poll() is None and time.monotonic() < until, self._log.read_text()
            written, _, _torn = self._log.read_text().rpartition("\n")
            for line in written.splitlines():
                if line.startswith("{") and (found := json.loads(line))["event.action"] == "web.started":
                    self.url = found["url.full"]
            time.sleep(0.1)
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(120) == 0, self._log.read_text()
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def failures(self) -> list[str]:
        """What went wrong inside, whatever the browser saw."""
        lines = self._log.read_text().splitlines()
        return [line for line in lines if '"web.failed"' in line or line.startswith("Traceback")]
