"""Clean-up of outbox, failed and archive: what is there (`survey`), and the removal of what the plan says (`execute`).

Only folders that carry our marker are looked at, only names that the marker lists are removed, no link is followed.
A file named `.keep` in a job's folder, or in the day's folder around it, keeps it for ever; so does any file that
somebody else put there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.settings import RetentionSettings
from heygemd.files import TEMP_PREFIX, explained, rename_noreplace
from heygemd.ops.retention_plan import KINDS, MIN_AGE_SECONDS, JobFolder, Kind, Plan, Removal, plan

__all__ = [
    "KINDS", "MARKER", "MIN_AGE_SECONDS", "JobFolder", "Kind", "Outcome", "Plan", "Removal", "clean", "execute",
    "free_bytes", "plan", "survey",
]  # fmt: skip

MARKER = ".heygemd-job"  # written by spool.places; a test keeps the two in step
KEEP = ".keep"
_MAX_MARKER_BYTES = 1_000_000
_GONE = re.compile(re.escape(TEMP_PREFIX) + r"\d+\.gone")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Outcome:
    """`removed`: folders that are gone. `remained`: (folder, why) for those that are not, or not all."""

    removed: tuple[JobFolder, ...]
    remained: tuple[tuple[JobFolder, str], ...]


def clean(
    share: Path, settings: RetentionSettings, *, busy: Collection[str] = (), now_seconds: float | None = None
) -> list[Removal]:
    """Survey, plan and execute for the share's archive/, failed/ and outbox/; what was removed."""
    roots: dict[Kind, Path] = {kind: share / kind for kind in KINDS}
    folders = [folder for kind in KINDS for folder in survey(roots[kind], kind)]
    now = time.time() if now_seconds is None else now_seconds
    todo = plan(folders, settings, now_seconds=now, free_bytes=free_bytes(share), busy=busy)
    gone = set(execute(todo, roots).removed)
    return [removal for removal in todo.removals if removal.folder in gone]


def survey(root: Path, kind: Kind) -> tuple[JobFolder, ...]:
    """The finished jobs' folders in `root`: archive/<day>/<job>, failed/<job>, outbox/<job>.

    A folder without our marker, or whose last file (receipt, error.json) is not there, is not ours to judge.
    Raises ShareAwayError and its like.
    """
    found: list[JobFolder] = []
    with explained(f"{kind} folder {root}"), _folder(root) as fd:
        for name in _names(fd):
            if kind != "archive":
                found += _look(fd, name, name, kind, "")
                continue
            with _inner(fd, name) as day:
                if day is not None and not name.startswith("."):
                    kept = "its day is pinned" if _exists(day, KEEP) else ""
                    for job in _names(day):
                        found += _look(day, job, f"{name}/{job}", kind, kept)
    return tuple(found)


def execute(todo: Plan, roots: dict[Kind, Path]) -> Outcome:
    """Remove what the plan says. A folder that changed since the survey, or was pinned, stays. Can be repeated."""
    removed: list[JobFolder] = []
    remained: list[tuple[JobFolder, str]] = []
    for removal in todo.removals:
        folder = removal.folder
        with explained(f"{folder.kind} folder of {folder.job}"):
            why = _remove(roots[folder.kind], folder)
        if why is None:
            removed.append(folder)
        else:
            remained.append((folder, why))
    return Outcome(tuple(removed), tuple(remained))


def free_bytes(root: Path) -> int:
    """Room on the disk of `root`."""
    with explained(str(root)):
        found = os.statvfs(root)
    return found.f_bavail * found.f_frsize


def _look(parent: int, name: str, relative: str, kind: Kind, kept: str) -> list[JobFolder]:
    leftover = _GONE.fullmatch(name) is not None
    if name.startswith(".") and not leftover:
        return []
    with _inner(parent, name) as fd:
        marker = None if fd is None else _marker(fd)
        if fd is None or marker is None:
            return []
        job, job_id, files = marker
        last = {"outbox": f"{job}.json", "failed": "error.json", "archive": MARKER}[kind]
        if not _exists(fd, last) and not leftover:
            return []
        own = os.fstat(fd)
        others = set(_names(fd)) - {MARKER, *files}
        if KEEP in others:
            kept = "pinned"
        elif others:
            kept = "holds files that are not ours"
        there = {file: found for file in (*files, MARKER) if (found := _lstat(fd, file)) is not None}
        size = sum(found.st_size for found in there.values())
        # Contact sheets and receipts are looked at by programs; a video is read by whoever wants it.
        results = [found for file, found in there.items() if file.endswith((".mp4", ".zip"))]
        fetched = kind != "outbox" or any(found.st_atime_ns > found.st_mtime_ns for found in results)
        # A folder's own mtime is the last time that anything was put there: the inputs keep the times of their makers.
        ids = (own.st_ino, own.st_dev)
        return [JobFolder(kind, relative, job, job_id, own.st_mtime, size, files, *ids, kept, leftover, fetched)]


def _remove(root: Path, folder: JobFolder) -> str | None:
    """None when the folder is gone, else why it is not."""
    *days, name = folder.relative.split("/")
    with contextlib.ExitStack() as stack:
        above = parent = stack.enter_context(_folder(root))
        for day in days:
            inner = stack.enter_context(_inner(parent, day))
            if inner is None or _exists(inner, KEEP):
                return "the day's folder changed meanwhile"
            parent = inner
        with _inner(parent, name) as fd:
            if fd is None:
                return "it is gone or no longer a folder"
            own = os.fstat(fd)
            marker = _marker(fd)
            if (own.st_ino, own.st_dev) != (folder.inode, folder.device) or marker is None:
                return "it is another folder than before"
            if marker[1] != folder.job_id or set(_names(fd)) - {MARKER, *folder.files}:
                return "it changed meanwhile"
            # Out of sight first, at once: nobody takes what is left of it for a whole result.
            here = Path(f"/proc/self/fd/{parent}")
            hidden = f"{TEMP_PREFIX}{own.st_ino}.gone"
            if name != hidden:
                rename_noreplace(here / name, here / hidden)
            for file in folder.files:
                _unlink(fd, file)
            if set(_names(fd)) - {MARKER}:
                if name != hidden:
                    rename_noreplace(here / hidden, here / name)
                return "somebody put a file there meanwhile"
            _unlink(fd, MARKER)
        os.rmdir(hidden, dir_fd=parent)
        for day in days:
            with contextlib.suppress(OSError):
                os.rmdir(day, dir_fd=above)  # only an empty one goes
    return None


def _marker(fd: int) -> tuple[str, str, tuple[str, ...]] | None:
    """(job, job id, files) of our marker in an open folder; None where there is none, or one that is not plain."""
    try:
        file = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        with os.fdopen(file, "rb", closefd=False) as stream:
            tree = json.loads(stream.read(_MAX_MARKER_BYTES))
    except ValueError:
        return None
    finally:
        os.close(file)
    if not isinstance(tree, dict):
        return None
    job, job_id, files = tree.get("job"), tree.get("job_id"), tree.get("files")
    if not isinstance(job, str) or not isinstance(job_id, str) or not isinstance(files, list) or "/" in job:
        return None
    plain = tuple(f for f in files if isinstance(f, str) and f not in ("", ".", "..", MARKER, KEEP) and "/" not in f)
    return (job, job_id, plain) if len(plain) == len(files) else None


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _inner(parent: int, name: str) -> Iterator[int | None]:
    """An open folder in `parent`, on the same device; None for a link, a file, a mount, or nothing."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            yield None
            return
        raise
    try:
        yield fd if os.fstat(fd).st_dev == os.fstat(parent).st_dev else None
    finally:
        os.close(fd)


def _lstat(fd: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _names(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries)


def _exists(fd: int, name: str) -> bool:
    return _lstat(fd, name) is not None


def _unlink(fd: int, name: str) -> None:
    """Remove a file or a link, never a folder. Missing is fine."""
    found = _lstat(fd, name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
