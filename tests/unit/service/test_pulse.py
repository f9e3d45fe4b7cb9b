"""READY and the watchdog go by what workers say: silence, a dead environment, a process that cannot be killed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.errors import HeygemdError
from heygemd.core.task import Message, Task
from heygemd.service.pulse import GRACE_SECONDS, Pulse, Watchdog
from heygemd.work import local
from heygemd.work.local import LocalExecutor
from tests.unit.service.fakes import CPU, Clock, FakeExecutor

SCRIPT = """
import json, os, sys, time
def say(type, task=""):
    print(json.dumps({"type": type, "task_id": task, "values": {}}), flush=True)
say("ready")
for line in sys.stdin:
    task = json.loads(line)
    if task["kind"] == "hello" or task["folder"] == "echo":
        say("done", task["id"])
    else:
        time.sleep(1000)
"""


def executor_with(tmp_path: Path, heartbeat_timeout_seconds: float) -> LocalExecutor:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(SCRIPT))
    return LocalExecutor(command=(sys.executable, str(script)), heartbeat_timeout_seconds=heartbeat_timeout_seconds)


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    """Kills whoever is silent for half a second, were it only that a busy machine has not started him yet."""
    made = executor_with(tmp_path, 0.5)
    yield made
    made.close()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[LocalExecutor]:
    made = executor_with(tmp_path, 120.0)
    yield made
    made.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def pings(manager: socket.socket) -> int:
    found = 0
    while True:
        try:
            found += manager.recv(65536) == b"WATCHDOG=1"
        except BlockingIOError:
            return found


def until(condition: Any, pulse: Pulse, seconds: float = 120.0) -> list[Message]:
    heard: list[Message] = []
    end = time.monotonic() + seconds
    while not condition(heard):
        assert time.monotonic() < end, heard
        heard += pulse.poll(0.05)
    return heard


def test_a_worker_answers_before_it_is_ready(patient: LocalExecutor) -> None:
    executor, pulse = patient, Pulse(patient, CPU)
    assert not pulse.answers()
    heard = until(lambda _heard: pulse.answers(), pulse)
    assert heard == [], "the greeting is not the runner's business"
    assert len(executor.pids()) == 1, "asked many times, greeted once"
    first = next(iter(executor.pids()))
    executor.start(Task("t", "render", "echo"), CPU)
    until(lambda heard: heard, pulse)
    assert set(executor.pids()) == {first}, "the greeted worker takes the first task"


def test_without_a_worker_that_starts_it_is_never_ready() -> None:
    clock = Clock()
    broken = LocalExecutor(command=(sys.executable, "-c", "raise SystemExit('no module named cv2')"))
    pulse = Pulse(broken, CPU, clock)
    for _again in range(2):
        assert not pulse.answers()
        end = time.monotonic() + 120
        while broken.running():
            pulse.poll(0.05)
            assert time.monotonic() < end
        assert not pulse.answers(), "a dead worker is no answer"
        assert not broken.running(), "it is not started again at once"
        clock.now += 10
    broken.close()


def test_other_executors_are_not_greeted() -> None:
    away = FakeExecutor()
    assert Pulse(away, CPU).answers()
    assert away.waiting == []


def test_silence_counts_only_while_there_is_work() -> None:
    clock, executor = Clock(), FakeExecutor(script=lambda _task, _try: HeygemdError("even that is a word"))
    pulse = Pulse(executor, CPU, clock)
    clock.now += 1000
    pulse.poll(0)
    assert pulse.silent_seconds == 0
    executor.start(Task("t", "render", "x"), CPU)
    executor.hold = True
    pulse.poll(0)
    clock.now += 40
    pulse.poll(0)
    assert pulse.silent_seconds == 40
    executor.hold = False
    assert [m.type for m in pulse.poll(0)] == ["failed"]
    assert pulse.silent_seconds == 0


def test_a_silent_worker_that_can_be_killed_never_starves_the_watchdog(
    executor: LocalExecutor, manager: socket.socket
) -> None:
    pulse, told = Pulse(executor, CPU), []
    watchdog = Watchdog(lambda name, **_fields: told.append(name))
    executor.start(Task("t", "render", "silent"), CPU)
    heard: list[Message] = []
    rounds = fed = 0
    while not heard:
        heard = pulse.poll(0.05)
        rounds += 1
        watchdog.feed(pulse.silent_seconds, 0.5)
        fed += pings(manager)
        assert rounds < 2000
    assert heard[0].values["type"] == "WorkerDiedError"
    assert fed == rounds
    assert told == []


def test_when_nobody_can_be_killed_the_watchdog_starves(
    executor: LocalExecutor, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hangs in the kernel outlives SIGKILL; here the kill itself is left out."""
    clock, told = Clock(), []
    pulse = Pulse(executor, CPU, clock)
    watchdog = Watchdog(lambda name, **fields: told.append((name, fields)))
    executor.start(Task("t", "render", "silent"), CPU)
    with monkeypatch.context() as patch:
        patch.setattr(local, "_kill_group", lambda _process: None)
        until(lambda _heard: all(w.ending for w in executor._workers.values()), pulse)
        clock.now += 0.5 + GRACE_SECONDS
        pulse.poll(0.05)
        watchdog.feed(pulse.silent_seconds, 0.5)
        assert pings(manager) == 1, "the killed one is given time to be gone"
        clock.now += 1
        for _round in range(3):
            pulse.poll(0.05)
            watchdog.feed(pulse.silent_seconds, 0.5)
        assert pings(manager) == 0
        assert [name for name, _ in told] == ["watchdog.starved"], "told once"
    for pid in executor.pids():  # the kernel lets go at last
        os.killpg(pid, signal.SIGKILL)
    until(lambda heard: heard, pulse)
    watchdog.feed(pulse.silent_seconds, 0.5)
    assert pings(manager) == 1
