"""The operators' page without Gradio: what it shows and does; the log behind it; children that look and estimate."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from heygemd.core.errors import CannotFitError
from heygemd.core.settings import LimitSettings, LogSettings
from heygemd.files import write_json
from heygemd.web import look
from heygemd.web.helpers import Estimator, Looker, run_child
from heygemd.web.logtail import last_lines
from heygemd.web.operators import Desk
from heygemd.web.uploads import Upload
from tests import media
from tests.web.conftest import Daemon, Web


def status(web: Web, job: str, state: str, **more: Any) -> None:
    view = {"job": job, "job_id": f"id-{job}", "state": state, "folder": "in", "priority": 0, **more}
    write_json(web.site.layout.status / f"{job}.json", view, durable=False)


# ---- the desk ----


def test_what_the_desk_shows(web: Web) -> None:
    desk = Desk(web.site, "en")
    assert desk.headline() == "**No daemon runs** · 0 in work, 0 waiting"
    root = str(web.site.layout.root)
    status(web, "running", "rendering", percent=41.4, eta_seconds=9.6, devices=["cpu"])
    status(web, "second", "queued", position=2)
    status(web, "first", "queued", position=1)
    error = {"code": "HG-1006", "message": f"{root}/x: no face", "remedy": "Use another."}
    status(web, "older", "failed", updated="2026-01-01T08:00:00.123Z", error=error)
    status(web, "newer", "failed", updated="2026-01-02T08:00:00.123Z", error=error)
    assert desk.headline() == "**No daemon runs** · 1 in work, 2 waiting"
    assert [row[0] for row in desk.queue()] == ["running", "first", "second"]
    assert desk.queue()[0][1:5] == ["rendering", "41 %", "10 s", ""]
    assert desk.devices()[0][0] == "cpu"
    assert desk.devices()[0][2] == "running"
    assert desk.failures()[0] == ["2026-01-02 08:00:00", "newer", "x: no face", "Use another.", "HG-1006"]
    what, remedy = Desk(web.site, "zh").failures()[0][2:4]
    assert what == "没有找到人脸。\nx: no face", "the daemon's words below, which the log has too"
    assert remedy == "请换一段正面朝向镜头的视频或图片。\nUse another."
    assert [row[1] for row in desk.failures()] == ["newer", "older"]
    web.site.layout.pause_file.touch()
    assert "**paused**: a file PAUSE lies on the share" in desk.headline()


def test_what_the_desk_asks_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(web.site, "en")
    with Daemon(web.site.layout.control) as daemon:
        assert desk.ask("pause").startswith("The queue is paused")
        assert Desk(web.site, "zh").ask("retry", "lecture") == "已重新排队。"
    assert daemon.asked == [("pause", None), ("retry", "lecture")]
    monkeypatch.setattr("heygemd.web.operators._ANSWER_SECONDS", 0.05)
    assert "has not answered" in desk.ask("resume")


def test_retention_from_the_desk(web: Web) -> None:
    desk = Desk(web.site, "en")
    folder = web.site.layout.archive / "2020-01-01" / "old"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"x" * 2_000_000)
    long_ago = time.time() - 30 * 86400
    marker = {"job": "old", "job_id": "1", "kind": "archive", "files": ["a.mp4"], "made_seconds": long_ago}
    write_json(folder / ".heygemd-job", marker)
    for path in (folder / "a.mp4", folder / ".heygemd-job", folder):
        os.utime(path, (long_ago, long_ago))
    rows, _ = desk.retention()
    assert [(row[0], row[1]) for row in rows] == [("archive/2020-01-01/old", "2.0 MB")]
    assert folder.exists(), "to look is not to remove"
    assert desk.clean() == "1 folders removed, 0 stayed"
    assert not folder.exists()
    web.site.layout.sentinel.unlink()
    assert "not mounted" in desk.clean()


BUILD = """
import json, sys
from pathlib import Path
from heygemd.config import Settings
from heygemd.web.operators import Desk
from heygemd.web.operators_page import build_page, theme
from heygemd.web.serve import serve
from heygemd.web.site import Site
site = Site.of(Settings(root=Path(sys.argv[1]), state=Path(sys.argv[2])))
for language in ("en", "zh"):
    desk = Desk(site, language)
    words = json.dumps(build_page(desk, "/", ["info"], 2.0).get_config_file(), ensure_ascii=False, default=str)
    assert desk.t("pause") in words
    assert sys.argv[1] not in words
assert theme()._stylesheets == [], "no fonts from elsewhere"
assert "torch" not in sys.modules
"""


def test_the_page_is_built_in_both_languages_without_torch(web: Web) -> None:
    """In a process of its own: Gradio leaves event loops open."""
    layout = web.site.layout
    subprocess.run([sys.executable, "-c", BUILD, str(layout.root), str(layout.state)], check=True)


# ---- the log ----


def log_lines(path: Path) -> None:
    lines = [
        {"@timestamp": "2026-01-01T08:00:00.5Z", "log.level": "info", "message": "ready"},
        {"@timestamp": "2026-01-01T08:00:01.5Z", "log.level": "info", "message": "a", "heygemd.job.name": "Lecture"},
        {"@timestamp": "2026-01-01T08:00:02.5Z", "log.level": "error", "message": "b", "heygemd.job.name": "other"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut": \nnot json\n[1]\n')


def test_the_log_filtered(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log_lines(path)
    assert [line.message for line in last_lines(str(path), 10) or []] == ["ready", "a", "b"]
    assert [line.message for line in last_lines(str(path), 10, job="lect") or []] == ["a"]
    assert [line.message for line in last_lines(str(path), 10, level="error") or []] == ["b"]
    assert [line.message for line in last_lines(str(path), 1) or []] == ["b"]
    assert last_lines(str(tmp_path / "none"), 10) is None


def test_the_log_on_the_desk(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_lines(tmp_path / "log")
    settings = web.site.settings.model_copy(update={"log": LogSettings(file=str(tmp_path / "log"))})
    object.__setattr__(web.site, "settings", settings)
    desk = Desk(web.site, "en")
    assert desk.log("", "info").splitlines()[0] == "2026-01-01 08:00:02.5 error   b", "the newest first"
    assert desk.log("nobody", "info") == "No lines."
    monkeypatch.setattr("heygemd.web.operators.last_lines", lambda *_a, **_k: None)
    assert "systemd-journal" in desk.log("", "info")


def test_the_log_from_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_lines(tmp_path / "log")
    tool = tmp_path / "journalctl"
    tool.write_text(f'#!/bin/sh\n[ "$2" = heygemd ] && cat {tmp_path / "log"}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("heygemd.web.logtail._TIMEOUT_SECONDS", 120.0)
    assert [line.message for line in last_lines("", 10) or []] == ["ready", "a", "b"]
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert last_lines("", 10) is None
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert last_lines("", 10) is None


# ---- looking into files ----


def test_faces_in_source_pixels(tmp_path: Path) -> None:
    """Larger than what is searched: the boxes are the source's, the largest first."""
    face = cv2.imread(str(media.portrait(tmp_path / "p.png", 900)))
    picture = np.full((1000, 2000, 3), 200, np.uint8)
    picture[50:950, 1050:1950] = face
    picture[200:800, 100:700] = cv2.resize(face, (600, 600), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "two.png"), picture)
    found = look.look("image", tmp_path / "two.png", tmp_path, LimitSettings())
    assert (found["width"], found["height"], found["still"], found["seconds"]) == (2000, 1000, True, None)
    (large, small) = found["faces"]
    assert 1050 < large[0] < large[2] < 1950
    assert 100 < small[0] < small[2] < 700
    poster = cv2.imread(str(tmp_path / "poster.jpg"))
    assert poster.shape[:2] == (480, 960)


@pytest.mark.parametrize(
    ("kind", "name", "data", "code"),
    [
        ("video", "a.mp4", b"no video", "HG-1003"),
        ("audio", "a.wav", b"no sound", "HG-1003"),
        ("text", "a.txt", b"\xff\xfe\x00", "HG-1000"),
        ("text", "a.txt", b"  \n", "HG-1000"),
        ("text", "a.txt", b"x" * 11, "HG-1007"),
    ],
)
def test_what_is_not_what_it_says(tmp_path: Path, kind: str, name: str, data: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(data)
    limits = LimitSettings(max_text_characters=10).model_dump_json()
    assert look.main([kind, str(tmp_path / name), str(tmp_path), limits]) == 0
    found = json.loads((tmp_path / "look.json").read_text())
    assert (found["ok"], found["error"]["code"]) == (False, code)


def test_a_look_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Upload("0" * 32, "a.mp4", "video", 3, 0.0, 0.0, tmp_path)
    monkeypatch.setattr("heygemd.web.helpers.sys.executable", "/bin/false")

    async def run() -> None:
        looker = Looker(LimitSettings())
        looker.look(upload)
        looker.look(upload)
        while upload.look() is None:
            await asyncio.sleep(0.01)
        await looker.close()

    asyncio.run(run())
    assert (upload.look() or {})["error"]["message"] == "a.mp4 could not be read"


# ---- estimates ----


def test_children_end_with_all_they_started(tmp_path: Path) -> None:
    mark = tmp_path / "pid"

    async def run(seconds: float) -> bytes | None:
        return await run_child(["sh", "-c", f"sleep 600 & echo $! >{mark}.part; mv {mark}.part {mark}; wait"], seconds)

    for seconds in (0.5, 5.0, 60.0):  # a grandchild is wanted before the time is up, however busy the machine is
        assert asyncio.run(run(seconds)) is None
        if mark.exists():
            break
    pid = int(mark.read_text())
    until = time.monotonic() + 60
    while not _over(pid):
        assert time.monotonic() < until, "the grandchild lives on"
        time.sleep(0.05)


def _over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def fake_plan(tmp_path: Path, text: str, seconds: float = 0.0) -> tuple[str, ...]:
    tool = tmp_path / "plan"
    tool.write_text(f"#!/bin/sh\nsleep {seconds}\ncat <<'END'\n{text}\nEND\n")
    tool.chmod(0o755)
    return (str(tool),)


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (
            {"estimate_seconds": 12.5, "engine": "rewrite", "frames": 9, "segments": [1, 2], "video": {"path": "/x"}},
            {"engine": "rewrite", "frames": 9, "estimate_seconds": 12.5, "segments": 2},
        ),
        (
            {
                "refused": True,
                "reason": "too large",
                "remedy": "smaller",
                "details": {"case": "memory", "needed_bytes": 7},
            },
            {"error": CannotFitError("too large", remedy="smaller", case="memory", needed_bytes=7).to_dict()},
        ),
        ({"error": {"code": "HG-1006"}}, {"error": {"code": "HG-1006"}}),
    ],
)
def test_an_estimate(tmp_path: Path, said: dict[str, Any], answer: dict[str, Any]) -> None:
    async def run() -> dict[str, Any] | None:
        estimator = Estimator(fake_plan(tmp_path, json.dumps(said)), 120)
        key = estimator.ask("ana", ["v.mp4"])
        assert estimator.ask("ana", ["v.mp4"]) == key
        assert estimator.answer("bo", key) is None, "another's question"
        assert estimator.answer("ana", "x") is None
        while (found := estimator.answer("ana", key)) == {"state": "working"}:
            await asyncio.sleep(0.01)
        await estimator.close()
        return found

    assert asyncio.run(run()) == {"state": "done", **answer}


def test_an_estimate_that_takes_too_long_or_is_none(tmp_path: Path) -> None:
    async def run(estimator: Estimator) -> dict[str, Any] | None:
        key = estimator.ask("ana", [])
        while (found := estimator.answer("ana", key)) == {"state": "working"}:
            await asyncio.sleep(0.01)
        return found

    slow = Estimator(fake_plan(tmp_path, "{}", 30), 0.2)
    assert asyncio.run(run(slow)) == {"state": "done", "unknown": True}
    assert asyncio.run(run(Estimator(("/bin/echo", "oops"), 120))) == {"state": "done", "unknown": True}
    assert not Estimator((), 0).offered


def test_a_new_question_takes_the_place_of_the_last(tmp_path: Path) -> None:
    async def run() -> None:
        estimator = Estimator(fake_plan(tmp_path, "{}", 30), 60)
        first = estimator.ask("ana", ["1"])
        others = estimator.ask("bo", ["1"])
        await asyncio.sleep(0.05)
        estimator.ask("ana", ["2"])
        assert estimator.answer("ana", first) is None
        assert estimator.answer("bo", others) == {"state": "working"}
        await estimator.close()

    asyncio.run(run())
