"""How the command line speaks to the daemon: small request files in STATE/control, answered by files beside them.

A request outlives both sides: what is asked of a stopped daemon happens when it starts. Requests can come twice
after a crash, so every action is idempotent.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, get_args

from heygemd.files import explained, open_regular, write_json

Action = Literal["retry", "cancel", "pause", "resume", "clean", "scan"]
ACTIONS: tuple[str, ...] = get_args(Action)
_MAX_BYTES = 65_536
_REQUEST = re.compile(r"(\d{20}-[0-9a-f]{8})\.request")


@dataclass(frozen=True)
class Request:
    """`job`: id or name, for retry and cancel. `arguments`: of the action (clean: dry_run)."""

    id: str
    action: str
    job: str | None
    arguments: dict[str, Any]
    created_seconds: float


@dataclass(frozen=True)
class Answer:
    ok: bool
    message: str
    details: dict[str, Any]


def send(folder: Path, action: Action, job: str | None = None, **arguments: Any) -> str:
    """Leave a request for the daemon; its id, for `wait_answer`."""
    now = time.time()
    request = Request(f"{int(now * 1e9):020d}-{token_hex(4)}", action, job, arguments, now)
    with explained(f"control folder {folder}"):
        write_json(folder / f"{request.id}.request", asdict(request))
    return request.id


def take_requests(folder: Path) -> tuple[Request, ...]:
    """All requests, oldest first. Each stays until it is answered. Files that are none are set aside as `.broken`."""
    found = []
    with explained(f"control folder {folder}"):
        for name in sorted(path.name for path in folder.iterdir()):
            if not (match := _REQUEST.fullmatch(name)):
                continue
            try:
                with open_regular(folder / name) as file:
                    found.append(_parse(match[1], file.read(_MAX_BYTES)))
            except ValueError:
                (folder / name).replace(folder / f"{name}.broken")
    return tuple(found)


def _parse(request_id: str, data: bytes) -> Request:
    """Raises ValueError."""
    tree = json.loads(data)
    if not isinstance(tree, dict) or tree.get("action") not in ACTIONS:
        raise ValueError("no known action")
    job, arguments, created = tree.get("job"), tree.get("arguments", {}), tree.get("created_seconds", 0.0)
    if not (job is None or isinstance(job, str)) or not isinstance(arguments, dict):
        raise ValueError("wrong types")
    if not isinstance(created, int | float):
        raise ValueError("wrong types")
    return Request(request_id, tree["action"], job, arguments, float(created))


def answer(folder: Path, request_id: str, ok: bool, message: str, **details: Any) -> None:
    """Tell the command line how it went, and remove the request."""
    with explained(f"control folder {folder}"):
        write_json(folder / f"{request_id}.answer", {"ok": ok, "message": message, "details": details}, durable=False)
        (folder / f"{request_id}.request").unlink(missing_ok=True)


def wait_answer(
    folder: Path, request_id: str, timeout_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Answer | None:
    """The daemon's answer, taken away; None when none came in time (the request stays)."""
    path = folder / f"{request_id}.answer"
    until = time.monotonic() + timeout_seconds
    while True:
        try:
            tree = json.loads(path.read_text())
        except FileNotFoundError:
            if time.monotonic() >= until:
                return None
            sleep(0.05)
            continue
        path.unlink(missing_ok=True)
        return Answer(bool(tree["ok"]), str(tree["message"]), dict(tree["details"]))


def sweep_answers(folder: Path, older_than_seconds: float = 3600.0) -> int:
    """Remove answers that nobody fetched; how many."""
    count = 0
    with explained(f"control folder {folder}"):
        for path in folder.glob("*.answer"):
            if time.time() - path.lstat().st_mtime > older_than_seconds:
                path.unlink(missing_ok=True)
                count += 1
    return count
