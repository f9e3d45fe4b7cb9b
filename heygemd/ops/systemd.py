"""What the service manager is told: one datagram to $NOTIFY_SOCKET (sd_notify(3)), and how often it wants to hear.

Outside systemd every call does nothing and answers False. So it does when a datagram cannot be delivered at once: a
status line must neither stop nor delay the loop that sends it, and a watchdog ping that went missing is noticed by the
one who waits for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"

PINGS_PER_TIMEOUT = 3
"""systemd asks for at least two; with three, one late round of the loop is no restart."""


def notify(*assignments: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send assignments ("READY=1", "STATUS=…") in one datagram; True when it was handed over.

    A line break inside an assignment would begin another one: it becomes a space.
    """
    address = environment.get(NOTIFY_SOCKET, "")
    if not address or not assignments:
        return False
    if address[0] == "@":
        target = "\0" + address[1:]  # the abstract namespace: no file
    elif address[0] == "/":
        target = address
    else:
        return False  # vsock: and a container's business
    message = "\n".join(" ".join(assignment.splitlines()) for assignment in assignments)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(message.encode("utf-8", "replace"), target)
        return True
    return False


def ready(status: str = "", *, environment: Mapping[str, str] = os.environ) -> bool:
    """The service does its work from here on; also ends a reload."""
    return notify("READY=1", *_status(status), environment=environment)


def reloading(status: str = "", *, environment: Mapping[str, str] = os.environ) -> bool:
    """A reload has begun; `ready` must follow."""
    now_usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return notify("RELOADING=1", f"MONOTONIC_USEC={now_usec}", *_status(status), environment=environment)


def stopping(status: str = "", *, environment: Mapping[str, str] = os.environ) -> bool:
    """The service has begun to end."""
    return notify("STOPPING=1", *_status(status), environment=environment)


def status(text: str, *, environment: Mapping[str, str] = os.environ) -> bool:
    """The one line that `systemctl status` shows."""
    return notify(f"STATUS={text}", environment=environment)


def watchdog_ping(*, environment: Mapping[str, str] = os.environ) -> bool:
    """The loop and the workers advance. To be sent by the loop that knows, never by a thread of its own."""
    return notify("WATCHDOG=1", environment=environment)


def extend_timeout(seconds: float, *, environment: Mapping[str, str] = os.environ) -> bool:
    """Starting, reloading or stopping needs so long from now; to be repeated before it runs out."""
    return notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", environment=environment)


def watchdog_interval_seconds(*, environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds between two pings; None when no watchdog waits for this process.

    A child inherits the variables but is not the one that is watched: WATCHDOG_PID tells.
    """
    try:
        timeout_usec = int(environment.get(WATCHDOG_USEC, ""))
        watched = int(environment.get(WATCHDOG_PID) or (pid or os.getpid()))
    except ValueError:
        return None
    if timeout_usec <= 0 or watched != (pid or os.getpid()):
        return None
    return timeout_usec / 1e6 / PINGS_PER_TIMEOUT


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={text}",) if text else ()
