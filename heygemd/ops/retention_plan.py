"""What a clean-up would remove, and why. Pure: found folders and settings in, a plan out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from heygemd.core.settings import RetentionSettings

Kind = Literal["archive", "failed", "outbox"]
KINDS: tuple[Kind, ...] = ("archive", "failed", "outbox")

MIN_AGE_SECONDS = 3600.0
"""Nothing younger is removed, whatever the limits: it may still be in the making, or somebody waits for it."""


@dataclass(frozen=True)
class JobFolder:
    """A finished job's folder. `relative`: below its root; `inode`, `device` tell whether it is still the same later.

    `kept`: why it is never removed (pinned, holds files of others), or "". `leftover`: of an interrupted removal.
    """

    kind: Kind
    relative: str
    job: str
    job_id: str
    made_seconds: float  # Unix time of its last change
    size_bytes: int  # of the files we made
    files: tuple[str, ...]
    inode: int
    device: int
    kept: str = ""
    leftover: bool = False
    fetched: bool = True  # somebody has read a result since it was written


@dataclass(frozen=True)
class Removal:
    folder: JobFolder
    reason: str

    @property
    def path(self) -> str:
        """Below the share, for people."""
        return f"{self.folder.kind}/{self.folder.relative}"

    @property
    def num_bytes(self) -> int:
        return self.folder.size_bytes


@dataclass(frozen=True)
class Plan:
    """What a clean-up does. `removals`: oldest first within each rule."""

    removals: tuple[Removal, ...]
    num_folders: int
    total_bytes: int

    @property
    def removed_bytes(self) -> int:
        return sum(removal.folder.size_bytes for removal in self.removals)


def plan(
    folders: Iterable[JobFolder],
    settings: RetentionSettings,
    *,
    now_seconds: float,
    free_bytes: int | None = None,
    busy: Collection[str] = (),
) -> Plan:
    """Decide. `busy`: ids of jobs that are not final; `free_bytes`: of the share, where `min_free_bytes` is to hold.

    Age first, then each kind's number and total, oldest first, then free space: archive, then failed; never the outbox
    for space alone, results are what people came for.
    """
    every = sorted(folders, key=lambda folder: (folder.made_seconds, folder.kind, folder.relative))
    free_to_go = [
        f
        for f in every
        if not f.kept
        and f.job_id not in busy
        and now_seconds - f.made_seconds >= MIN_AGE_SECONDS
        and (f.fetched or not settings.keep_unfetched)
    ]
    chosen: dict[tuple[Kind, str], Removal] = {}

    def choose(folder: JobFolder, reason: str) -> None:
        chosen.setdefault((folder.kind, folder.relative), Removal(folder, reason))

    for folder in every:
        if folder.leftover:
            choose(folder, "its removal was interrupted")
    days: dict[Kind, float] = {
        "archive": settings.archive_days,
        "failed": settings.failed_days,
        "outbox": settings.outbox_days,
    }
    for folder in free_to_go:
        limit = days[folder.kind]
        age = (now_seconds - folder.made_seconds) / 86400
        if limit and age >= limit:
            choose(folder, f"{age:.1f} days old, kept for {limit:g}")
    counts: dict[Kind, int] = {
        "archive": settings.archive_max_jobs,
        "failed": settings.failed_max_jobs,
        "outbox": settings.outbox_max_jobs,
    }
    for kind in KINDS:
        most = counts[kind]
        number = sum(1 for f in every if f.kind == kind and (f.kind, f.relative) not in chosen)
        for folder in free_to_go:
            if not most or number <= most:
                break
            if folder.kind == kind and (kind, folder.relative) not in chosen:
                choose(folder, f"{kind} holds {number} jobs, allowed are {most}")
                number -= 1
    totals: dict[Kind, int] = {
        "archive": settings.archive_max_bytes,
        "failed": settings.failed_max_bytes,
        "outbox": settings.outbox_max_bytes,
    }
    for kind in KINDS:
        limit_bytes = totals[kind]
        held = sum(f.size_bytes for f in every if f.kind == kind and (f.kind, f.relative) not in chosen)
        for folder in free_to_go:
            if not limit_bytes or held <= limit_bytes:
                break
            if folder.kind == kind and (kind, folder.relative) not in chosen:
                choose(folder, f"{kind} holds {held:,} bytes, allowed are {limit_bytes:,}")
                held -= folder.size_bytes
    if settings.min_free_bytes and free_bytes is not None:
        free = free_bytes + sum(removal.folder.size_bytes for removal in chosen.values())
        for kind in ("archive", "failed"):
            for folder in free_to_go:
                if free >= settings.min_free_bytes:
                    break
                if folder.kind == kind and (kind, folder.relative) not in chosen:
                    choose(folder, f"the share has {free:,} bytes free, wanted are {settings.min_free_bytes:,}")
                    free += folder.size_bytes
    return Plan(tuple(chosen.values()), len(every), sum(f.size_bytes for f in every))
