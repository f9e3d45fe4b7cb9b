from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from heygemd.core.job import Job, JobState
from heygemd.core.options import Options
from heygemd.service.notify import Notifier


class Hook(BaseHTTPRequestHandler):
    got: ClassVar[list[dict[str, Any]]] = []
    answers: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        Hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        code = Hook.answers.pop(0) if Hook.answers else 204
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    Hook.got, Hook.answers = [], []
    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def told(url: str, hosts: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    notifier = Notifier(hosts, lambda name, **fields: events.append((name, fields)), sleep=lambda _s: None)
    notifier.tell(Job("1", "talk", "", (), (), Options(notify=url), state=JobState.DONE, ended_seconds=1.0))
    until = time.monotonic() + 120
    while not events and time.monotonic() < until:
        time.sleep(0.01)
    notifier.close()
    return events


def test_the_hook_gets_the_jobs_end(port: int) -> None:
    ((name, fields),) = told(f"http://127.0.0.1:{port}/hook?key=secret", ("127.0.0.1",))
    assert name == "job.notified"
    assert "secret" not in fields["url"]
    assert Hook.got[0]["job"] == "talk"
    assert Hook.got[0]["state"] == "done"


def test_a_busy_hook_is_tried_again(port: int) -> None:
    Hook.answers = [500, 503, 200]
    assert told(f"http://127.0.0.1:{port}/", (f"127.0.0.1:{port}",))[0][0] == "job.notified"
    assert len(Hook.got) == 3


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("http://127.0.0.1:{port}/", ()),
        ("http://169.254.169.254/latest/", ("127.0.0.1",)),
        ("file:///etc/passwd", ("",)),
        ("http://[::1", ("127.0.0.1",)),
        ("gopher://127.0.0.1/", ("127.0.0.1",)),
    ],
)
def test_nobody_is_called_whom_the_operator_did_not_name(port: int, url: str, hosts: tuple[str, ...]) -> None:
    assert told(url.format(port=port), hosts)[0][0] == "job.notify_failed"
    assert Hook.got == []


def test_a_redirect_is_not_followed(port: int) -> None:
    Hook.answers = [302] * 3
    assert told(f"http://127.0.0.1:{port}/", ("127.0.0.1",))[0][0] == "job.notify_failed"
