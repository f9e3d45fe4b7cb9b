"""Results, links and files of users: whose they are, and what of them a browser gets."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import pytest

from tests.web.conftest import (
    AUDIO_LOOK,
    VIDEO_LOOK,
    Web,
    bring,
    finish,
    jobs,
    order,
    pair,
)

# ---- results ----


def test_a_result_with_ranges(web: Web) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting", bytes(range(100)))
    whole = client.get("/api/jobs/greeting/video")
    assert (whole.status_code, whole.content) == (200, bytes(range(100)))
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-disposition"] == 'inline; filename="greeting.mp4"'
    part = client.get("/api/jobs/greeting/video", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, bytes(range(10, 20)))
    assert part.headers["content-range"] == "bytes 10-19/100"
    assert client.get("/api/jobs/greeting/video?download=true").headers["content-disposition"].startswith("attachment")
    assert client.get("/api/jobs/greeting/sheet").content == b"sheet"


def test_open_files_are_closed(web: Web) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        client.get("/api/jobs/greeting/video", headers={"Range": "bytes=0-1"})
        client.get("/api/jobs/greeting/video", headers={"Range": "bytes=900-"})
        client.head("/api/jobs/greeting/video")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_a_link_in_the_outbox_leads_nowhere(web: Web, tmp_path: Path) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    video = web.site.layout.outbox / "greeting" / "greeting.mp4"
    video.unlink()
    video.symlink_to(secret)
    assert client.get("/api/jobs/greeting/video").status_code == 404


@pytest.mark.parametrize("name", ["../../state/web/key", "greeting.json", "/etc/passwd", "x/greeting.mp4"])
def test_a_receipt_cannot_name_other_files(web: Web, name: str) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting")
    receipt = {"job_id": "id-greeting", "items": [{}], "files": [{"name": name}]}
    (web.site.layout.outbox / "greeting" / "greeting.json").write_text(json.dumps(receipt))
    answer = client.get("/api/jobs/greeting/video")
    assert answer.status_code == 404 or b"job_id" in answer.content, "at most its own receipt"


def test_the_zip_of_a_batch(web: Web) -> None:
    client = web.guest()
    videos = [bring(client, f"clip {n}.mp4", b"v", VIDEO_LOOK) for n in (1, 2, 3)]
    audio = bring(client, "讲座.wav", b"a", AUDIO_LOOK)
    batch = order(client, *({"video": video, "audio": audio} for video in videos)).json()["batch"]
    assert client.get(f"/api/batches/{batch}/zip").status_code == 404, "nothing is done yet"
    finish(web.site.layout, "clip 1", b"one" * 500_000)
    finish(web.site.layout, "clip 3", b"three")
    answer = client.get(f"/api/batches/{batch}/zip")
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''%E8%AE%B2%E5%BA%A7%20%C3%97%203.zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info) for info in archive.infolist()} == {
            "clip 1.mp4": b"one" * 500_000,
            "clip 3.mp4": b"three",
        }
    assert web.guest().get(f"/api/batches/{batch}/zip").status_code == 404


def test_two_users_see_nothing_of_each_other(web: Web) -> None:
    mine, other = web.guest(), web.guest()
    files = pair(mine)
    order(mine, files)
    finish(web.site.layout, "greeting")
    assert len(jobs(mine)) == 1
    assert jobs(other) == []
    assert other.get("/api/uploads").json() == []
    for address in (
        "/api/jobs/greeting/video",
        "/api/jobs/greeting/sheet",
        f"/api/uploads/{files['video']}/info",
        f"/api/uploads/{files['video']}/content",
        f"/api/uploads/{files['video']}/poster",
    ):
        assert other.get(address).status_code == 404, address
    for action in ("cancel", "retry", "link"):
        assert other.post(f"/api/jobs/greeting/{action}").status_code == 404
    assert order(other, files).json()["error"]["code"] == "no_file"


@pytest.mark.parametrize("job", ["..", "%2e%2e%2f%2e%2e", "../greeting", "%2Fetc%2Fpasswd", "greeting%00"])
def test_a_job_is_never_a_path(web: Web, job: str) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting")
    assert client.get(f"/api/jobs/{job}/video").status_code == 404


# ---- links ----


def test_a_link_shows_the_result_to_whoever_has_it(web: Web) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting", b"film")
    path = client.post("/api/jobs/greeting/link").json()["path"]
    stranger = web.client()
    page = stranger.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "greeting" in page.text
    assert stranger.get(f"{path}/video").content == b"film"
    assert stranger.get("/api/jobs").status_code == 401, "the link gives the one video and nothing else"
    for bad in (path[:-1], path[:-6] + "AAAAAA", "/s/x", "/s/" + "A" * 3000):
        assert stranger.get(bad).status_code == 404


def test_a_link_ends(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting")
    path = client.post("/api/jobs/greeting/link").json()["path"]
    receipt = web.site.layout.outbox / "greeting" / "greeting.json"
    whole = receipt.read_text()
    receipt.write_text(whole.replace("id-greeting", "another job of this name"))
    assert web.client().get(f"{path}/video").status_code == 410
    receipt.write_text(whole)
    now = time.time()
    monkeypatch.setattr("heygemd.web.pages.time.time", lambda: now + 169 * 3600)
    assert web.client().get(f"{path}/video").status_code == 410


def test_a_session_is_no_link(web: Web) -> None:
    client = web.guest()
    assert web.client().get(f"/s/{client.cookies['heygemd_session']}").status_code == 404


# ---- files of users ----


@pytest.mark.parametrize(
    ("name", "media_type", "shown"),
    [
        ("a.mp4", "video/mp4", "inline"),
        ("a.txt", "text/plain; charset=utf-8", "inline"),
        ("a.mxf", "application/octet-stream", "attachment"),
        ("a.wma", "application/octet-stream", "attachment"),
    ],
)
def test_an_uploaded_file_is_never_a_page(web: Web, name: str, media_type: str, shown: str) -> None:
    client = web.guest()
    upload = bring(client, name, b"<script>alert(1)</script>", AUDIO_LOOK)
    answer = client.get(f"/api/uploads/{upload}/content")
    assert answer.headers["content-type"] == media_type
    assert answer.headers["content-disposition"].startswith(shown)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_old_uploads_go(web: Web) -> None:
    client = web.guest()
    pair(client)
    uploads = web.site.uploads
    (user,) = uploads.users()
    assert uploads.sweep(time.time()) == 0
    (uploads.root / user / ".heygemd-x.gone").mkdir()
    assert uploads.sweep(time.time() + 8 * 86400) == 2
    assert uploads.users() == []


def test_the_page_forgets_jobs_that_are_gone(web: Web) -> None:
    from heygemd.web.app import _sweep_once

    client = web.guest()
    order(client)
    finish(web.site.layout, "greeting")
    for path in web.site.layout.inbox.rglob("*.job.json"):
        path.unlink()
    _sweep_once(web.site)
    (user,) = web.site.records.users()
    assert len(web.site.records.all_of(user)) == 1
    (web.site.layout.status / "greeting.json").unlink()
    for path in (web.site.layout.outbox / "greeting").iterdir():
        path.unlink()
    _sweep_once(web.site)
    assert web.site.records.all_of(user) == []
