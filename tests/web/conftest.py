"""A share, a site of it, and clients: guests with a session, users with passwords. No daemon but a stand-in."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

pytest.importorskip("gradio", reason="the extra `web` is not installed")

from heygemd.config import Settings
from heygemd.core.settings import WebSettings
from heygemd.files import write_json
from heygemd.spool.control import answer, take_requests
from heygemd.spool.layout import Layout
from heygemd.web.app import create_app
from heygemd.web.site import Site

WORDS = "correct horse"
TUS = {"Tus-Resumable": "1.0.0"}
OFFSET = {"Content-Type": "application/offset+octet-stream"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = None if shutil.which("chromium") else "chromium is not installed"
    for item in items:
        if item.get_closest_marker("browser") and missing and not os.environ.get("CI"):
            item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for the stand-in of the daemon waits for a thread of this very process, however busy the machine is."""
    for place in ("heygemd.web.api.ANSWER_SECONDS", "heygemd.web.operators._ANSWER_SECONDS"):
        monkeypatch.setattr(place, 120.0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "share", tmp_path / "state")
    layout.ensure()
    return layout


@dataclass
class Web:
    """One site and the clients of it."""

    site: Site
    app: Any

    def client(self, **more: Any) -> TestClient:
        return TestClient(self.app, base_url="http://page.test", follow_redirects=False, **more)

    def guest(self) -> TestClient:
        client = self.client()
        assert client.get("/").status_code == 200
        return client

    def user(self, name: str, password: str = WORDS) -> TestClient:
        token = base64.b64encode(f"{name}:{password}".encode()).decode()
        return self.client(headers={"Authorization": f"Basic {token}"})


Maker = Callable[..., Web]


@pytest.fixture
def make(layout: Layout) -> Iterator[Maker]:
    """`make(max_user_jobs=1, …)`: a site with these settings of [web]."""
    entered: list[TestClient] = []

    def build(**web: Any) -> Web:
        settings = Settings(root=layout.root, state=layout.state, web=WebSettings(**web))
        settings = settings.model_copy(
            update={"service": settings.service.model_copy(update={"min_free_share_bytes": 0})}
        )
        site = Site.of(settings)
        site.board._fresh_seconds = 0.0  # tests change the status and look at once
        app = create_app(site)
        lifespan = TestClient(app)  # starts and ends what lives beside the requests
        lifespan.__enter__()
        entered.append(lifespan)
        return Web(site, app)

    yield build
    for client in entered:
        client.__exit__(None, None, None)


@pytest.fixture
def web(make: Maker) -> Web:
    return make()


def create_upload(client: TestClient, name: str, size: int, **headers: str) -> Any:
    word = base64.b64encode(name.encode()).decode()
    return client.post(
        "/api/uploads", headers={**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {word}", **headers}
    )


def send(client: TestClient, where: str, offset: int, data: bytes, **headers: str) -> Any:
    return client.patch(where, content=data, headers={**TUS, **OFFSET, "Upload-Offset": str(offset), **headers})


def bring(client: TestClient, name: str, data: bytes, look: dict[str, Any] | None = None) -> str:
    """Upload a whole file; with `look`, say what is in it in place of the process that finds out. Its id."""
    created = create_upload(client, name, len(data))
    assert created.status_code == 201, created.text
    where = created.headers["location"]
    upload_id = where.rpartition("/")[2]
    if look is not None:
        uploads = client.app.state.site.uploads  # type: ignore[attr-defined]
        (folder,) = uploads.root.glob(f"*/{upload_id}")
        write_json(folder / "look.json", {"ok": True, **look})
    assert send(client, where, 0, data).status_code == 204
    return upload_id


VIDEO_LOOK = {
    "seconds": 2.0,
    "width": 320,
    "height": 240,
    "still": False,
    "has_audio": False,
    "faces": [[9, 9, 99, 99]],
}
AUDIO_LOOK = {"seconds": 1.5}


def pair(client: TestClient) -> dict[str, str]:
    """A video and a recording, as far as the page can tell."""
    return {
        "video": bring(client, "lecture.mp4", b"v" * 2000, VIDEO_LOOK),
        "audio": bring(client, "greeting.wav", b"a" * 1000, AUDIO_LOOK),
    }


def jobs(client: Any) -> list[dict[str, Any]]:
    """The page's list."""
    found: list[dict[str, Any]] = client.get("/api/jobs").json()["jobs"]
    return found


def order(client: TestClient, *pairs: dict[str, str], **more: Any) -> Any:
    return client.post("/api/jobs", json={"pairs": list(pairs) or [pair(client)], **more})


def show(layout: Layout, job: str, state: str, **more: Any) -> None:
    """A status file as the daemon writes it."""
    folder = next(p.parent.relative_to(layout.inbox).as_posix() for p in layout.inbox.rglob(f"{job}.job.json"))
    view = {"job": job, "job_id": f"id-{job}", "state": state, "folder": folder, "percent": 50, **more}
    write_json(layout.status / f"{job}.json", view, durable=False)


def finish(layout: Layout, job: str, video: bytes = b"result") -> None:
    """A result as the daemon leaves it."""
    folder = layout.outbox / job
    folder.mkdir()
    (folder / f"{job}.mp4").write_bytes(video)
    (folder / f"{job}.jpg").write_bytes(b"sheet")
    names = [{"name": f"{job}.mp4"}, {"name": f"{job}.jpg"}]
    write_json(folder / f"{job}.json", {"job": job, "job_id": f"id-{job}", "items": [{}], "files": names})
    show(layout, job, "done", percent=100)


class Daemon:
    """Answers requests as the daemon does, and remembers them."""

    def __init__(self, folder: Path, ok: bool = True, **details: Any) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self._folder, self._ok, self._details = folder, ok, details
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            for request in take_requests(self._folder):
                self.asked.append((request.action, request.job))
                answer(self._folder, request.id, self._ok, "said", **self._details)

    def __enter__(self) -> Daemon:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()


def manifests(layout: Layout) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(layout.inbox.rglob("*.job.json"))]
