"""What systemd says of the service, and whether its ports are its own."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from heygemd.cli.checks import Finding
from heygemd.config import Settings

UNITS = ("heygemd.service", "heygemd-web.service")
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "StatusText", "UnitFileState")
_TIMEOUT_SECONDS = 10
_ANSWER_SECONDS = 2.0


def check_units() -> Iterator[Finding]:
    if not Path("/run/systemd/system").is_dir():
        yield Finding("unit", "ok", "systemd does not run here: the daemon is started by hand")
        return
    for unit in UNITS:
        state = _show(unit)
        if state.get("LoadState") == "not-found":
            if unit == UNITS[0]:
                yield Finding("unit", "ok", f"{unit} is not installed: the daemon is started by hand")
            continue
        if unit != UNITS[0] and state.get("UnitFileState") == "disabled" and state.get("ActiveState") == "inactive":
            yield Finding("unit", "ok", f"{unit} is there and not enabled: it need not be")
            continue
        yield from judge(unit, state)


def judge(unit: str, state: Mapping[str, str]) -> Iterator[Finding]:
    """What the properties of a unit mean."""
    active, result = state.get("ActiveState", ""), state.get("Result", "")
    look = f"journalctl -u {unit} -n 50 -o cat"
    if not state:
        yield Finding("unit", "warn", f"{unit}: systemctl does not answer", "Is the system bus reachable from here?")
    elif active == "active":
        text = state.get("StatusText", "")
        yield Finding("unit", "ok", f"{unit} runs{': ' + text if text else ''}")
    elif active == "failed":
        yield Finding(
            "unit", "fail", f"{unit} has failed ({result})", f"{look} says why; then: systemctl restart {unit}"
        )
    elif active in ("activating", "deactivating", "reloading"):
        yield Finding("unit", "warn", f"{unit} is {active} ({state.get('SubState', '')})", f"Wait, or look: {look}")
    else:
        yield Finding("unit", "warn", f"{unit} does not run", f"systemctl start {unit}")
    restarts = int(state.get("NRestarts") or 0)
    if restarts:
        yield Finding("unit", "warn", f"{unit} was restarted {restarts} times by systemd", f"{look} says why")
    if state and state.get("UnitFileState") == "disabled":
        yield Finding("unit", "warn", f"{unit} does not start at boot", f"systemctl enable {unit}")


def _show(unit: str) -> dict[str, str]:
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in _PROPERTIES)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Free, or answered by heygemd. Somebody else's program on the metrics port keeps the daemon from starting."""
    if settings.metrics.port:
        yield check_port("metrics", "metrics.port", settings.metrics.address, settings.metrics.port, "/metrics")
    if settings.web.port:
        yield check_port("web", "web.port", settings.web.host, settings.web.port, f"{settings.web.root_path}/")


def check_port(area: str, key: str, address: str, port: int, path: str) -> Finding:
    """Whether `address`:`port` is free or ours; `path`: a page of ours there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((address, port))
        except PermissionError:
            return Finding("port", "fail", f"{key} {port}: the service may not open it", "Choose one above 1023.")
        except OSError as error:
            if _answers(address, port, path):
                return Finding("port", "ok", f"{key} {port}: heygemd answers")
            return Finding(
                "port",
                "fail" if area == "metrics" else "warn",
                f"{key} {port} on {address}: {error.strerror}, and it is not heygemd's {area}",
                f"ss -ltnp 'sport = :{port}' tells who has it; choose another {key}.",
            )
    return Finding("port", "ok", f"{key} {port} is free")


def _answers(address: str, port: int, path: str) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return b"heygemd" in connection.getresponse().read(200_000)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
