"""RayExecutor: the daemon's side. It never imports ray; a bridge process does, and may die without harm."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.errors import CancelledError, ConfigError, NodeLostError
from heygemd.core.settings import RaySettings, SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.work.local import WORKER_COMMAND, WorkerEvent

BRIDGE_COMMAND = (sys.executable, "-m", "heygemd.cluster.bridge")
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
_SILENT_SECONDS = 120.0
_END_SECONDS = 15.0
_LOG_HEAD = re.compile(r"^\[[^]]*\] (\([^)]*\) )?\S+: ")
"""Time, process and source line before each of Ray's own messages."""

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about this machine leaves it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # our workers set CUDA_VISIBLE_DEVICES themselves
    "RAY_DEDUP_LOGS": "0",
}


def ray_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """For each of our processes that speaks Ray. A head asks for a token as soon as it finds one, nodes and drivers
    send theirs only when they are told to: here all of them do, unless RAY_AUTH_MODE says otherwise."""
    home = environment.get("HOME", "")
    places = [environment.get("RAY_AUTH_TOKEN_PATH", ""), f"{home}/.ray/auth_token" if home else ""]
    has_token = environment.get("RAY_AUTH_TOKEN") or any(place and Path(place).is_file() for place in places)
    found = {**environment, **RAY_ENVIRONMENT}
    return found if "RAY_AUTH_MODE" in environment or not has_token else {**found, "RAY_AUTH_MODE": "token"}


class RayExecutor:
    """See Executor. A task on a device whose `node` is empty runs on any node. One reader thread; all else in the
    caller's. `share`: the root of the share, or None where there is none."""

    def __init__(
        self,
        ray: RaySettings,
        scheduler: SchedulerSettings,
        *,
        share: Path | None,
        heartbeat_timeout_seconds: float = 120.0,
        idle_seconds: float = 300.0,
        on_event: WorkerEvent = lambda _name, _fields: None,
        command: Sequence[str] = WORKER_COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                'scheduler.executor is "ray", but the package ray is not installed here',
                remedy="Install it: pip install 'heygemd[ray]'; or set scheduler.executor = \"local\".",
            )
        self._config = {
            "ray": ray.model_dump(mode="json"),
            "scheduler": scheduler.model_dump(mode="json"),
            "share": None if share is None else str(share),
            "idle_seconds": idle_seconds,
            "worker": {"heartbeat_timeout_seconds": heartbeat_timeout_seconds, "command": list(command)},
        }
        self._address = ray.address
        self._on_event = on_event
        self._clock = clock
        self._lines: queue.Queue[tuple[int, bytes | None]] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0  # of the bridge: late words of an earlier one are dropped
        self._tasks: dict[str, tuple[Task, Device]] = {}
        self._cancelled: set[str] = set()
        self._pids: dict[int, str] = {}
        self._waiting: list[dict[str, int]] = []
        self._failures = 0
        self._retry_at_seconds = 0.0
        self._heard_seconds = 0.0
        self._last_words: deque[str] = deque(maxlen=20)
        self._closed = False
        self.nodes: list[dict[str, Any]] | None = None  # None while there is no connection
        self.problem: str | None = f"the Ray cluster at {self._address} has not answered yet"
        self._connect()

    # ---- Executor ----

    def start(self, task: Task, device: Device) -> None:
        self._tasks[task.id] = task, device
        if self._process is not None:
            self._send({"op": "start", "task": asdict(task), "device": asdict(device)})

    def poll(self, timeout_seconds: float) -> list[Message]:
        messages: list[Message] = []
        deadline = self._clock() + timeout_seconds
        while True:
            if self._process is None:
                messages += self._orphans()
            wait = max(0.0, deadline - self._clock()) if not messages else 0.0
            try:
                number, line = self._lines.get(timeout=wait) if wait else self._lines.get_nowait()
            except queue.Empty:
                break
            if number != self._number or self._process is None:
                continue
            if line is None:
                self._lost()
                continue
            message = self._heard(json.loads(line))
            if message is not None:
                messages.append(message)
        self._watch_over()
        return messages

    def cancel(self, task_id: str) -> None:
        if task_id in self._tasks:
            self._cancelled.add(task_id)
            self._send({"op": "cancel", "task_id": task_id})

    def running(self) -> frozenset[str]:
        return frozenset(self._tasks)

    def evict(self, device: str) -> None:
        self._send({"op": "evict", "device": device})

    def pids(self) -> Mapping[int, str]:
        return dict(self._pids)

    def expect(self, waiting: Sequence[Mapping[str, int]]) -> None:
        wanted = [dict(needs) for needs in waiting]
        if wanted != self._waiting:
            self._waiting = wanted
            self._send({"op": "expect", "waiting": wanted})

    def close(self) -> None:
        self._closed = True
        self._tasks.clear()
        process = self._process
        if process is None:
            return
        self._process = None
        assert process.stdin is not None  # noqa: S101 - Popen was given a pipe
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(process)

    # ---- the bridge ----

    def _connect(self) -> None:
        process = subprocess.Popen(
            BRIDGE_COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ray_environment(os.environ),
            start_new_session=True,
        )
        self._process = process
        self._number += 1
        self._heard_seconds = self._clock()
        number = self._number
        threading.Thread(target=self._read, args=(number, process), name=f"bridge-{number}", daemon=True).start()
        threading.Thread(target=self._keep, args=(process,), name=f"bridge-stderr-{number}", daemon=True).start()
        self._send(self._config)
        if self._waiting:
            self._send({"op": "expect", "waiting": self._waiting})

    def _send(self, order: dict[str, Any]) -> None:
        if self._process is None:
            return
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - Popen was given a pipe
        try:
            stdin.write(json.dumps(order).encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it has just died; the reader says so

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        stdout = process.stdout
        assert stdout is not None  # noqa: S101 - Popen was given a pipe
        with stdout:
            for line in stdout:
                self._lines.put((number, line))
        self._lines.put((number, None))

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        stderr = process.stderr
        assert stderr is not None  # noqa: S101 - Popen was given a pipe
        with stderr:
            for line in stderr:
                text = line.decode(errors="replace").strip()
                if text:
                    self._last_words.append(text)

    def _heard(self, said: dict[str, Any]) -> Message | None:
        self._heard_seconds = self._clock()
        if said["type"] == "message":
            message = Message(**said["message"])
            if message.task_id not in self._tasks:
                return None  # a late word about a task that was answered
            if message.type in ("done", "failed"):
                self._forget(message.task_id)
            return message
        if said["type"] == "nodes":
            self.nodes = said["nodes"]
        elif said["type"] == "pids":
            self._pids = {int(pid): device for pid, device in said["pids"].items()}
        elif said["type"] == "event":
            self._on_event(said["name"], said["fields"])
        elif said["type"] == "refused":
            self._last_words.append(said["reason"])
        else:
            self._failures, self.problem = 0, None
        return None

    def _lost(self) -> None:
        """The bridge has ended. What ran is answered by `poll`; another bridge is started after a while."""
        process, self._process = self._process, None
        if process is not None:
            _kill(process)
            if process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        word = self._last_words[-1] if self._last_words else "the bridge ended without a word"
        word = _LOG_HEAD.sub("", word).partition(". ")[0]  # then Ray's advice follows, and a long address
        self.nodes, self._pids = None, {}
        self.problem = f"the Ray cluster at {self._address} cannot be reached: {word[:300]}"
        self._retry_at_seconds = self._clock() + _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
        self._failures += 1

    def _orphans(self) -> list[Message]:
        answers = []
        for task_id in list(self._tasks):
            error = (
                CancelledError("cancelled while it ran")
                if task_id in self._cancelled
                else NodeLostError(self.problem or "the connection to the Ray cluster was lost")
            )
            self._forget(task_id)
            answers.append(Message("failed", task_id, error.to_dict()))
        return answers

    def _forget(self, task_id: str) -> None:
        self._tasks.pop(task_id, None)
        self._cancelled.discard(task_id)

    def _watch_over(self) -> None:
        now = self._clock()
        if self._process is None:
            if not self._closed and now >= self._retry_at_seconds:
                self._connect()
        elif now - self._heard_seconds > _SILENT_SECONDS:
            self._last_words.append(f"nothing was heard of it for {_SILENT_SECONDS:.0f} s")
            _kill(self._process)  # the reader says so


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone already, and its group with it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
