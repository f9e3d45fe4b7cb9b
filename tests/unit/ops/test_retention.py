"""Retention: a pure plan with properties, and removals that never leave their roots or touch what is not ours."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.settings import RetentionSettings
from heygemd.ops import retention
from heygemd.ops.retention import KINDS, MIN_AGE_SECONDS, JobFolder, Kind, Plan, clean, execute, plan, survey

NOW = 2e9
DAY = 86400.0

folders_of = st.lists(
    st.builds(
        JobFolder,
        kind=st.sampled_from(KINDS),
        relative=st.integers(0, 10**6).map(str),
        job=st.just("j"),
        job_id=st.sampled_from(["busy", "a", "b"]),
        made_seconds=st.floats(NOW - 100 * DAY, NOW + DAY),
        size_bytes=st.integers(0, 10**6),
        files=st.just(()),
        inode=st.just(1),
        device=st.just(1),
        kept=st.sampled_from(["", "", "pinned"]),
        leftover=st.just(False),
        fetched=st.booleans(),
    ),
    unique_by=lambda f: (f.kind, f.relative),
    max_size=30,
)
days = st.sampled_from([0.0, 1.0, 30.0])
sizes = st.sampled_from([0, 1, 10**5, 10**6])
counts = st.sampled_from([0, 0, 1, 5])
settings_of = st.builds(
    RetentionSettings,
    outbox_days=days,
    failed_days=days,
    archive_days=days,
    outbox_max_bytes=sizes,
    failed_max_bytes=sizes,
    archive_max_bytes=sizes,
    outbox_max_jobs=counts,
    failed_max_jobs=counts,
    archive_max_jobs=counts,
    keep_unfetched=st.booleans(),
    min_free_bytes=sizes,
)


@given(folders_of, settings_of, st.integers(0, 10**6) | st.none())
def test_the_plan(folders: list[JobFolder], settings: RetentionSettings, free: int | None) -> None:
    made = plan(folders, settings, now_seconds=NOW, free_bytes=free, busy={"busy"})
    gone = {(r.folder.kind, r.folder.relative) for r in made.removals}
    assert len(gone) == len(made.removals) and all(r.reason for r in made.removals)
    rest = [f for f in folders if (f.kind, f.relative) not in gone]
    for removal in made.removals:
        folder = removal.folder
        assert not folder.kept and folder.job_id != "busy" and NOW - folder.made_seconds >= MIN_AGE_SECONDS
        assert folder.fetched or not settings.keep_unfetched
    may_go = [f for f in rest if not f.kept and f.job_id != "busy" and NOW - f.made_seconds >= MIN_AGE_SECONDS]
    may_go = [f for f in may_go if f.fetched or not settings.keep_unfetched]
    for kind in KINDS:
        limit_days = getattr(settings, f"{kind}_days")
        limit_bytes = getattr(settings, f"{kind}_max_bytes")
        left = [f for f in may_go if f.kind == kind]
        if limit_days:
            assert all(NOW - f.made_seconds < limit_days * DAY for f in left)
        if limit_bytes and sum(f.size_bytes for f in rest if f.kind == kind) > limit_bytes:
            assert not left, "over the limit only because nothing more may go"
        limit_jobs = getattr(settings, f"{kind}_max_jobs")
        if limit_jobs and sum(f.kind == kind for f in rest) > limit_jobs:
            assert not left, "more than allowed only because nothing more may go"
        if not (limit_days or limit_bytes or limit_jobs or settings.min_free_bytes):
            assert not any(kind == k for k, _ in gone)
        # the oldest go first: whatever went is no younger than anything that stayed, unless age alone decided
        went = [r.folder.made_seconds for r in made.removals if r.folder.kind == kind]
        if went and left:
            assert max(went) <= min(f.made_seconds for f in left)
    if not settings.outbox_days and not settings.outbox_max_bytes and not settings.outbox_max_jobs:
        assert not any(kind == "outbox" for kind, _ in gone), "results never go for space alone"
    if settings.min_free_bytes and free is not None and free + made.removed_bytes < settings.min_free_bytes:
        assert not [f for f in may_go if f.kind != "outbox"]
    again = plan(rest, settings, now_seconds=NOW, free_bytes=None if free is None else free + made.removed_bytes,
                 busy={"busy"})  # fmt: skip
    assert again.removals == (), "what a run leaves, the next run leaves too"


@given(folders_of, settings_of, st.randoms())
def test_order_does_not_matter(folders: list[JobFolder], settings: RetentionSettings, random) -> None:
    shuffled = folders[:]
    random.shuffle(shuffled)
    assert plan(folders, settings, now_seconds=NOW) == plan(shuffled, settings, now_seconds=NOW)


# on disk


def job_folder(
    root: Path, relative: str, kind: Kind, days_old: float = 50, files: tuple[str, ...] = ("v.mp4",), last: bool = True
) -> Path:
    folder = root / kind / relative
    folder.mkdir(parents=True)
    job = folder.name
    end = {"outbox": (f"{job}.json",), "failed": ("error.json",), "archive": ()}[kind]
    for name in (*files, *(end if last else ())):
        (folder / name).write_bytes(b"x" * 100)
    marker = {"job_id": f"id of {job}", "job": job, "kind": kind, "files": [*files, *end], "made_seconds": 0}
    (folder / retention.MARKER).write_text(json.dumps(marker))
    os.utime(folder, (NOW - days_old * DAY,) * 2)
    return folder


EVERYTHING = RetentionSettings(outbox_days=10, failed_days=10, archive_days=10)


def names(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*"))


@pytest.fixture
def share(tmp_path: Path) -> Path:
    for kind in KINDS:
        (tmp_path / "share" / kind).mkdir(parents=True)
    return tmp_path / "share"


def run(share: Path, settings: RetentionSettings = EVERYTHING) -> list[str]:
    return [removal.path for removal in clean(share, settings, now_seconds=NOW)]


def test_old_jobs_go_and_young_ones_stay(share: Path) -> None:
    for kind in KINDS:
        prefix = "2026-01-01/" if kind == "archive" else ""
        job_folder(share, f"{prefix}课程 1", kind)
        job_folder(share, f"{prefix}young", kind, days_old=1)
    job_folder(share, "2025-12-31/only", "archive")
    removed = run(share)
    assert sorted(removed) == [
        "archive/2025-12-31/only", "archive/2026-01-01/课程 1", "failed/课程 1", "outbox/课程 1"
    ]  # fmt: skip
    assert not (share / "archive/2025-12-31").exists(), "an empty day goes too"
    assert (share / "archive/2026-01-01/young/v.mp4").exists() and (share / "outbox/young/young.json").exists()
    assert not [n for n in names(share) if "课程" in n or ".gone" in n]


def test_what_is_not_ours_stays(share: Path, tmp_path: Path) -> None:
    (share / "outbox/theirs").mkdir()
    (share / "outbox/theirs/theirs.json").write_text("{}")
    os.utime(share / "outbox/theirs", (1, 1))
    (share / "outbox/file").write_text("x")
    job_folder(share, "making", "outbox", last=False)  # no receipt yet
    job_folder(share, "noted", "outbox")
    (share / "outbox/noted/notes.txt").write_text("mine")
    job_folder(share, "pinned", "outbox")
    (share / "outbox/pinned/.keep").touch()
    job_folder(share, "2026-01-01/pinned", "archive")
    (share / "archive/2026-01-01/.keep").touch()
    forged = job_folder(share, "forged", "outbox")
    (forged / retention.MARKER).write_text('{"job_id": "x", "job": "forged", "files": ["../pinned/v.mp4"]}')
    linked = job_folder(share, "linked", "outbox")
    (linked / retention.MARKER).rename(tmp_path / "m")
    (linked / retention.MARKER).symlink_to(tmp_path / "m")
    for path in share.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    before = names(share)
    assert run(share) == [] and names(share) == before


def test_links_are_not_followed(share: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    real = job_folder(elsewhere, "j", "outbox")
    (share / "outbox/j").symlink_to(real)
    (share / "archive/day").symlink_to(elsewhere / "outbox")
    inside = job_folder(share, "k", "outbox", files=("v.mp4", "sub"))
    (inside / "v.mp4").unlink()
    (inside / "v.mp4").symlink_to(real / "v.mp4")
    os.utime(inside, (1, 1))
    (inside / "sub").unlink()
    (inside / "sub").symlink_to(elsewhere)
    os.utime(inside, (1, 1))
    assert run(share) == ["outbox/k"], "a link of a listed name is removed itself"
    assert (real / "v.mp4").exists() and (share / "outbox/j").is_symlink() and (elsewhere / "outbox").is_dir()


def test_a_folder_that_changed_since_the_survey_stays(share: Path) -> None:
    changes = {
        "replaced": lambda f: (f.rename(f.with_name("other")), job_folder(share, "replaced", "outbox")),
        "pinned": lambda f: (f / ".keep").touch(),
        "other job": lambda f: (f / retention.MARKER).write_text('{"job_id": "n", "job": "other job", "files": []}'),
        "gone": lambda f: f.rename(share / "gone"),
    }
    for name in changes:
        job_folder(share, name, "outbox")
    found = survey(share / "outbox", "outbox")
    todo = plan(found, EVERYTHING, now_seconds=NOW)
    assert len(todo.removals) == 4
    for name, change in changes.items():
        change(share / "outbox" / name)
    before = names(share)
    outcome = execute(todo, {kind: share / kind for kind in KINDS})
    assert outcome.removed == () and len(outcome.remained) == 4 and names(share) == before


def test_an_interrupted_removal_is_finished(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job_folder(share, "j", "outbox", files=("a.mp4", "b.mp4"))
    original = retention._unlink
    count = 0

    def crash(fd: int, name: str) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        original(fd, name)

    monkeypatch.setattr(retention, "_unlink", crash)
    with pytest.raises(KeyboardInterrupt):
        run(share)
    assert not (share / "outbox/j").exists(), "nothing half-removed is ever visible"
    monkeypatch.undo()
    (left,) = survey(share / "outbox", "outbox")
    assert left.leftover
    assert clean(share, RetentionSettings(archive_days=0, failed_days=0))[0].reason == "its removal was interrupted"
    assert names(share / "outbox") == []


def test_limits_by_bytes_and_free_space(share: Path) -> None:
    for n in range(4):
        job_folder(share, f"d/{n}", "archive", days_old=10 - n)
        job_folder(share, str(n), "failed", days_old=10 - n)
    size = survey(share / "failed", "failed")[0].size_bytes
    settings = RetentionSettings(archive_days=0, failed_days=0, failed_max_bytes=2 * size)
    assert run(share, settings) == ["failed/0", "failed/1"]
    found = [f for kind in KINDS for f in survey(share / kind, kind)]
    settings = RetentionSettings(archive_days=0, failed_days=0, min_free_bytes=10**6)
    made = plan(found, settings, now_seconds=NOW, free_bytes=10**6 - 3 * size)
    assert [r.folder.kind for r in made.removals][:3] == ["archive"] * 3 and made.removed_bytes >= 3 * size
    made = plan(found, settings, now_seconds=NOW, free_bytes=0)
    assert [r.folder.kind for r in made.removals] == ["archive"] * 4 + ["failed"] * 2


def test_limits_by_number(share: Path) -> None:
    for n in range(4):
        job_folder(share, f"j{n}", "outbox", days_old=5 + n)
    settings = RetentionSettings(outbox_max_jobs=2, archive_days=0, failed_days=0)
    assert run(share, settings) == ["outbox/j3", "outbox/j2"]
    assert run(share, settings) == []


def test_results_that_nobody_has_read_stay_where_asked_for(share: Path) -> None:
    for name in ("read", "unread"):
        folder = job_folder(share, name, "outbox")
        os.utime(folder / "v.mp4", ns=((2 if name == "read" else 1) * 10**9, 1 * 10**9))
        os.utime(folder / f"{name}.json", ns=(9 * 10**9, 10**9))  # programs look at receipts
        os.utime(folder, (NOW - 50 * DAY,) * 2)
    job_folder(share, "j", "failed")
    keep = RetentionSettings(outbox_days=10, failed_days=10, keep_unfetched=True)
    assert run(share, keep) == ["failed/j", "outbox/read"]
    assert run(share) == ["outbox/unread"]


def test_a_dry_run_is_exactly_what_a_run_does(share: Path) -> None:
    for n in range(5):
        job_folder(share, str(n), "failed", days_old=n * 5)
    planned = plan(survey(share / "failed", "failed"), EVERYTHING, now_seconds=NOW)
    before = names(share)
    assert names(share) == before
    assert [r.path for r in planned.removals] == run(share)
    assert isinstance(planned, Plan) and replace(planned, removals=()).removed_bytes == 0


def test_the_marker_is_the_spools() -> None:
    from heygemd.spool import layout

    assert retention.MARKER == layout.MARKER
