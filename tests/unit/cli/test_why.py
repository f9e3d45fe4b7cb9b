"""`why`: every reason that a file can have to lie there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from heygemd.cli.why import Answer, explain_path
from heygemd.config import Settings
from heygemd.core.errors import UsageError
from heygemd.core.job import InputFile, Item, Job, JobState
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout

from .conftest import Run, write_status


def drop(layout: Layout, name: str, content: bytes | str = b"x", age_seconds: float = 3600) -> Path:
    path = layout.inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (time.time() - age_seconds,) * 2)
    return path


def ask(layout: Layout, path: str | Path, settle_seconds: float = 0.0) -> Answer:
    settings = Settings(root=layout.root, state=layout.state, inbox={"settle_seconds": settle_seconds})  # type: ignore[arg-type]
    return explain_path(settings, layout, Path(path))


@pytest.mark.parametrize(
    ("name", "words"),
    [("._a.mp4", "macOS"), ("x.part", "unfinished"), (".hidden", "hidden"), ("notes.pdf", "not a kind of file")],
)
def test_ignored(layout: Layout, name: str, words: str) -> None:
    answer = ask(layout, drop(layout, name))
    assert answer.verdict == "ignored"
    assert words in answer.reason


def test_what_can_be_done_about_a_link_and_a_folder(layout: Layout, tmp_path: Path) -> None:
    (layout.inbox / "film.mp4").symlink_to("/etc/hostname")
    (layout.inbox / "films").symlink_to(tmp_path)
    for name in ("film.mp4", "films"):
        answer = ask(layout, layout.inbox / name)
        assert (answer.verdict, answer.next) == ("ignored", "copy what it points to")
    drop(layout, "__MACOSX/a.mp4")
    assert ask(layout, layout.inbox / "__MACOSX").verdict == "ignored"
    drop(layout, "course/a.mp4")
    with pytest.raises(UsageError, match="course is a folder"):
        ask(layout, layout.inbox / "course")


def test_in_an_ignored_folder(layout: Layout) -> None:
    answer = ask(layout, drop(layout, "@eaDir/a.mp4"))
    assert answer.verdict == "ignored"
    assert "@eaDir" in answer.reason


def test_unpaired(layout: Layout) -> None:
    drop(layout, "other.wav")
    answer = ask(layout, drop(layout, "a.mp4"))
    assert answer.verdict == "waiting"
    assert answer.next.startswith("drop the other half")


def test_still_growing(layout: Layout) -> None:
    drop(layout, "a.mp4")
    answer = ask(layout, drop(layout, "a.wav", age_seconds=0), settle_seconds=30)
    assert answer.verdict == "settling"
    assert "must be quiet for 30 s" in answer.reason


def test_ready_without_a_daemon(layout: Layout) -> None:
    drop(layout, "a.mp4")
    answer = ask(layout, drop(layout, "a.wav"))
    assert answer.verdict == "ready"
    assert "no daemon runs" in answer.next
    assert ask(layout, "a.wav") == answer, "a bare name means the one in the inbox"


def test_a_manifest_that_misses_a_file_speaks_for_the_other(layout: Layout) -> None:
    drop(layout, "m.job.json", json.dumps({"version": 1, "video": "v.mp4", "audio": "gone.wav"}))
    for name in (drop(layout, "v.mp4"), layout.inbox / "m.job.json"):
        answer = ask(layout, name)
        assert answer.verdict == "waiting"
        assert "gone.wav" in answer.reason


def test_a_manifest_that_is_wrong(layout: Layout) -> None:
    answer = ask(layout, drop(layout, "m.job.json", '{"version": 1, "vidoe": "v.mp4"}'))
    assert answer.verdict == "refused"
    assert "vidoe" in answer.reason


def add_job(layout: Layout, path: Path, **changes: object) -> Job:
    found = path.stat()
    file = InputFile(path.name, "video", found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino)
    job = Job("7", "lecture", "", (Item("lecture", path.name, "a.wav"),), (file,), created_seconds=1.0)
    job = job.evolve(**changes)
    with Journal(layout.journal) as journal:
        assert journal.add(job)
    return job


def test_claimed_and_queued(layout: Layout) -> None:
    path = drop(layout, "a.mp4")
    add_job(layout, path)
    write_status(layout, "lecture", "queued", position=4, reason="waits", next_action="it starts by itself")
    answer = ask(layout, path)
    assert (answer.verdict, answer.job) == ("queued", "lecture")
    assert "queued behind 3 others" in answer.reason


def test_done_and_gone(layout: Layout) -> None:
    path = drop(layout, "a.mp4")
    add_job(layout, path, state=JobState.DONE, ended_seconds=2.0)
    write_status(layout, "lecture", "done", reason="done", where="outbox/lecture/", next_action="take it")
    path.unlink()
    answer = ask(layout, path)
    assert answer.verdict == "done"
    assert "outbox/lecture/" in answer.reason


def test_an_input_that_could_not_be_moved_away_is_told_from_the_same_file_dropped_again(layout: Layout) -> None:
    path = drop(layout, "a.mp4")
    job = add_job(layout, path)
    ended = job.evolve(state=JobState.DONE, ended_seconds=2.0)
    with Journal(layout.journal) as journal:
        journal.finish(ended, except_paths={"a.mp4"})
    assert "may not write to its folder" in ask(layout, path).next
    assert ask(layout, "lecture").job == "lecture", "people know jobs by their names"
    with Journal(layout.journal) as journal:
        journal.finish(ended)
    assert ask(layout, path).verdict == "waiting"


def test_a_new_file_of_an_old_name_is_new(layout: Layout) -> None:
    path = drop(layout, "a.mp4")
    add_job(layout, path)
    drop(layout, "a.mp4", b"another", age_seconds=7200)
    assert ask(layout, path).verdict == "waiting"


def test_elsewhere_on_the_share(layout: Layout, tmp_path: Path) -> None:
    assert ask(layout, layout.outbox / "lecture" / "lecture.mp4").job == "lecture"
    assert ask(layout, layout.archive / "2026-01-01" / "lecture" / "a.wav").job == "lecture"
    assert ask(layout, layout.failed / "lecture" / "a.wav").verdict == "failed"
    other = tmp_path / "other.mp4"
    other.touch()
    with pytest.raises(UsageError, match="is not in the inbox"):
        ask(layout, other)


def test_unknown(layout: Layout) -> None:
    drop(layout, "lecture.mp4")
    with pytest.raises(UsageError, match=r"did you mean lecture\.mp4\?"):
        ask(layout, layout.inbox / "lectur.mp4")


def test_it_changes_nothing(layout: Layout) -> None:
    path = drop(layout, "a.mp4")
    before = sorted((p, p.lstat().st_mtime_ns) for p in layout.root.rglob("*"))
    ask(layout, path)
    assert sorted((p, p.lstat().st_mtime_ns) for p in layout.root.rglob("*")) == before


def test_the_command(heygemd: Run, on: list[str], layout: Layout) -> None:
    path = drop(layout, "a.mp4")
    document = json.loads(heygemd("why", path, *on, "--json").stdout)
    assert document["verdict"] == "waiting"
    shown = heygemd("why", path, *on)
    assert shown.returncode == 0
    assert "a.mp4: waiting" in shown.stdout
    assert "next: drop the other half" in shown.stdout
