"""The inbox on a real filesystem: settling, pairs, manifests, presets, names, and what must be refused."""

from __future__ import annotations

import errno
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from heygemd import failpoints
from heygemd.core.errors import LimitError, MissingInputError, ShareAwayError, UnsafePathError
from heygemd.spool.beneath import open_beneath
from heygemd.spool.drops import Why
from heygemd.spool.fairness import Load

from .conftest import Desk


def only_wait(desk: Desk) -> tuple[Why, str]:
    scan = desk.settled()
    assert not scan.ready and not scan.refused
    (waiting,) = scan.waiting
    return waiting.reason, waiting.detail


# settling


def test_a_pair_is_ready_once_both_files_are_quiet(desk: Desk) -> None:
    desk.put("lecture.mp4", b"v")
    desk.put("lecture.wav", b"a")
    first = desk.scan()
    assert not first.ready and first.waiting[0].reason is Why.SETTLING
    assert not desk.scan(1.0).ready, "two scans alone are not quiet time"
    scan = desk.scan(5.0)
    (drop,) = scan.ready
    assert (drop.name, drop.folder, drop.batch, drop.manifest) == ("lecture", "", False, None)
    assert [(f.path, f.role) for f in drop.inputs] == [("lecture.mp4", "video"), ("lecture.wav", "audio")]
    assert drop.items[0].video == "lecture.mp4" and drop.items[0].audio == "lecture.wav"


def test_quiet_time_alone_is_not_enough_either(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(settle_scans=3)
    desk.put("a.mp4")
    desk.put("a.wav")
    desk.scan()
    assert not desk.scan(100.0).ready
    assert desk.scan(100.0).ready


def test_a_growing_file_is_not_taken_however_long_it_takes(desk: Desk) -> None:
    desk.put("a.wav")
    video = desk.put("a.mp4", b"")
    for _ in range(50):  # a copy that takes ten minutes: age since discovery is no quiet time
        with video.open("ab") as file:
            file.write(b"more")
        scan = desk.scan(12.0)
        assert not scan.ready and scan.waiting[0].reason is Why.SETTLING
    assert desk.scan(12.0).ready


def test_a_preallocated_file_that_is_filled_later_is_not_taken(desk: Desk) -> None:
    desk.put("a.wav")
    video = desk.put("a.mp4", b"\0" * 4096)
    for n in range(20):
        with video.open("r+b") as file:
            file.seek(n)
            file.write(b"!")
        os.utime(video, ns=(n + 1, n + 1))  # the size never changes, the time of the share's clock does
        assert not desk.scan(12.0).ready
    assert desk.scan(12.0).ready


def test_a_file_that_is_renamed_over_settles_anew(desk: Desk) -> None:
    desk.put("a.mp4")
    desk.put("a.wav")
    desk.scan()
    other = desk.put("b.tmp", b"x")
    shutil.copystat(desk.layout.inbox / "a.wav", other)
    other.replace(desk.layout.inbox / "a.wav")  # same size, same mtime, another inode
    assert not desk.scan(10.0).ready
    assert desk.scan(10.0).ready


@pytest.mark.parametrize("mtime", [0, 4 * 10**9])
def test_the_clock_of_the_share_does_not_matter(desk: Desk, mtime: int) -> None:
    for name in ("a.mp4", "a.wav"):
        os.utime(desk.put(name), (mtime, mtime))
    assert desk.settled().ready


def test_an_unreadable_folder_is_later_not_gone(desk: Desk) -> None:
    desk.put("sub/a.mp4")
    desk.put("sub/a.wav")
    desk.scan()
    failpoints.arm("scan.list=eio@2")  # the top is listed, the folder is not
    scan = desk.scan(10.0)
    assert [u.path for u in scan.unreadable] == ["sub"] and not scan.ready
    assert desk.scan(1.0).ready, "what was known of its files was kept"


def test_an_inbox_that_cannot_be_listed_is_a_share_that_is_away(desk: Desk) -> None:
    failpoints.arm("scan.list=estale")
    with pytest.raises(ShareAwayError):
        desk.scan()
    (desk.layout.root / ".heygemd-root").unlink()
    with pytest.raises(ShareAwayError, match="not mounted"):
        desk.scan()


# pairs


@pytest.mark.parametrize(
    ("video", "audio"),
    [("a.mp4", "a.m4a"), ("a.jpg", "a.wav"), ("a.WEBM", "a.Mp3"), ("a.mov", "a.txt"), ("a.b.mkv", "a.b.flac")],
)
def test_kinds_of_pairs(desk: Desk, video: str, audio: str) -> None:
    desk.put(video)
    desk.put(audio)
    (drop,) = desk.settled().ready
    assert (drop.items[0].video, drop.items[0].audio) == (video, audio)
    assert drop.inputs[1].role == ("text" if audio.endswith("txt") else "audio")


def test_composed_and_decomposed_names_are_one_name(desk: Desk) -> None:
    nfd, nfc = unicodedata.normalize("NFD", "vidéo"), unicodedata.normalize("NFC", "vidéo")
    desk.put(f"{nfd}.mp4")
    desk.put(f"{nfc}.wav")
    (drop,) = desk.settled().ready
    assert drop.name == nfc
    assert drop.items[0].video == f"{nfd}.mp4", "the path stays as the disk spells it"


def test_two_whole_pairs_that_only_differ_in_composition(desk: Desk) -> None:
    for form in ("NFC", "NFD"):
        for suffix in ("mp4", "wav"):
            desk.put(f"{unicodedata.normalize(form, 'é')}.{suffix}", form)
    jobs = desk.claim(desk.settled())
    assert sorted(job.name for job in jobs) == ["é", "é-2"]
    for job in jobs:
        stems = {f.path.rpartition(".")[0] for f in job.inputs}
        assert len(stems) == 1, "each video with the recording of its own spelling"


def test_an_ambiguous_stem_waits_and_says_why(desk: Desk) -> None:
    for name in ("a.mp4", "a.mov", "a.wav"):
        desk.put(name)
    why, detail = only_wait(desk)
    assert why is Why.AMBIGUOUS and "a.mov, a.mp4" in detail and "a.wav" in detail
    (desk.layout.inbox / "a.mov").unlink()
    assert desk.scan(1.0).ready


def test_a_partner_that_never_comes(desk: Desk) -> None:
    desk.put("alone.mp4")
    why, detail = only_wait(desk)
    assert why is Why.PARTNER and "alone" in detail
    assert not desk.scan(80000.0).refused
    scan = desk.scan(10000.0)
    (refusal,) = scan.refused
    assert isinstance(refusal.error, MissingInputError) and "alone.mp4" in refusal.error.message
    assert [f.path for f in refusal.drop.inputs] == ["alone.mp4"] and refusal.drop.items == ()


def test_nothing_times_out_while_a_part_of_the_inbox_cannot_be_seen(desk: Desk) -> None:
    desk.put("alone.mp4")
    desk.put("sub/x.txt")
    desk.settled()
    failpoints.arm("scan.list=eio@2")
    assert not desk.scan(1e6).refused
    failpoints.arm("")
    assert desk.scan(1.0).refused


def test_files_of_two_folders_are_no_pair_and_equal_names_get_counters(desk: Desk) -> None:
    for folder in ("one", "two"):
        desk.put(f"{folder}/lecture.mp4")
        desk.put(f"{folder}/lecture.wav")
    desk.put("three/lecture.mp4")
    desk.put("four/lecture.wav")
    scan = desk.settled()
    jobs = desk.claim(scan)
    assert sorted(job.name for job in jobs) == ["lecture", "lecture-2"]
    assert sorted(job.folder for job in jobs) == ["one", "two"]
    assert {job.items[0].name for job in jobs} == {"lecture", "lecture-2"}, "a single result is called as its job"
    assert len(scan.waiting) == 2


def test_names_of_existing_results_are_taken(desk: Desk) -> None:
    (desk.layout.outbox / "Lecture").mkdir()
    desk.put("lecture.mp4")
    desk.put("lecture.wav")
    (job,) = desk.claim(desk.settled())
    assert job.name == "lecture-2", "SMB clients see no difference of case"


def test_claimed_files_are_left_alone_and_a_new_half_pairs_with_the_old(desk: Desk) -> None:
    desk.job("a")
    scan = desk.settled()
    assert not scan.ready and not scan.waiting and scan.num_claimed == 2
    desk.put("a.wav", b"a new take")
    (drop,) = desk.settled().ready
    assert {f.path for f in drop.inputs} == {"a.mp4", "a.wav"}


def test_the_same_pair_dropped_twice_is_two_jobs(desk: Desk) -> None:
    first = desk.job("a")
    for name in ("a.mp4", "a.wav"):
        os.utime(desk.put(name, b"the very same"), (5, 5))
    (second,) = desk.claim(desk.settled())
    assert (first.name, second.name) == ("a", "a-2")


def test_a_third_file_beside_a_running_pair_waits(desk: Desk) -> None:
    desk.job("a")
    desk.put("a.mov")
    scan = desk.settled()
    assert not scan.ready and scan.waiting[0].reason is Why.IN_USE
    assert not desk.scan(1e7).refused


@pytest.mark.parametrize(
    "stem",
    [
        "课程 1",
        'he said "hi"',
        "it's",
        "🎬🎤",
        "-rf",
        "a\nb",
        "$(reboot)",
        "x" * 251,
        "é" * 125,
        "a;b&c|d",
        "50%",
        "a\\b",
    ],
)
def test_names_survive(desk: Desk, stem: str) -> None:
    desk.put(f"{stem}.mp4")
    desk.put(f"{stem}.wav")
    (drop,) = desk.settled().ready
    assert drop.items[0].video == f"{stem}.mp4"
    assert 0 < len(drop.name.encode()) <= 100
    assert drop.name[0] not in "-." and not set(drop.name) & set("/\n\\\0")


def test_a_name_with_a_line_break_is_escaped_in_messages(desk: Desk) -> None:
    desk.put("a\nERROR forged.mp4")
    _, detail = only_wait(desk)
    assert "\n" not in detail and "\\n" in detail


def test_a_name_that_is_not_utf8_is_ignored_with_a_reason(desk: Desk) -> None:
    desk.put(os.fsdecode(b"caf\xe9.mp4"))
    (ignored,) = desk.scan().ignored
    assert "UTF-8" in ignored.reason


# ignored


@pytest.mark.parametrize(
    "name",
    [".hidden.mp4", "._a.mp4", "Thumbs.db", "DESKTOP.INI", "~$a.mp4", "a.mp4.part", "a.PARTIAL", "a.tmp",
     "a.crdownload", "a.filepart", ".nfs0001", ".DS_Store", "a.pdf", "README"],
)  # fmt: skip
def test_ignored_files_say_why(desk: Desk, name: str) -> None:
    desk.put(name)
    scan = desk.settled()
    assert [i.path for i in scan.ignored] == [name] and scan.ignored[0].reason
    assert not scan.ready and not scan.waiting
    assert scan.about(name) is not None


@pytest.mark.parametrize("folder", ["@eaDir", ".stfolder", "__MACOSX", "$RECYCLE.BIN", ".Trashes"])
def test_ignored_folders(desk: Desk, folder: str) -> None:
    desk.put(f"{folder}/a.mp4")
    desk.put(f"{folder}/a.wav")
    scan = desk.settled()
    assert not scan.ready and [i.path for i in scan.ignored] == [folder]
    assert "ignored" in (scan.about(f"{folder}/a.mp4") or "")


def test_more_globs_from_the_configuration(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(ignore=("draft_*", "[x].mp4"))
    for stem in ("draft_1", "x", "fine"):
        desk.put(f"{stem}.mp4")
        desk.put(f"{stem}.wav")
    assert [d.name for d in desk.settled().ready] == ["fine"]


def test_links_and_special_files_are_never_followed(desk: Desk, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.mkdir()
    for name in ("a.mp4", "a.wav"):
        (outside / name).write_bytes(b"secret")
    (desk.layout.inbox / "a.mp4").symlink_to(outside / "a.mp4")
    (desk.layout.inbox / "folder").symlink_to(outside)
    os.mkfifo(desk.layout.inbox / "b.wav")
    scan = desk.settled()
    assert not scan.ready and not scan.num_files
    assert {i.path: i.reason.split(";")[0] for i in scan.ignored} == {
        "a.mp4": "a symbolic link",
        "folder": "a symbolic link",
        "b.wav": "not a plain file",
    }


def test_a_hard_link_is_refused(desk: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    (desk.layout.inbox / "a.mp4").hardlink_to(secret)
    desk.put("a.wav")
    (refusal,) = desk.settled().refused
    assert isinstance(refusal.error, UnsafePathError) and "hard link" in refusal.error.message


def test_deep_folders_and_the_pause_file(desk: Desk) -> None:
    deep = "/".join("d" * 1 for _ in range(20))
    desk.put(f"{deep}/a.mp4")
    (desk.layout.root / "PAUSE").touch()
    scan = desk.scan()
    assert scan.num_files == 0 and "deeper" in scan.ignored[0].reason
    assert scan.paused


def test_folder_limit_leaves_the_rest_in_the_inbox(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(max_pending_per_folder=3)
    for n in range(5):
        desk.put(f"f/{n}.mp4")
        desk.put(f"f/{n}.wav")
    desk.settled()
    scan = desk.inbox.scan(frozenset(), {"f": Load(1)})
    assert len(scan.ready) == 2
    assert [w.reason for w in scan.waiting] == [Why.FOLDER_LIMIT] * 3


def test_bytes_of_a_folder_are_limited_and_what_never_fits_is_refused(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(max_pending_bytes_per_folder=100)
    for name, size in (("a", 40), ("b", 40), ("c", 40), ("huge", 101)):
        desk.put(f"f/{name}.mp4", b"x" * (size - 1))
        desk.put(f"f/{name}.wav", b"x")
    desk.put("g/d.mp4", b"x" * 90)
    desk.put("g/d.wav")
    desk.settled()
    scan = desk.inbox.scan(frozenset(), {"f": Load(1, 30)})
    assert [d.name for d in scan.ready] == ["a", "d"], "another folder has room of its own"
    assert [(w.path, w.reason) for w in scan.waiting] == [("f/b.mp4", Why.FOLDER_LIMIT), ("f/c.mp4", Why.FOLDER_LIMIT)]
    assert "70 bytes of this folder wait already; 100 may" in scan.waiting[0].detail
    (refusal,) = scan.refused
    assert isinstance(refusal.error, LimitError) and refusal.drop.items == () and len(refusal.drop.inputs) == 2
    assert len(desk.inbox.scan(frozenset(), {}).ready) == 3, "later there is room: nothing was dropped"


def test_what_is_open_for_writing_waits(desk: Desk) -> None:
    desk.put("a.mp4")
    desk.put("a.wav")
    desk.put("b.job.json", "{")
    with (desk.layout.inbox / "a.mp4").open("ab"), (desk.layout.inbox / "b.job.json").open("ab"):
        scan = desk.settled()
        assert not scan.ready and not scan.refused
        assert {(w.reason, w.detail.partition(" ")[2]) for w in scan.waiting} == {
            (Why.BUSY, "is still open for writing")
        }
        assert not desk.scan(1e6).ready, "however long it is quiet"
    with (desk.layout.inbox / "a.mp4").open("rb"):
        scan = desk.scan(1.0)
        assert len(scan.ready) == 1 and len(scan.refused) == 1, "readers do not matter"


def denied(*names: str) -> Callable[[Path, str], BinaryIO]:
    """`open_beneath` as a daemon meets it that may not read these (root, who runs tests too, may read everything)."""

    def opened(root: Path, relative: str) -> BinaryIO:
        if relative in names:
            raise PermissionError(errno.EACCES, "Permission denied", relative)
        return open_beneath(root, relative)

    return opened


def test_what_the_daemon_may_not_read_waits_and_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.mp4", "a.wav", "b.mp4", "b.wav"):
        desk.put(name)
    monkeypatch.setattr("heygemd.spool.writers.open_beneath", denied("a.wav"))
    scan = desk.settled()
    assert [drop.name for drop in scan.ready] == ["b"], "a job of it would only wait, in another one's place"
    (waiting,) = scan.waiting
    assert waiting.reason is Why.DENIED and "a.wav: the daemon may not read it" in waiting.detail
    assert not desk.scan(1e6).refused, "it is not the user's last word"
    monkeypatch.undo()
    assert [drop.name for drop in desk.scan(1.0).ready] == ["a", "b"]


def test_a_manifest_that_may_not_be_read_holds_back_its_own_name_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "a.wav", "b.mp4", "b.wav", "sub/a.mp4", "sub/a.wav"):
        desk.put(name)
    desk.put("a.job.json", '{"version": 1, "video": "a.mp4", "audio": "a.wav"}')
    monkeypatch.setattr("heygemd.spool.wording.open_beneath", denied("a.job.json"))
    scan = desk.settled()
    assert sorted(drop.items[0].video for drop in scan.ready) == ["b.mp4", "sub/a.mp4"]
    assert {(w.path, w.reason) for w in scan.waiting} == {("a.job.json", Why.DENIED), ("a.mp4", Why.DENIED)}


def test_filesystems_that_refuse_leases_are_not_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.spool.writers.fs_type", lambda _path: "nfs4")
    desk.put("a.mp4")
    desk.put("a.wav")
    with (desk.layout.inbox / "a.mp4").open("ab"):
        assert desk.settled().ready


def test_a_file_over_the_limit_is_refused(desk: Desk) -> None:
    huge = desk.put("a.mp4")
    os.truncate(huge, 300 * 10**9)  # sparse
    desk.put("a.wav")
    (refusal,) = desk.settled().refused
    assert isinstance(refusal.error, LimitError)
    desk.claimed |= refusal.drop.key
    desk.put("b.mp4")
    desk.put("b.txt", b"x" * 500_000)
    (refusal,) = desk.scan().refused or desk.scan(10.0).refused
    assert isinstance(refusal.error, LimitError) and "b.txt" in refusal.error.message


def test_arrival_order(desk: Desk) -> None:
    for stem in ("z", "m", "a"):
        desk.put(f"{stem}.mp4")
        desk.put(f"{stem}.wav")
        desk.scan(1.0)
    assert [d.name for d in desk.scan(10.0).ready] == ["z", "m", "a"]
