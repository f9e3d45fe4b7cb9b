"""Where inputs go in the end: archive, failed, back. Exactly one place, whatever fails on the way."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from heygemd import failpoints
from heygemd.core.errors import BadInputError, CancelledError, HeygemdError, NoFaceError
from heygemd.core.job import InputFile, Job
from heygemd.spool.farewell import archive, begin_retry, reject, restore, tidy
from heygemd.spool.layout import MARKER, Layout
from heygemd.spool.places import archive_parent, find_own, kept_names
from heygemd.spool.staging import InputVanishedError, stage

from .conftest import Desk, tree
from .test_outbox import batch_of

ERROR = NoFaceError("课程.mp4 shows no face")


def everywhere(layout: Layout) -> dict[str, bytes]:
    """Every file of users on the share, by its last name."""
    ours = {"error.json", "ffmpeg.log", MARKER, ".heygemd-root"}
    return {path: data for path, data in tree(layout.root).items() if Path(path).name not in ours}


def test_inputs_go_to_the_archive_of_the_day(desk: Desk) -> None:
    job = desk.job("sub/课程 1")
    moved = archive(job, desk.layout)
    assert moved.folder == archive_parent(desk.layout, job) / "课程 1"
    assert set(moved.moved) == {"sub/课程 1.mp4", "sub/课程 1.wav"} and not moved.left
    assert set(tree(moved.folder)) == {"课程 1.mp4", "课程 1.wav", MARKER}
    assert archive(job, desk.layout) == moved, "repeatable"
    assert (desk.layout.inbox / "sub").is_dir(), "people's folders stay"


def test_changed_vanished_and_shared_inputs_stay(desk: Desk) -> None:
    for name in ("v.mp4", "a.wav", "b.wav"):
        desk.put(name)
    desk.put("x.job.json", json.dumps({"version": 1, "video": "v.mp4", "audios": ["a.wav", "b.wav"]}))
    (job,) = desk.claim(desk.settled())
    desk.put("a.wav", b"a new take")
    (desk.layout.inbox / "b.wav").unlink()
    shared = next(f for f in job.inputs if f.path == "v.mp4")
    moved = archive(job, desk.layout, still_needed={(shared.path, shared.size, shared.mtime_ns)})
    assert moved.moved == ("x.job.json",)
    assert {left.path: left.reason for left in moved.left} == {
        "v.mp4": "another job needs it",
        "a.wav": "changed after it was claimed",
        "b.wav": "gone",
    }
    assert not moved.stuck_paths
    assert (desk.layout.inbox / "a.wav").read_bytes() == b"a new take"


def test_what_cannot_be_moved_stays_claimed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = desk.job()

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("heygemd.spool.farewell.move_file", refuse)
    moved = archive(job, desk.layout)
    assert moved.stuck_paths == {"lecture.mp4", "lecture.wav"}


@pytest.mark.parametrize("failed", [False, True])
def test_stuck_inputs_follow_later(desk: Desk, monkeypatch: pytest.MonkeyPatch, failed: bool) -> None:
    import heygemd.spool.farewell as farewell

    job = desk.job("a", b"v", b"a")
    original, calls = farewell.move_file, []

    def busy_once(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 1:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        original(source, target)

    monkeypatch.setattr(farewell, "move_file", busy_once)
    moved = reject(job, desk.layout, ERROR) if failed else archive(job, desk.layout)
    assert moved.stuck_paths == {"a.mp4"}
    again = tidy(job, desk.layout)
    assert again.folder == moved.folder and not again.left
    assert sorted(p.name for p in moved.folder.iterdir() if p.suffix in (".mp4", ".wav")) == ["a.mp4", "a.wav"]


def test_a_temp_file_of_a_killed_daemon_goes(desk: Desk) -> None:
    job = desk.job("a")
    folder = reject(job, desk.layout, ERROR).folder
    (folder / ".heygemd-abc.part").touch()
    reject(job, desk.layout, ERROR)
    assert not list(folder.glob("*.part"))


def test_names_in_the_archive_are_flat_and_never_collide(desk: Desk) -> None:
    paths = ["a/x.wav", "b/X.wav", "error.json", "c/error.json", MARKER, "a/noext", "b/noext", "d/" + "é" * 126 + ".w"]
    paths.append("e/" + "é" * 126 + ".w")
    names = kept_names([InputFile(p, "video", 1, 1, 1, 1) for p in paths])
    assert list(names) == paths and len({n.casefold() for n in names.values()}) == len(paths)
    assert names["b/X.wav"] == "X-2.wav" and names["error.json"] == "error-2.json"
    assert all(len(n.encode()) <= 255 and "/" not in n for n in names.values())


def test_a_failed_job_keeps_its_inputs_error_and_log(desk: Desk, tmp_path: Path) -> None:
    job = desk.job("课程", b"v", b"a")
    log = tmp_path / "ffmpeg.log"
    log.write_bytes(b"start" + b"x" * 2_000_000 + b"end")
    moved = reject(job, desk.layout, ERROR, ffmpeg_log=log)
    found = tree(desk.layout.failed / "课程")
    assert found.keys() == {"课程.mp4", "课程.wav", "error.json", "ffmpeg.log", MARKER}
    view = json.loads(found["error.json"])
    assert view["error"]["code"] == "HG-1006" and view["retry"] == "heygemd retry '课程'"
    assert view["inputs"][0] == {"path": "课程.mp4", "file": "课程.mp4", "left": None}
    assert len(found["ffmpeg.log"]) == 1_000_000 and found["ffmpeg.log"].endswith(b"end")
    assert reject(job, desk.layout, ERROR) == moved


@pytest.mark.parametrize("action", ["enospc", "eio"])
@pytest.mark.parametrize(
    "point", ["reject.folder", "reject.move", "reject.move@2", "reject.error", "reject.end", "archive.folder",
              "archive.move", "archive.move@2", "archive.end"],
)  # fmt: skip
def test_every_input_is_in_one_place_whatever_fails(desk: Desk, point: str, action: str) -> None:
    job = desk.job("sub/a", b"v", b"a")
    name, _, nth = point.partition("@")
    failpoints.arm(f"{name}={action}@{nth or 1}")

    def way() -> object:
        return reject(job, desk.layout, ERROR) if point.startswith("reject") else archive(job, desk.layout)

    with pytest.raises(HeygemdError):
        way()
    assert sorted(everywhere(desk.layout).values()) == [b"a", b"v"]
    failpoints.arm("")
    way()
    found = everywhere(desk.layout)
    assert sorted(found.values()) == [b"a", b"v"] and not any(path.startswith("inbox") for path in found)
    assert not list(desk.layout.root.rglob(".heygemd-*.part"))


def test_a_partly_failed_batch_is_parted(desk: Desk) -> None:
    job = batch_of(desk, ["one", "two", "three"])
    moved = reject(job, desk.layout, ERROR, failed_items={"two": ERROR})
    assert set(moved.moved) == {"two.mp4", "s.wav", "course.job.json"}
    assert {p.name for p in (archive_parent(desk.layout, job) / "course").iterdir()} == {"one.mp4", "three.mp4", MARKER}
    view = json.loads((moved.folder / "error.json").read_text())
    assert [item["name"] for item in view["items"]] == ["two"]
    begin_retry(job, desk.layout)
    assert len(stage(job, desk.layout).items) == 3, "a retry finds the good ones in the archive"
    archive(job, desk.layout)
    assert find_own(desk.layout.failed, job) is None
    assert len(list((archive_parent(desk.layout, job) / "course").iterdir())) == 6


def test_retry_needs_no_new_copy_and_leaves_no_trace(desk: Desk) -> None:
    job = desk.job("a", b"v", b"a")
    reject(job, desk.layout, CancelledError("cancelled"))
    begin_retry(job, desk.layout)
    assert not (desk.layout.failed / "a/error.json").exists(), "it says: failed now"
    assert stage(job, desk.layout).items[0].video.read_bytes() == b"v"
    archive(job, desk.layout)
    assert not (desk.layout.failed / "a").exists()
    assert sorted(everywhere(desk.layout).values()) == [b"a", b"v"]


def test_a_retry_takes_what_was_mended_in_failed(desk: Desk) -> None:
    job = desk.job("a", b"v", b"a")
    reject(job, desk.layout, ERROR)
    (desk.layout.failed / "a/a.mp4").write_bytes(b"a better video")
    assert stage(job, desk.layout).items[0].video.read_bytes() == b"a better video"


def test_retry_of_inputs_that_are_gone(desk: Desk) -> None:
    job = desk.job("a")
    reject(job, desk.layout, ERROR)
    (desk.layout.failed / "a/a.wav").unlink()
    with pytest.raises(BadInputError, match=r"a\.wav is no longer there"):
        begin_retry(job, desk.layout)
    with pytest.raises(InputVanishedError):
        stage(job, desk.layout)


def test_a_refused_drop_goes_back_to_the_inbox_manifest_last(desk: Desk) -> None:
    desk.put("sub/v.mp4", b"v")
    desk.put("sub/a.job.json", json.dumps({"version": 1, "video": "v.mp4", "text": "x", "bad": 1}))
    (refusal,) = desk.settled().refused
    job = refusal.drop.to_job("f" * 32, "a", 1e9)
    reject(job, desk.layout, refusal.error)
    (desk.layout.inbox / "sub").rmdir()
    desk.put("sub/v.mp4", b"another")
    with pytest.raises(BadInputError, match="already holds another"):
        restore(job, desk.layout)
    (desk.layout.inbox / "sub/v.mp4").unlink()
    failpoints.arm("restore.move=eio@2")
    with pytest.raises(HeygemdError):
        restore(job, desk.layout)
    assert not (desk.layout.inbox / "sub/a.job.json").exists()
    failpoints.arm("")
    assert restore(job, desk.layout) == ("sub/a.job.json",)
    assert sorted(everywhere(desk.layout)) == ["inbox/sub/a.job.json", "inbox/sub/v.mp4"]
    assert list(desk.layout.failed.iterdir()) == []
    assert desk.settled().refused


def test_things_of_others_in_failed_stay(desk: Desk) -> None:
    job = desk.job("a")
    reject(job, desk.layout, ERROR)
    (desk.layout.failed / "a/notes.txt").write_bytes(b"mine")
    restore(job, desk.layout)
    assert (desk.layout.failed / "a/notes.txt").read_bytes() == b"mine"


def test_a_swapped_folder_moves_nothing_from_outside(desk: Desk, tmp_path: Path) -> None:
    job = desk.job("sub/a")
    folder = desk.layout.inbox / "sub"
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")  # the same inodes through a link
    moved = archive(job, desk.layout)
    assert not moved.moved and all("symbolic link" in left.reason for left in moved.left)
    assert set(tree(tmp_path / "outside")) == {"a.mp4", "a.wav"}


def test_the_same_file_after_a_new_mount(desk: Desk) -> None:
    job = desk.job("a")
    other = tuple(InputFile(f.path, f.role, f.size, f.mtime_ns, f.device + 7, f.inode) for f in job.inputs)
    moved = archive(job.evolve(inputs=other), desk.layout)
    assert len(moved.moved) == 2, "a mount's device number says nothing about the file"


def test_across_filesystems_a_copy_replaces_the_rename(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import heygemd.spool.beneath as beneath

    job = desk.job("a", b"v", b"a")
    original = beneath.rename_noreplace

    def exdev(source: Path, target: Path) -> None:
        if source.suffix != ".part":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        original(source, target)

    monkeypatch.setattr(beneath, "rename_noreplace", exdev)
    moved = archive(job, desk.layout)
    assert len(moved.moved) == 2 and sorted(everywhere(desk.layout).values()) == [b"a", b"v"]


def test_two_jobs_of_one_name_on_one_day(desk: Desk) -> None:
    first = desk.job("a")
    archive(first, desk.layout)
    desk.claimed.clear()
    second: Job = desk.job("a").evolve(name="a")  # the journal forgot the first
    assert archive(second, desk.layout).folder.name == "a-2"
