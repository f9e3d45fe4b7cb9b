"""Orders and jobs: what a browser may ask for, and what it is told."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from heygemd.core.errors import BadInputError
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool.inbox import Inbox
from heygemd.spool.lock import daemon_lock
from tests.web.conftest import (
    AUDIO_LOOK,
    VIDEO_LOOK,
    Daemon,
    Maker,
    Web,
    bring,
    create_upload,
    finish,
    jobs,
    manifests,
    order,
    pair,
    show,
)

# ---- ordering ----


def test_an_order_is_one_job_for_the_inbox(web: Web) -> None:
    client = web.guest()
    answer = order(client, options={"quality": "draft", "face": "1,2,30,40"})
    assert answer.status_code == 201, answer.text
    assert answer.json() == {"jobs": ["greeting"], "batch": None}
    settings = InboxSettings(settle_scans=1, settle_seconds=0)
    scan = Inbox(web.site.layout, settings, LimitSettings()).scan(frozenset())
    (drop,) = scan.ready
    assert (drop.name, drop.options.quality, drop.options.face) == ("greeting", "draft", "1,2,30,40")
    assert drop.folder.startswith("web/guest-")
    contents = {file.role: (web.site.layout.inbox / file.path).read_bytes() for file in drop.inputs}
    assert (contents["video"], contents["audio"]) == (b"v" * 2000, b"a" * 1000)
    assert (scan.waiting, scan.refused, scan.ignored) == ((), (), ())
    for file in drop.inputs:
        assert (web.site.layout.inbox / file.path).stat().st_nlink == 1, "the daemon refuses files with two names"


def test_nothing_unfinished_reaches_the_inbox(web: Web) -> None:
    client = web.guest()
    files = pair(client)
    half = create_upload(client, "half.mp4", 100).headers["location"].rpartition("/")[2]
    answer = order(client, {"video": half, "audio": files["audio"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "unfinished")
    assert list(web.site.layout.inbox.rglob("*")) == []
    assert web.site.uploads.root.is_relative_to(web.site.layout.root), "one filesystem: a copy needs no second disk"
    assert not web.site.uploads.root.is_relative_to(web.site.layout.inbox)


def test_a_text_job(web: Web) -> None:
    client = web.guest()
    video = bring(client, "lecture.mp4", b"v", VIDEO_LOOK)
    assert order(client, {"video": video}, text="Hello <b>you</b>", title="My film").json()["jobs"] == ["My film"]
    (manifest,) = manifests(web.site.layout)
    assert manifest["text"] == "Hello <b>you</b>"
    assert jobs(client)[0]["text"] == "Hello <b>you</b>"


def test_consent_is_asked_for_where_a_preset_demands_it(web: Web) -> None:
    client = web.guest()
    inbox = web.site.layout.inbox
    assert client.get("/api/me").json()["consent_demanded"] is False
    (inbox / ".heygemd.toml").write_text("require_consent = true\n")
    assert client.get("/api/me").json()["consent_demanded"] is True
    files = pair(client)
    refused = order(client, files)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "no_consent")
    assert manifests(web.site.layout) == []

    paper = bring(client, "release form.pdf", b"%PDF-1.4 signed")
    second = bring(client, "other.mp4", b"w", VIDEO_LOOK)
    answer = order(client, files, {"video": second, "audio": files["audio"]}, consent=paper)
    assert answer.status_code == 201, answer.text
    settings = InboxSettings(settle_scans=1, settle_seconds=0)
    scan = Inbox(web.site.layout, settings, LimitSettings()).scan(frozenset())
    assert (scan.waiting, scan.refused, scan.ignored) == ((), (), ())
    for drop in scan.ready:
        (brought,) = (inbox / file.path for file in drop.inputs if file.role == "consent")
        assert brought.read_bytes() == b"%PDF-1.4 signed"
    assert len(scan.ready) == 2, "each video of the batch has it"
    for job in answer.json()["jobs"]:
        assert client.post(f"/api/jobs/{job}/cancel").json() == {"pending": False}
    assert [path.name for path in inbox.rglob("*") if path.is_file()] == [".heygemd.toml"], "taken back whole"


@pytest.mark.parametrize(
    ("folder", "words", "demanded"),
    [
        ("web", "require_consent = true", True),
        ("elsewhere", "require_consent = true", False),
        ("web", "require_consent = false", False),
        ("web", "require_consent = ", False),
    ],
)
def test_which_presets_count(web: Web, folder: str, words: str, demanded: bool) -> None:
    (web.site.layout.inbox / folder).mkdir()
    (web.site.layout.inbox / folder / ".heygemd.toml").write_text(words + "\n")
    assert web.guest().get("/api/me").json()["consent_demanded"] is demanded


def test_papers_of_others_cannot_be_used(web: Web) -> None:
    client, other = web.guest(), web.guest()
    theirs = bring(other, "release.pdf", b"%PDF")
    answer = order(client, pair(client), consent=theirs)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_file")
    unfinished = create_upload(client, "release.pdf", 100).headers["location"].rpartition("/")[2]
    assert order(client, pair(client), consent=unfinished).json()["error"]["code"] == "unfinished"


def test_a_batch_is_a_job_for_each_pair(web: Web) -> None:
    client = web.guest()
    videos = [bring(client, f"clip {n}.mp4", b"v" * n, VIDEO_LOOK) for n in (1, 2, 3)]
    audio = bring(client, "speech.wav", b"a", AUDIO_LOOK)
    answer = order(client, *({"video": video, "audio": audio} for video in videos))
    assert answer.json()["jobs"] == ["clip 1", "clip 2", "clip 3"]
    listed = jobs(client)
    assert {job["batch"] for job in listed} == {answer.json()["batch"]}
    assert {job["batch_title"] for job in listed} == {"speech × 3"}
    assert len(manifests(web.site.layout)) == 3


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"text": "both"}, 422, "two_speeches"),
        ({"pairs": []}, 422, "bad_request"),
        ({"unknown": 1}, 422, "bad_request"),
        ({"pairs": [{"video": "../../etc/passwd", "audio": None}]}, 422, "bad_request"),
        ({"pairs": [{"video": "0" * 32, "audio": None}], "text": "x"}, 404, "no_file"),
        ({"options": {"quality": "awful"}}, 422, "bad_option"),
        ({"options": {"notify": "http://169.254.169.254/"}}, 422, "bad_option"),
        ({"options": {"priority": 100}}, 422, "bad_option"),
        ({"options": {"engine": "unheard-of"}}, 422, "bad_option"),
        ({"options": {"face": "1,2,3"}}, 422, "bad_option"),
        ({"title": "x" * 201}, 422, "bad_request"),
    ],
)
def test_orders_that_are_refused(web: Web, change: dict[str, Any], status: int, code: str) -> None:
    client = web.guest()
    answer = client.post("/api/jobs", json={"pairs": [pair(client)], **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert manifests(web.site.layout) == []


def test_files_in_the_wrong_place(web: Web) -> None:
    client = web.guest()
    files = pair(client)
    silent = files["video"]
    loud = bring(client, "interview.mp4", b"v", {**VIDEO_LOOK, "has_audio": True})
    assert order(client, {"video": files["audio"], "audio": files["audio"]}).json()["error"]["code"] == "wrong_role"
    assert order(client, {"video": silent, "audio": silent}).json()["error"]["code"] == "wrong_role"
    assert order(client, {"video": silent, "audio": loud}).status_code == 201, "the sound of a video is speech too"


def test_what_could_not_be_read_is_refused(web: Web) -> None:
    with web.guest() as client:  # one loop for all requests: the look goes on between them
        _refuses_what_cannot_be_read(client)


def _refuses_what_cannot_be_read(client: TestClient) -> None:
    broken = bring(client, "broken.mp4", b"no video at all")
    until = time.monotonic() + 240  # a process of its own looks, at a low priority
    while time.monotonic() < until:
        info = client.get(f"/api/uploads/{broken}/info").json()
        if info["look"]:
            break
        time.sleep(0.05)
    assert info["look"]["ok"] is False
    assert info["look"]["error"]["code"].startswith("HG-1")
    assert "broken.mp4" in info["look"]["error"]["message"]
    audio = bring(client, "a.wav", b"a", AUDIO_LOOK)
    assert order(client, {"video": broken, "audio": audio}).json()["error"]["code"] == "unusable"


def test_limits_on_jobs(make: Maker) -> None:
    web = make(max_user_jobs=2)
    client = web.guest()
    files = pair(client)
    too_many = order(client, files, files, files)
    assert (too_many.status_code, too_many.json()["error"]["code"]) == (429, "too_many_jobs")
    assert order(client, files).status_code == 201
    assert order(client, files).status_code == 201
    assert order(client, files).status_code == 429
    assert order(web.guest()).status_code == 201, "another's limit is another's"
    finish(web.site.layout, "greeting")
    assert order(client, files).status_code == 201, "what is done counts no more"


def test_the_same_name_twice(web: Web) -> None:
    one, two = web.guest(), web.guest()
    assert order(one).json()["jobs"] == ["greeting"]
    assert order(two).json()["jobs"] == ["greeting-2"]
    assert jobs(two)[0]["title"] == "greeting", "another's job is no business of the title"


# ---- watching ----


def test_progress_is_told_and_304_while_nothing_moves(web: Web) -> None:
    client = web.guest()
    order(client)
    assert jobs(client)[0]["state"] == "submitted"
    show(web.site.layout, "greeting", "queued", position=3, percent=0)
    assert (jobs(client)[0]["state"], jobs(client)[0]["position"]) == ("queued", 3)
    show(web.site.layout, "greeting", "rendering", percent=41.5, eta_seconds=12, stage="rendering")
    answer = client.get("/api/jobs")
    (job,) = answer.json()["jobs"]
    assert (job["state"], job["percent"], job["eta_seconds"]) == ("rendering", 41.5, 12)
    again = client.get("/api/jobs", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_why_nothing_starts(web: Web) -> None:
    """An operator's wish is told apart from trouble that ends by itself."""
    client, layout = web.guest(), web.site.layout
    assert client.get("/api/jobs").json()["paused"] is None
    with daemon_lock(layout.lock) as lock:
        lock.tell("little room on the share")
        assert client.get("/api/jobs").json()["paused"] == "trouble"
        layout.pause_file.touch()
        assert client.get("/api/jobs").json()["paused"] == "paused"


def test_a_failure_in_the_users_own_words(web: Web) -> None:
    client = web.guest()
    order(client)
    root = web.site.layout.root
    message = f"{root}/inbox/web/x/greeting.video.mp4: no face in /var/lib/heygemd/work/1/inputs/greeting.video.mp4"
    error = {"code": "HG-1006", "message": message, "remedy": f"Look into {web.site.layout.state}/work."}
    show(web.site.layout, "greeting", "failed", error=error, reason=message)
    answer = client.get("/api/jobs")
    (job,) = answer.json()["jobs"]
    assert job["error"]["code"] == "HG-1006"
    assert job["error"]["message"] == "No face was found in lecture.mp4."
    assert job["error"]["details"] == "HG-1006 · inbox/web/x/lecture.mp4: no face in lecture.mp4"
    for path in (str(root), str(web.site.layout.state), "/var/lib", "/inputs"):
        assert path not in answer.text


def test_a_job_that_took_anothers_name_is_not_shown(web: Web) -> None:
    client = web.guest()
    order(client)
    view = {"job": "greeting", "job_id": "theirs", "state": "rendering", "folder": "secret", "percent": 5}
    (web.site.layout.status / "greeting.json").write_text(json.dumps(view))
    assert jobs(client)[0]["state"] == "submitted"


def test_a_job_that_the_daemon_had_to_rename(web: Web) -> None:
    client = web.guest()
    order(client)
    (manifest,) = web.site.layout.inbox.rglob("*.job.json")
    folder = manifest.parent.relative_to(web.site.layout.inbox).as_posix()
    manifest.unlink()
    view = {"job": "greeting-2", "job_id": "7", "state": "done", "folder": folder}
    (web.site.layout.status / "greeting-2.json").write_text(json.dumps(view))
    (job,) = jobs(client)
    assert (job["job"], job["title"], job["video_name"]) == ("greeting-2", "greeting", "lecture.mp4")


def test_the_pages_memory_lost(web: Web) -> None:
    """STATE/web was removed: the job's folder still tells whose it is."""
    client = web.guest()
    order(client)
    show(web.site.layout, "greeting", "rendering")
    for path in (web.site.layout.state / "web" / "jobs").rglob("*.json"):
        path.unlink()
    assert [(job["job"], job["title"], job["state"]) for job in jobs(client)] == [("greeting", "greeting", "rendering")]
    assert jobs(web.guest()) == []


# ---- asking the daemon ----


def test_cancel_and_retry_reach_the_daemon(web: Web) -> None:
    client = web.guest()
    order(client)
    show(web.site.layout, "greeting", "rendering")
    with Daemon(web.site.layout.control) as daemon:
        assert client.post("/api/jobs/greeting/cancel").json() == {"pending": False}
        assert client.post("/api/jobs/greeting/retry").json() == {"pending": False}
        assert web.guest().post("/api/jobs/greeting/cancel").status_code == 404
    assert daemon.asked == [("cancel", "id-greeting"), ("retry", "id-greeting")]


def test_what_the_daemon_says_no_to(web: Web) -> None:
    client = web.guest()
    order(client)
    show(web.site.layout, "greeting", "done")
    error = BadInputError(f"{web.site.layout.root}/x is done already", remedy="There is nothing to cancel.").to_dict()
    with Daemon(web.site.layout.control, ok=False, error=error):
        answer = client.post("/api/jobs/greeting/cancel")
    assert answer.status_code == 422
    assert answer.json()["error"]["details"] == "HG-1000 · x is done already"


def test_cancelled_before_a_daemon_saw_it(web: Web) -> None:
    client = web.guest()
    order(client)
    assert client.post("/api/jobs/greeting/cancel").json() == {"pending": False}
    assert [path for path in web.site.layout.inbox.rglob("*") if path.is_file()] == []
    assert jobs(client) == []


def test_no_daemon_answers(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.web.api.ANSWER_SECONDS", 0.1)
    client = web.guest()
    order(client)
    show(web.site.layout, "greeting", "rendering")
    assert client.post("/api/jobs/greeting/cancel").json() == {"pending": True}
