"""Publishing: whole or absent, the receipt last, repeatable after a stop at any step."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from heygemd import failpoints
from heygemd.core.errors import DiskFullError, HeygemdError
from heygemd.core.job import Job
from heygemd.spool.layout import MARKER, Layout
from heygemd.spool.outbox import ItemResult, publish, result_names
from heygemd.spool.places import find_own

from .conftest import Desk, tree

POINTS = ["outbox.folder", "outbox.copy", "outbox.rename", "outbox.receipt", "outbox.published"]


def results(folder: Path, names: list[str], flavour: bytes = b"") -> list[ItemResult]:
    found = []
    for name in names:
        video, sheet = folder / f"{name}-v.mp4", folder / f"{name}-s.jpg"
        video.write_bytes(b"video of " + name.encode() + flavour)
        sheet.write_bytes(b"sheet of " + name.encode() + flavour)
        found.append(ItemResult(name, video, sheet, {"frames": 25}))
    return found


def batch_of(desk: Desk, stems: list[str]) -> Job:
    for stem in stems:
        desk.put(f"{stem}.mp4", stem)
    desk.put("s.wav")
    keys = {"version": 1, "videos": [f"{stem}.mp4" for stem in stems], "audio": "s.wav"}
    desk.put("course.job.json", json.dumps(keys))
    (job,) = desk.claim(desk.settled())
    return job


def whole(folder: Path, job: Job) -> dict[str, Any]:
    """The receipt, after every file it lists was found as it says, and nothing else beside them."""
    receipt = json.loads((folder / f"{job.name}.json").read_text())
    for entry in receipt["files"]:
        data = (folder / entry["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size_bytes"], entry["sha256"])
    assert set(tree(folder)) == {e["name"] for e in receipt["files"]} | {f"{job.name}.json", MARKER}
    return dict(receipt)


def test_a_single_result(desk: Desk, tmp_path: Path) -> None:
    job = desk.job("课程 1")
    folder = publish(job, desk.layout, results(tmp_path, [job.items[0].name]), {"engine": "warp"})
    assert folder == desk.layout.outbox / "课程 1"
    receipt = whole(folder, job)
    assert receipt["engine"] == "warp" and receipt["job_id"] == job.id
    assert receipt["items"] == [{"name": "课程 1", "file": "课程 1.mp4", "contact_sheet": "课程 1.jpg", "frames": 25}]
    assert sorted(p.name for p in desk.layout.outbox.iterdir()) == ["课程 1"]


def test_a_batch_has_every_result_and_a_zip(desk: Desk, tmp_path: Path) -> None:
    job = batch_of(desk, ["one", "two"])
    made = results(tmp_path, ["one", "two"])
    folder = publish(job, desk.layout, made, {})
    whole(folder, job)
    assert set(result_names(job, made)) == set(tree(folder)) - {MARKER}
    with zipfile.ZipFile(folder / "course.zip") as archive:
        assert archive.testzip() is None
        assert {i.filename: i.compress_type for i in archive.infolist()} == {"one.mp4": 0, "two.mp4": 0}


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("action", ["enospc", "estale"])
def test_publishing_goes_on_after_a_failure_at_any_step(desk: Desk, tmp_path: Path, batch: bool, action: str) -> None:
    job = batch_of(desk, ["one", "two"]) if batch else desk.job()
    made = results(tmp_path, [item.name for item in job.items])
    for point in [*POINTS, *(["outbox.zip"] if batch else [])]:
        for nth in range(1, 6):
            failpoints.arm(f"{point}={action}@{nth}")
            try:
                publish(job, desk.layout, made, {"x": 1})
            except HeygemdError as error:
                assert error.retryable
                receipt = desk.layout.outbox / job.name / f"{job.name}.json"
                assert not receipt.exists() or point == "outbox.published"
                finals = [p for p in desk.layout.outbox.rglob("*") if p.is_file() and not p.name.startswith(".")]
                for path in finals:
                    assert path.read_bytes(), path
            failpoints.arm("")
            folder = publish(job, desk.layout, made, {"x": 1})
            whole(folder, job)
            assert [p.name for p in desk.layout.outbox.iterdir()] == [job.name]
            for path in sorted(folder.iterdir()):
                path.unlink()
            folder.rmdir()


CHILD = """
import sys, pickle
from pathlib import Path
from heygemd.spool.outbox import publish
job, layout, made = pickle.loads(Path(sys.argv[1]).read_bytes())
publish(job, layout, made, {"x": 1})
"""


@pytest.mark.parametrize(
    ("point", "nth"), [*((p, 1) for p in POINTS), ("outbox.copy", 2), ("outbox.rename", 2), ("outbox.zip", 1)]
)
def test_publishing_goes_on_after_sigkill(desk: Desk, tmp_path: Path, point: str, nth: int) -> None:
    import pickle

    job = batch_of(desk, ["one"])
    made = results(tmp_path, ["one"])
    (tmp_path / "args").write_bytes(pickle.dumps((job, desk.layout, made)))
    env = {**os.environ, "HEYGEMD_FAILPOINT": f"{point}=kill@{nth}"}
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "args")], env=env, capture_output=True)
    assert done.returncode == -9, done.stderr
    folder = publish(job, desk.layout, made, {"x": 1})
    whole(folder, job)
    assert [p.name for p in desk.layout.outbox.iterdir()] == [job.name]


def test_somebody_elses_folder_is_not_touched(desk: Desk, tmp_path: Path) -> None:
    job = desk.job()
    theirs = desk.layout.outbox / "lecture"
    theirs.mkdir()
    (theirs / "lecture.mp4").write_bytes(b"theirs")
    folder = publish(job, desk.layout, results(tmp_path, ["lecture"]), {})
    assert folder.name == "lecture-2" and tree(theirs) == {"lecture.mp4": b"theirs"}
    assert find_own(desk.layout.outbox, job) == folder
    assert publish(job, desk.layout, results(tmp_path, ["lecture"]), {}) == folder


def test_a_link_in_place_of_the_folder_is_not_followed(desk: Desk, tmp_path: Path) -> None:
    job = desk.job()
    (tmp_path / "trap").mkdir()
    (desk.layout.outbox / "lecture").symlink_to(tmp_path / "trap")
    folder = publish(job, desk.layout, results(tmp_path, ["lecture"]), {})
    assert folder.name == "lecture-2" and not any((tmp_path / "trap").iterdir())


def test_a_retried_job_replaces_its_results_and_the_old_receipt_goes_first(desk: Desk, tmp_path: Path) -> None:
    job = desk.job()
    publish(job, desk.layout, results(tmp_path, ["lecture"]), {"try": 1})
    failpoints.arm("outbox.receipt=eio")
    with pytest.raises(HeygemdError):
        publish(job, desk.layout, results(tmp_path, ["lecture"], b" again"), {"try": 2})
    assert not (desk.layout.outbox / "lecture/lecture.json").exists(), "the old receipt would no longer be true"
    failpoints.arm("")
    folder = publish(job, desk.layout, results(tmp_path, ["lecture"], b" again"), {"try": 2})
    assert whole(folder, job)["try"] == 2


def test_a_folder_whose_marker_is_a_link_is_not_ours(desk: Desk, tmp_path: Path) -> None:
    job = desk.job()
    theirs = desk.layout.outbox / "lecture"
    theirs.mkdir()
    (tmp_path / "m").write_text(json.dumps({"job_id": job.id, "files": []}))
    (theirs / MARKER).symlink_to(tmp_path / "m")
    assert publish(job, desk.layout, results(tmp_path, ["lecture"]), {}).name == "lecture-2"


def test_room_is_looked_at_first(desk: Desk, tmp_path: Path) -> None:
    job = desk.job()
    made = results(tmp_path, ["lecture"])
    os.truncate(made[0].video, 8 * 10**12)  # sparse
    with pytest.raises(DiskFullError, match="are free"):
        publish(job, desk.layout, made, {})
    assert list(desk.layout.outbox.iterdir()) == []


def test_a_folder_name_is_never_without_its_marker(layout: Layout, desk: Desk, tmp_path: Path) -> None:
    job = desk.job()
    failpoints.arm("outbox.copy=eio")
    with pytest.raises(HeygemdError):
        publish(job, layout, results(tmp_path, ["lecture"]), {})
    assert find_own(layout.outbox, job) is not None
