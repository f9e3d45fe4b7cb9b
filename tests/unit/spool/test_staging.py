"""Copies on local disk: whole, hashed, the files that were claimed, resumed after a crash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from heygemd import failpoints
from heygemd.core.errors import BadInputError, DiskFullError, HeygemdError, ShareAwayError, UnsafePathError
from heygemd.spool.staging import InputChangedError, InputVanishedError, stage, sweep_parts, sweep_work, unstage

from .conftest import Desk, tree


def test_a_pair_is_copied_with_its_sums(desk: Desk) -> None:
    job = desk.job("课程 1", b"video" * 1000, b"audio")
    told: list[tuple[int, int]] = []
    staged = stage(job, desk.layout, on_bytes=lambda done, total: told.append((done, total)))
    (item,) = staged.items
    assert item.video.read_bytes() == b"video" * 1000 and item.audio is not None
    assert item.audio.read_bytes() == b"audio" and item.audio.suffix == ".wav" and item.text is None
    assert item.work.is_dir() and staged.sums()["课程 1.wav"] == hashlib.sha256(b"audio").hexdigest()
    assert told[-1] == (5005, 5005)
    assert (desk.layout.inbox / "课程 1.mp4").exists(), "nothing is moved before there is a result"


def test_the_manifest_is_not_copied_and_one_file_serves_twice(desk: Desk) -> None:
    desk.put("v.mp4", b"both")
    desk.put("a.job.json", json.dumps({"version": 1, "video": "v.mp4", "audio": "v.mp4"}))
    (job,) = desk.claim(desk.settled())
    staged = stage(job, desk.layout)
    assert staged.items[0].video == staged.items[0].audio and len(staged.inputs) == 1


def test_staging_again_copies_nothing(desk: Desk) -> None:
    job = desk.job()
    first = stage(job, desk.layout)
    shutil.rmtree(desk.layout.inbox)  # the local copies are enough
    assert stage(job, desk.layout) == first


@pytest.mark.parametrize("point", ["stage.begin", "stage.copy@2", "stage.record", "stage.record@2", "stage.end"])
@pytest.mark.parametrize("action", ["enospc", "eio", "estale", "ebusy"])
def test_staging_goes_on_after_a_failure(desk: Desk, point: str, action: str) -> None:
    job = desk.job(video=b"v" * 999)
    name, _, nth = point.partition("@")
    failpoints.arm(f"{name}={action}@{nth or 1}")
    with pytest.raises(HeygemdError) as caught:
        stage(job, desk.layout)
    assert caught.value.retryable and caught.value.exit_code == 75
    failpoints.arm("")
    staged = stage(job, desk.layout)
    assert staged.items[0].video.read_bytes() == b"v" * 999
    assert set(tree(desk.layout.job_inputs(job.id))) == {"000/lecture.mp4", "001/lecture.wav", "inputs.json"}


def test_a_cut_copy_is_made_anew(desk: Desk) -> None:
    job = desk.job(video=b"v" * 999)
    staged = stage(job, desk.layout)
    os.truncate(staged.items[0].video, 10)
    assert stage(job, desk.layout).items[0].video.read_bytes() == b"v" * 999


def test_changed_and_vanished_inputs_are_told_apart(desk: Desk) -> None:
    job = desk.job()
    desk.put("lecture.wav", b"a new take")
    with pytest.raises(InputChangedError, match=r"lecture\.wav"):
        stage(job, desk.layout)
    (desk.layout.inbox / "lecture.wav").unlink()
    with pytest.raises(InputVanishedError, match=r"lecture\.wav"):
        stage(job, desk.layout)
    (desk.layout.root / ".heygemd-root").unlink()
    with pytest.raises(ShareAwayError):
        stage(job, desk.layout)


def test_an_input_that_changes_while_it_is_copied(desk: Desk) -> None:
    job = desk.job()

    def write_more(done: int, total: int) -> None:
        with (desk.layout.inbox / "lecture.mp4").open("ab") as file:
            file.write(b"more")

    with pytest.raises(InputChangedError):
        stage(job, desk.layout, on_bytes=write_more)
    assert not list(desk.layout.job_inputs(job.id).glob("000/*"))


def test_a_file_swapped_for_a_link_is_not_read(desk: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    job = desk.job(video=b"12345")
    video = desk.layout.inbox / "lecture.mp4"
    secret.write_bytes(b"topsy")
    shutil.copystat(video, secret)  # same size, same times
    video.unlink()
    video.symlink_to(secret)
    with pytest.raises((InputChangedError, UnsafePathError)):
        stage(job, desk.layout)
    video.unlink()
    video.hardlink_to(secret)
    with pytest.raises(InputChangedError):
        stage(job, desk.layout)


def test_a_folder_swapped_for_a_link_is_not_entered(desk: Desk, tmp_path: Path) -> None:
    job = desk.job("sub/lecture")
    folder = desk.layout.inbox / "sub"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePathError, match="symbolic link"):
        stage(job, desk.layout)


def test_sums_of_the_manifest_are_checked(desk: Desk) -> None:
    desk.put("v.mp4", b"video")
    good = hashlib.sha256(b"video").hexdigest()
    for n, digest in enumerate((good, "0" * 64)):
        keys = {"version": 1, "video": "v.mp4", "text": "x", "sha256": {"v.mp4": digest}}
        desk.put(f"{n}.job.json", json.dumps(keys))
    right, wrong = desk.claim(desk.settled())
    assert stage(right, desk.layout).sums() == {"v.mp4": good}
    with pytest.raises(BadInputError, match="promises 0000") as caught:
        stage(wrong, desk.layout)
    assert not caught.value.retryable


def test_room_is_looked_at_first(desk: Desk) -> None:
    job = desk.job()
    with pytest.raises(DiskFullError, match="are free"):
        stage(job, desk.layout, reserve_bytes=10**18)
    stage(job, desk.layout)
    stage(job, desk.layout, reserve_bytes=10**18)  # nothing left to copy: nothing to refuse


def test_a_copy_can_be_stopped(desk: Desk) -> None:
    job = desk.job()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(job, desk.layout, on_bytes=stop)
    assert not list(desk.layout.job_inputs(job.id).glob("0*/*"))


def test_a_copy_keeps_the_name_that_messages_will_speak_of(desk: Desk) -> None:
    desk.put("v.mp4")
    desk.put("weird.$(x)")
    desk.put("a.job.json", json.dumps({"version": 1, "video": "v.mp4", "audio": "weird.$(x)"}))
    (job,) = desk.claim(desk.settled())
    audio = stage(job, desk.layout).items[0].audio
    assert audio is not None and audio.parts[-2:] == ("001", "weird.$(x)")


def test_sweeping(desk: Desk) -> None:
    jobs = [desk.job(stem) for stem in ("a", "b")]
    for job in jobs:
        stage(job, desk.layout)
    (desk.layout.work / "junk").write_bytes(b"")
    assert set(sweep_work(desk.layout, frozenset({jobs[0].id}))) == {jobs[1].id, "junk"}
    unstage(jobs[0].id, desk.layout)
    assert list(desk.layout.work.iterdir()) == []


def test_parts_in_the_state_folder_are_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".heygemd-0123456789ab.part", "calibration.json", "notes.part"):
        (tmp_path / name).write_text("x")
    (tmp_path / "work").mkdir()
    assert sweep_parts(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.json", "notes.part", "work"]
