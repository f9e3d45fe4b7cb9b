"""sd_notify against a real datagram socket, as the service manager holds one."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heygemd.ops import systemd

Listener = tuple[socket.socket, dict[str, str]]


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    """A listening socket and the environment that a service would get."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if request.param == "path":
            address = str(tmp_path / "notify")
            listener.bind(address)
        else:
            address = f"@heygemd-test-{secrets.token_hex(8)}"
            listener.bind("\0" + address[1:])
        listener.settimeout(5)
        yield listener, {"NOTIFY_SOCKET": address}


def received(listener: socket.socket) -> list[str]:
    return listener.recv(65536).decode().split("\n")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (systemd.ready, ["READY=1"]),
        (systemd.stopping, ["STOPPING=1"]),
        (systemd.watchdog_ping, ["WATCHDOG=1"]),
    ],
)
def test_each_call_sends_one_datagram(manager: Listener, call: Callable[..., bool], expected: list[str]) -> None:
    listener, environment = manager
    assert call(environment=environment) is True
    assert received(listener) == expected


def test_status_travels_with_the_state(manager: Listener) -> None:
    listener, environment = manager
    assert systemd.ready("3 jobs, queue 2", environment=environment)
    assert received(listener) == ["READY=1", "STATUS=3 jobs, queue 2"]


def test_a_file_name_cannot_smuggle_an_assignment(manager: Listener) -> None:
    listener, environment = manager
    assert systemd.status("rendering 课程\nREADY=1\r\nMAINPID=1", environment=environment)
    assert received(listener) == ["STATUS=rendering 课程 READY=1 MAINPID=1"]


def test_names_that_are_no_text_are_sent_all_the_same(manager: Listener) -> None:
    listener, environment = manager
    assert systemd.status(os.fsdecode(b"clip\xff.mp4"), environment=environment)
    assert received(listener) == ["STATUS=clip?.mp4"]


def test_reload_tells_when_it_began(manager: Listener) -> None:
    listener, environment = manager
    assert systemd.reloading(environment=environment)
    first, second = received(listener)
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0


def test_a_longer_stop_is_asked_for_in_microseconds(manager: Listener) -> None:
    listener, environment = manager
    assert systemd.extend_timeout(2.5, environment=environment)
    assert received(listener) == ["EXTEND_TIMEOUT_USEC=2500000"]


@pytest.mark.parametrize("address", ["", "relative/path", "vsock:2:1234"])
def test_without_a_manager_nothing_is_sent(address: str) -> None:
    assert systemd.ready(environment={"NOTIFY_SOCKET": address} if address else {}) is False


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    assert systemd.status("idle", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")}) is False


def test_a_manager_that_does_not_read_cannot_hold_the_loop_up(manager: Listener) -> None:
    _, environment = manager
    answers = [systemd.watchdog_ping(environment=environment) for _ in range(10_000)]
    assert answers[0] is True
    assert answers[-1] is False  # the queue is full; nothing blocked


def test_the_process_environment_is_the_default(manager: Listener) -> None:
    listener, environment = manager
    code = "from heygemd.ops import systemd; assert systemd.ready('up')"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | environment)
    assert received(listener) == ["READY=1", "STATUS=up"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "42"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_interval(environment: dict[str, str], expected: float | None) -> None:
    assert systemd.watchdog_interval_seconds(environment=environment, pid=42) == expected
