"""LocalExecutor: child processes of this machine, one for each running task, kept warm while idle."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from heygemd.core.capacity import Device
from heygemd.core.errors import CancelledError, WorkerDiedError
from heygemd.core.memory import GROUPS_AT_ONCE
from heygemd.core.task import DEVICE_FAILED_EXIT, Message, Task

WORKER_COMMAND = (sys.executable, "-m", "heygemd.work.worker")

WorkerEvent = Callable[[str, dict[str, object]], None]
"""Called with an event name of docs/events.md and its fields."""


@dataclass
class _Worker:
    number: int
    device: Device
    process: subprocess.Popen[bytes]
    task: Task | None = None
    ready: bool = False
    heard_seconds: float = 0.0  # monotonic; of the last message
    idle_since_seconds: float = 0.0
    folder: str = ""  # of the last task: that item's model is warm
    stderr_tail: deque[str] = field(default_factory=lambda: deque(maxlen=40))
    stderr_reader: threading.Thread | None = None
    ending: str | None = None  # why we end it: "cancelled", "hung", "idle", "evicted", "closed"


class LocalExecutor:
    """See Executor. Threads: one reader a worker, which only puts lines into a queue; all else in the caller's."""

    def __init__(
        self,
        *,
        heartbeat_timeout_seconds: float = 120.0,
        idle_seconds: float = 300.0,
        on_event: WorkerEvent = lambda _name, _fields: None,
        command: Sequence[str] = WORKER_COMMAND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heartbeat_timeout_seconds = heartbeat_timeout_seconds
        self._idle_seconds = idle_seconds
        self._on_event = on_event
        self._command = tuple(command)
        self._clock = clock
        self._workers: dict[int, _Worker] = {}
        self._next_number = 1
        self._lines: queue.Queue[tuple[int, bytes | None]] = queue.Queue()

    def start(self, task: Task, device: Device) -> None:
        idle = [w for w in self._workers.values() if w.task is None and w.device.name == device.name and not w.ending]
        warm = max(idle, key=lambda w: (w.folder == task.folder, w.idle_since_seconds), default=None)
        worker = warm or self._spawn(device)
        worker.task, worker.folder = task, task.folder
        worker.heard_seconds = self._clock()
        stdin = worker.process.stdin
        assert stdin is not None  # noqa: S101 - Popen was given a pipe
        try:
            stdin.write(task.to_line().encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it has just died; its reader says so and the task is answered then

    def poll(self, timeout_seconds: float) -> list[Message]:
        messages: list[Message] = []
        deadline = self._clock() + timeout_seconds
        while True:
            wait = max(0.0, deadline - self._clock()) if not messages else 0.0
            try:
                number, line = self._lines.get(timeout=wait) if wait else self._lines.get_nowait()
            except queue.Empty:
                break
            worker = self._workers.get(number)
            if worker is None:
                continue
            message = self._reap(worker) if line is None else self._heard(worker, line)
            if message is not None:
                messages.append(message)
        self._end_hung_and_idle()
        return messages

    def cancel(self, task_id: str) -> None:
        for worker in self._workers.values():
            if worker.task is not None and worker.task.id == task_id:
                self._kill(worker, "cancelled")

    def evict(self, device: str) -> None:
        for worker in self._workers.values():
            if worker.task is None and worker.device.name == device:
                self._kill(worker, "evicted")

    def expect(self, waiting: Sequence[Mapping[str, int]]) -> None:
        """Nothing: a machine does not grow."""

    def running(self) -> frozenset[str]:
        return frozenset(w.task.id for w in self._workers.values() if w.task is not None)

    def pids(self) -> dict[int, str]:
        """Process id → device, of every worker."""
        return {w.process.pid: w.device.name for w in self._workers.values()}

    def close(self) -> None:
        for worker in list(self._workers.values()):
            self._kill(worker, "closed")
            worker.process.wait()
            self._on_event(
                "worker.ended", {"worker": worker.process.pid, "device": worker.device.name, "reason": "closed"}
            )
        self._workers.clear()

    def _spawn(self, device: Device) -> _Worker:
        environment = os.environ | {
            # Each group that is rendered at once computes with its share: threads of one group that wait for each
            # other would wait for the decoder and the encoder, too.
            "OMP_NUM_THREADS": str(max(1, device.threads // GROUPS_AT_ONCE)),
            "OPENBLAS_NUM_THREADS": str(max(1, device.threads // GROUPS_AT_ONCE)),
            "HEYGEMD_PARENT": str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
        }
        if device.uuid:
            environment["CUDA_VISIBLE_DEVICES"] = device.uuid  # numbers mean one thing to NVML and another to CUDA
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a group of its own, so that ending it ends its ffmpeg too
        )
        worker = _Worker(self._next_number, device, process, heard_seconds=self._clock())
        self._next_number += 1
        self._workers[worker.number] = worker
        threading.Thread(target=self._read, args=(worker,), name=f"worker-{worker.number}", daemon=True).start()
        worker.stderr_reader = threading.Thread(
            target=_keep_stderr, args=(worker,), name=f"stderr-{worker.number}", daemon=True
        )
        worker.stderr_reader.start()
        self._on_event("worker.started", {"worker": process.pid, "device": device.name})
        return worker

    def _read(self, worker: _Worker) -> None:
        stdout = worker.process.stdout
        assert stdout is not None  # noqa: S101 - Popen was given a pipe
        with stdout:
            for line in stdout:
                self._lines.put((worker.number, line))
        self._lines.put((worker.number, None))

    def _heard(self, worker: _Worker, line: bytes) -> Message | None:
        message = Message.from_line(line.decode())
        worker.heard_seconds = self._clock()
        if message.type == "ready":
            worker.ready = True
            return None
        if worker.task is None or message.task_id != worker.task.id:
            return None  # a late word about a task that was answered
        if message.type in ("done", "failed"):
            worker.task = None
            worker.idle_since_seconds = self._clock()
        return message

    def _reap(self, worker: _Worker) -> Message | None:
        del self._workers[worker.number]
        _kill_group(worker.process)
        code = worker.process.wait()
        if worker.stderr_reader is not None:
            worker.stderr_reader.join(1.0)  # its last words are evidence; the pipe ends with the group
        reason = worker.ending or ("exit" if code == 0 else "died")
        if worker.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # an unsent line was in its buffer
                worker.process.stdin.close()
        task = worker.task
        name = {"hung": "worker.hung", "died": "worker.died"}.get(reason, "worker.ended")
        if name == "worker.died":
            reason = " | ".join(worker.stderr_tail)[-2000:] or "without a word"
        fields: dict[str, object] = {"worker": worker.process.pid, "device": worker.device.name, "reason": reason}
        if name != "worker.hung":
            fields["exit_code"] = code
        self._on_event(name, fields)
        if task is None:
            return None
        if reason == "cancelled":
            return Message("failed", task.id, CancelledError("cancelled while it ran").to_dict())
        device_failed = code == DEVICE_FAILED_EXIT
        if reason == "hung":
            text = f"the worker was silent for {self._heartbeat_timeout_seconds:.0f} s and was ended"
        elif code < 0:
            text = f"the worker was ended by signal {signal.Signals(-code).name}"
        elif device_failed and worker.stderr_tail:
            text = f"the device failed beneath the worker: {worker.stderr_tail[-1][:300]}"
        else:
            text = f"the worker ended with exit code {code}"
        # The signal is told only where it was not ours: SIGKILL from outside is how the out-of-memory killer looks.
        killed_by = signal.Signals(-code).name if code < 0 and worker.ending is None else None
        error = WorkerDiedError(
            text,
            stderr="\n".join(worker.stderr_tail)[-4000:],
            signal=killed_by,
            device_failed=device_failed,
            case="killed" if killed_by else "device" if device_failed else "hung" if reason == "hung" else None,
        )
        return Message("failed", task.id, error.to_dict())

    def _end_hung_and_idle(self) -> None:
        now = self._clock()
        for worker in self._workers.values():
            if worker.ending:
                continue
            if worker.task is not None and now - worker.heard_seconds > self._heartbeat_timeout_seconds:
                self._kill(worker, "hung")
            elif worker.task is None and worker.ready and now - worker.idle_since_seconds > self._idle_seconds:
                self._kill(worker, "idle")

    def _kill(self, worker: _Worker, why: str) -> None:
        worker.ending = worker.ending or why
        _kill_group(worker.process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone already, and its group with it
        os.killpg(process.pid, signal.SIGKILL)


def _keep_stderr(worker: _Worker) -> None:
    stderr = worker.process.stderr
    assert stderr is not None  # noqa: S101 - Popen was given a pipe
    with stderr:
        for line in stderr:
            worker.stderr_tail.append(line.decode(errors="replace").rstrip())
