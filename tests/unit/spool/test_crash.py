"""The spool alone, killed at each of its transitions and started again: nothing lost, nothing twice, nothing partial.

A small stand-in for the daemon (`drain`) does what the service does, in the same order, with a "render" that only
joins bytes. The whole daemon is killed by tests/system.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from heygemd import failpoints
from heygemd.core.errors import HeygemdError, NoFaceError
from heygemd.core.job import Job, JobState
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool.farewell import archive, begin_retry, reject
from heygemd.spool.inbox import Inbox
from heygemd.spool.journal import Journal
from heygemd.spool.layout import MARKER, Layout
from heygemd.spool.lock import daemon_lock
from heygemd.spool.names import fold, unique_name
from heygemd.spool.outbox import ItemResult, publish
from heygemd.spool.staging import InputChangedError, InputVanishedError, stage, sweep_work, unstage
from heygemd.spool.status import write_status

ROOMS = ("journal", "stage", "outbox", "archive", "reject", "status")
POINTS = [name for name in failpoints.NAMES if name.partition(".")[0] in ROOMS]
OPEN = [state for state in JobState if not state.final]


def drain(layout: Layout) -> None:
    """Serve everything that is in the inbox, and what an earlier run left."""
    layout.ensure()
    with daemon_lock(layout.lock), Journal(layout.journal) as journal:
        sweep_work(layout, frozenset(job.id for job in journal.jobs(OPEN)))
        for job in journal.jobs(OPEN):
            serve(layout, journal, job)
        inbox = Inbox(layout, InboxSettings(settle_scans=1, settle_seconds=0), LimitSettings())
        scan = inbox.scan(journal.claimed_identities())
        taken = set(journal.names() | scan.taken_names)
        refusals = {refusal.drop: refusal.error for refusal in scan.refused}
        for drop in (*scan.ready, *refusals):
            job = drop.to_job(secrets.token_hex(16), unique_name(drop.name, taken), 1e9)
            if drop in refusals:
                job = job.evolve(error=refusals[drop].to_dict())
            taken.add(fold(job.name))
            if journal.add(job):
                serve(layout, journal, job)
        for job in journal.jobs([JobState.FAILED]):  # one retry each, as a user would
            if job.items and job.attempts == 0:
                begin_retry(job, layout)
                job = job.evolve(state=JobState.QUEUED, attempts=1, error=None)
                journal.update(job)
                serve(layout, journal, job)


def serve(layout: Layout, journal: Journal, job: Job) -> None:
    needed = journal.still_needed(job.id)
    if job.error is not None and not job.items:
        moved = reject(job, layout, HeygemdError.from_dict(job.error), still_needed=needed)
        journal.finish(job.evolve(state=JobState.FAILED), moved.stuck_paths)
        return
    journal.update(job.evolve(state=JobState.STAGING))
    try:
        staged = stage(job, layout)
    except (InputChangedError, InputVanishedError):
        journal.remove(job.id)
        return
    write_status(layout, job, {"percent": 50})
    results, errors = [], {}
    for item in staged.items:
        journal.set_plan(job.id, item.name, [{"start": 0}])
        data = item.video.read_bytes()
        if b"faceless" in data and job.attempts == 0:
            errors[item.name] = NoFaceError(f"{item.name}: no face")
            continue
        out = item.work / "out.mp4"
        out.write_bytes(data + b"+" + (item.audio.read_bytes() if item.audio else b""))
        journal.segment_done(job.id, item.name, 0, {})
        results.append(ItemResult(item.name, out, None, {}))
    journal.update(job.evolve(state=JobState.PUBLISHING))
    if results:
        publish(job, layout, results, {"failed": sorted(errors)})
    if errors:
        moved = reject(job, layout, NoFaceError("no face"), failed_items=errors, still_needed=needed)
    else:
        moved = archive(job, layout, still_needed=needed)
    state = JobState.FAILED if errors else JobState.DONE
    journal.finish(job.evolve(state=state, ended_seconds=2e9), moved.stuck_paths)
    unstage(job.id, layout)


def drop_files(layout: Layout) -> dict[str, bytes]:
    """A mixed inbox; every file has its own content, so that it is found again wherever it goes."""
    inbox = layout.inbox
    files = {
        "课程 1.mp4": b"v1",
        "课程 1.wav": b"a1",
        "sub/课程 1.mp4": b"v2",
        "sub/课程 1.wav": b"a2",
        "x.mp4": b"v3 faceless",
        "y.mp4": b"v4",
        "s.wav": b"a3",
        "batch.job.json": json.dumps({"version": 1, "videos": ["x.mp4", "y.mp4"], "audio": "s.wav"}).encode(),
        "bad.job.json": b"{",
        "bad.mp4": b"v5",
    }
    for name, data in files.items():
        (inbox / name).parent.mkdir(exist_ok=True)
        (inbox / name).write_bytes(data)
    return files


def oracle(layout: Layout, files: dict[str, bytes]) -> None:
    ours = {MARKER, "error.json", "ffmpeg.log"}
    everything = [p for p in layout.root.rglob("*") if p.is_file()]
    assert not [p for p in everything if p.name.endswith(".part")], "no unfinished file is left"
    kept = [p for top in ("inbox", "archive", "failed") for p in (layout.root / top).rglob("*") if p.is_file()]
    assert sorted(p.read_bytes() for p in kept if p.name not in ours) == sorted(files.values()), "each exactly once"
    in_failed = {p.read_bytes() for p in kept if layout.failed in p.parents and p.name not in ours}
    assert in_failed == {b"{", b"v5"} and not [p for p in kept if layout.inbox in p.parents]
    results = []
    for folder in layout.outbox.iterdir():
        receipt = json.loads((folder / f"{folder.name}.json").read_text())
        assert {e["name"] for e in receipt["files"]} == {p.name for p in folder.iterdir()} - {
            MARKER,
            f"{folder.name}.json",
        }
        for entry in receipt["files"]:
            data = (folder / entry["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
            results += [data] if entry["name"].endswith(".mp4") else []
    assert sorted(results) == [b"v1+a1", b"v2+a2", b"v3 faceless+a3", b"v4+a3"], "each result exactly once"
    with Journal(layout.journal, readonly=True) as journal:
        assert not journal.claimed_identities()
        assert sorted(job.state for job in journal.jobs()) == ["done", "done", "done", "failed"]
    assert list(layout.work.iterdir()) == []


def run_child(layout: Layout, failpoint: str) -> int:
    root = Path(__file__).resolve().parents[3]
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.unit.spool.test_crash import drain; from heygemd.spool.layout import Layout;"
        "drain(Layout(Path(sys.argv[2]), Path(sys.argv[3])))"
    )
    env = {**os.environ, "HEYGEMD_FAILPOINT": failpoint}
    command = [sys.executable, "-c", code, str(root), str(layout.root), str(layout.state)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_transition(layout: Layout, point: str) -> None:
    files = drop_files(layout)
    assert run_child(layout, f"{point}=kill") == -9, "the way passes every failpoint"
    run_child(layout, f"{point}=kill@2")
    drain(layout)
    drain(layout)
    oracle(layout, files)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["enospc", "eio", "estale", "ebusy"])
def test_errors_at_each_transition(tmp_path: Path, action: str) -> None:
    for point in POINTS:
        layout = Layout(tmp_path / point / "share", tmp_path / point / "state")
        layout.ensure()
        files = drop_files(layout)
        failures = 0
        for nth in (1, 2):
            failpoints.arm(f"{point}={action}@{nth}")
            try:
                drain(layout)
            except HeygemdError as error:
                assert error.retryable, error
                failures += 1
        assert failures, f"{point} was passed"
        failpoints.arm("")
        drain(layout)
        drain(layout)
        oracle(layout, files)
