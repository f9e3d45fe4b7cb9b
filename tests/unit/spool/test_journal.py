"""The ledger: claims, states, segments, and who may open it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heygemd import failpoints
from heygemd.core.errors import ConfigError, DiskFullError, HeygemdError, UsageError
from heygemd.core.job import InputFile, Item, Job, JobState
from heygemd.core.options import Options
from heygemd.spool.drops import claim_key
from heygemd.spool.journal import Journal
from heygemd.spool.lock import daemon_lock, daemon_pid, refuse_a_second
from heygemd.spool.mounts import fs_type, is_network


def make(n: int, name: str | None = None, path: str | None = None, **changes: object) -> Job:
    file = InputFile(path or f"课 {n}.mp4", "video", 10, 20 + n, 1, 2)
    job = Job(
        id=f"{n:032x}",
        name=name or f"Job {n}",
        folder="",
        items=(Item("i", file.path, None, "hi"),),
        inputs=(file,),
        options=Options(quality="draft"),
        created_seconds=float(n),
    )
    return job.evolve(**changes)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite3") as journal:
        yield journal


def test_jobs_come_back_as_they_were(journal: Journal, tmp_path: Path) -> None:
    job = make(1, error={"code": "HG-1"}, batch=True)
    assert journal.add(job)
    assert journal.get(job.id) == journal.get("job 1") == job, "by id, or by name without regard to case"
    assert journal.get("nobody") is None
    later = job.evolve(state=JobState.RENDERING, attempts=2)
    journal.update(later)
    with Journal(tmp_path / "journal.sqlite3", readonly=True) as reader:
        assert reader.jobs() == (later,)
        with pytest.raises(HeygemdError, match="readonly"):
            reader.set_setting("x", 1)
    with pytest.raises(HeygemdError, match="no job"):
        journal.update(make(9))


def test_order_filter_and_counts(journal: Journal) -> None:
    for n in (3, 1, 2):
        journal.add(make(n, state=JobState.DONE if n == 3 else JobState.QUEUED))
    assert [j.name for j in journal.jobs()] == ["Job 1", "Job 2", "Job 3"]
    assert [j.name for j in journal.jobs([JobState.QUEUED], limit=1)] == ["Job 2"]
    counts = journal.counts()
    assert counts[JobState.QUEUED] == 2 and counts[JobState.DONE] == 1 and counts[JobState.FAILED] == 0
    assert journal.names() == {"job 1", "job 2", "job 3"}


def test_the_same_files_are_claimed_once(journal: Journal) -> None:
    first, again = make(1), make(1).evolve(id="other", name="Job 1-2")
    assert journal.add(first) and not journal.add(again)
    assert journal.claimed_identities() == {claim_key(first.inputs[0])}
    journal.release(first.id)
    assert not journal.claimed_identities()
    assert journal.add(again), "dropped again after it was done"


def test_many_at_once(journal: Journal) -> None:
    assert journal.add(make(1))
    added = journal.add_all([make(1).evolve(id="x", name="x"), make(2), make(3), make(3).evolve(id="y", name="y")])
    assert [job.name for job in added] == ["Job 2", "Job 3"]
    with pytest.raises(HeygemdError):
        journal.add_all([make(4), make(5, name="job 1")])
    assert len(journal.jobs()) == 3, "all or none"


def test_names_are_unique_without_case(journal: Journal) -> None:
    journal.add(make(1, name="Straße"))
    with pytest.raises(HeygemdError, match="UNIQUE"):
        journal.add(make(2, name="STRASSE"))
    assert len(journal.jobs()) == 1 and len(journal.claimed_identities()) == 1


def test_shared_and_stuck_inputs(journal: Journal) -> None:
    shared = InputFile("v.mp4", "video", 1, 1, 1, 1)
    jobs = [make(n).evolve(inputs=(shared, *make(n).inputs)) for n in (1, 2)]
    for job in jobs:
        assert journal.add(job)
    assert claim_key(shared) in journal.still_needed(jobs[0].id)
    journal.release(jobs[1].id, except_paths=[jobs[1].inputs[1].path])
    assert claim_key(shared) not in journal.still_needed(jobs[0].id)
    assert claim_key(jobs[1].inputs[1]) in journal.claimed_identities(), "what could not be moved stays claimed"


def test_an_ended_job_holds_nothing_after_a_crash_but_what_is_stuck(tmp_path: Path) -> None:
    jobs = [make(n) for n in (1, 2, 3, 4)]
    with Journal(tmp_path / "j.sqlite3") as journal:
        for job in jobs:
            journal.add(job)
        journal.update(jobs[0].evolve(state=JobState.DONE))  # and no release: the daemon died
        journal.finish(jobs[1].evolve(state=JobState.DONE))
        journal.finish(jobs[2].evolve(state=JobState.FAILED), [jobs[2].inputs[0].path])
        assert journal.get(jobs[2].id) == jobs[2].evolve(state=JobState.FAILED)
        assert len(journal.claimed_identities()) == 3
        assert [job.id for job in journal.stuck_jobs()] == [jobs[2].id]
    with Journal(tmp_path / "j.sqlite3") as journal:
        assert journal.claimed_identities() == {claim_key(jobs[2].inputs[0]), claim_key(jobs[3].inputs[0])}
        assert journal.add(make(1).evolve(id="again", name="again")), "the same files dropped once more"


def test_segments(journal: Journal) -> None:
    job = make(1)
    journal.add(job)
    plan = [{"start": 0, "frames": 10}, {"start": 10, "frames": 5}]
    journal.set_plan(job.id, "i", plan)
    assert journal.count_attempt(job.id, "i", 1) == 1 and journal.count_attempt(job.id, "i", 1) == 2
    journal.segment_done(job.id, "i", 0, {"file": "0.mkv"})
    journal.set_plan(job.id, "i", plan)
    rows = journal.segments(job.id)
    assert [(r.number, r.attempts, r.done) for r in rows] == [(0, 0, {"file": "0.mkv"}), (1, 2, None)]
    journal.segment_undone(job.id, "i", 0)
    assert journal.segments(job.id, "i")[0].done is None
    journal.set_plan(job.id, "i", plan[:1])
    assert [r.plan for r in journal.segments(job.id, "i")] == plan[:1]
    with pytest.raises(HeygemdError, match="no segment"):
        journal.segment_done(job.id, "i", 7, {})
    journal.clear_segments(job.id)
    assert journal.segments(job.id) == ()


def test_settings_and_forgetting(journal: Journal) -> None:
    assert journal.setting("paused") is None
    journal.set_setting("paused", {"by": "me"})
    assert journal.setting("paused") == {"by": "me"}
    journal.set_setting("paused", None)
    assert journal.setting("paused") is None
    for n, state in enumerate((JobState.DONE, JobState.FAILED, JobState.RENDERING, JobState.DONE)):
        journal.add(make(n, state=state, ended_seconds=float(n)))
        if n != 3:
            journal.release(make(n).id)
    assert set(journal.forget(2.5)) == {"Job 0", "Job 1"}, "running ones stay, and those whose files are still there"
    journal.set_plan(make(2).id, "i", [{}])
    journal.remove(make(2).id)
    assert journal.segments(make(2).id) == () and journal.get("Job 2") is None


@pytest.mark.parametrize(("point", "names"), [("journal.add=kill@2", ["Job 1"]), ("journal.added=kill", ["Job 1"])])
def test_what_was_committed_is_there_after_sigkill(tmp_path: Path, point: str, names: list[str]) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.unit.spool.test_journal import make;"
        "from heygemd.spool.journal import Journal; from pathlib import Path;"
        "j = Journal(Path(sys.argv[2])); j.add(make(1)); j.add(make(2)); print('not reached')"
    )
    root, path = Path(__file__).resolve().parents[3], tmp_path / "journal.sqlite3"
    env = {**os.environ, "HEYGEMD_FAILPOINT": point}
    done = subprocess.run([sys.executable, "-c", code, str(root), str(path)], env=env, capture_output=True)
    assert done.returncode == -9 and done.stdout == b"", done.stderr
    with Journal(path) as journal:
        assert [job.name for job in journal.jobs()] == names


def test_a_full_disk_is_said_and_nothing_is_half_done(journal: Journal) -> None:
    failpoints.arm("journal.add=enospc")
    with pytest.raises(DiskFullError):
        journal.add(make(1))
    assert journal.jobs() == () and journal.claimed_identities() == frozenset()
    assert journal.add(make(1))
    journal._db.execute("PRAGMA max_page_count = 16")
    with pytest.raises(DiskFullError):
        for n in range(2, 500):
            journal.add(make(n, name="x" * 90 + str(n)))
    journal._db.execute("PRAGMA max_page_count = 100000")
    assert journal.add(make(1000))


def test_refused_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no daemon has run"):
        Journal(tmp_path / "none.sqlite3", readonly=True)
    newer = tmp_path / "newer.sqlite3"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="schema 99"):
        Journal(newer)
    junk = tmp_path / "junk.sqlite3"
    junk.write_bytes(b"not a database" * 100)
    with pytest.raises(HeygemdError, match="not a database"):
        Journal(junk)


def test_network_filesystems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.spool.database.fs_type", lambda path: "cifs")
    with pytest.raises(ConfigError, match="cifs"):
        Journal(tmp_path / "j.sqlite3")


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /mnt/my\\040share rw - nfs4 srv:/x rw
31 30 0:26 / /mnt/my\\040share/sub rw - tmpfs tmpfs rw
32 22 0:27 / /mnt/f rw - fuse.sshfs x rw
33 22 0:27 / /mnt/f rw - cifs //a/b rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [("/etc", "ext4", False), ("/mnt/my share/x", "nfs4", True), ("/mnt/my share/sub/x", "tmpfs", False),
     ("/mnt/f", "cifs", True), ("/mnt/foo", "ext4", False)],
)  # fmt: skip
def test_filesystem_types(path: str, kind: str, network: bool) -> None:
    assert fs_type(Path(path), MOUNTS) == kind and is_network(kind) == network
    assert is_network("fuse.sshfs")
    assert fs_type(Path("/proc")) == "proc"


def test_one_daemon_for_a_state(tmp_path: Path) -> None:
    lock = tmp_path / "daemon.lock"
    assert daemon_pid(lock) is None
    with daemon_lock(lock):
        assert daemon_pid(lock) == os.getpid()
        with pytest.raises(UsageError, match=str(os.getpid())):
            refuse_a_second(lock)
        with pytest.raises(UsageError, match=str(os.getpid())), daemon_lock(lock):
            pass
    assert daemon_pid(lock) is None
    with daemon_lock(lock):
        pass
