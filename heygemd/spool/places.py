"""Where a job's folders and inputs lie on the share, found again after any crash from the job alone."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.errors import DiskFullError, UnsafePathError
from heygemd.core.job import InputFile, Job
from heygemd.files import TEMP_PREFIX, fsync_directory, open_regular, remove_tree, rename_noreplace, write_json
from heygemd.spool.beneath import lstat_beneath
from heygemd.spool.layout import MARKER, Layout
from heygemd.spool.names import cut_bytes, fold

ERROR_FILE = "error.json"
LOG_FILE = "ffmpeg.log"
_MAX_MARKER_BYTES = 1_000_000
_MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class Place:
    """A file, given so that it is reached through no link: below `root`."""

    root: Path
    relative: str


def kept_names(inputs: Sequence[InputFile]) -> dict[str, str]:
    """Input path → its name in archive/<date>/<job>/ and failed/<job>/. Flat; the same for the same inputs, always."""
    taken = {fold(name) for name in (ERROR_FILE, LOG_FILE, MARKER)}
    names: dict[str, str] = {}
    for file in inputs:
        original = file.path.rpartition("/")[2]
        stem, dot, suffix = original.rpartition(".")
        if not stem:
            stem, dot, suffix = original, "", ""
        name, count = original, 1
        while fold(name) in taken:
            count += 1
            ending = f"-{count}{dot}{suffix}"
            name = cut_bytes(stem, _MAX_NAME_BYTES - len(ending.encode())) + ending
        taken.add(fold(name))
        names[file.path] = name
    return names


def archive_parent(layout: Layout, job: Job) -> Path:
    """archive/<day of the claim>: a day that no crash and no midnight changes."""
    return layout.archive / time.strftime("%Y-%m-%d", time.localtime(job.created_seconds))


def read_marker(folder: Path) -> dict[str, object] | None:
    """What the hidden file in a job's folder says; None where there is none of ours."""
    try:
        with open_regular(folder / MARKER) as file:
            tree = json.loads(file.read(_MAX_MARKER_BYTES))
    except (FileNotFoundError, NotADirectoryError, PermissionError, UnsafePathError, ValueError):
        return None
    return tree if isinstance(tree, dict) and isinstance(tree.get("job_id"), str) else None


def find_own(parent: Path, job: Job) -> Path | None:
    """The folder in `parent` that carries this job's marker; None when it was not made yet."""
    for folder in _candidates(parent, job.name):
        if not os.path.lexists(folder):
            return None
        if not folder.is_symlink() and (marker := read_marker(folder)) and marker["job_id"] == job.id:
            return folder
    return None


def own_folder(parent: Path, job: Job, kind: str, files: Iterable[str]) -> Path:
    """The job's folder in `parent`, made when missing: it appears with its marker inside, or not at all.

    `files`: every name that will ever stand there; retention removes those and nothing else. Where somebody else's
    folder has the name, a counter is added.
    """
    marker: dict[str, object] = {"job_id": job.id, "job": job.name, "kind": kind, "files": sorted(set(files))}
    folder = find_own(parent, job)
    if folder is not None:
        for leftover in folder.glob(f"{TEMP_PREFIX}*.part"):  # of an earlier try that was killed
            leftover.unlink()
        old = read_marker(folder) or {}
        known = old.get("files")
        marker["files"] = sorted({*files, *(known if isinstance(known, list) else ())})
        marker["made_seconds"] = old.get("made_seconds", time.time())
        if marker != old:
            write_json(folder / MARKER, marker)
        return folder
    temp = parent / f"{TEMP_PREFIX}{job.id}.part"
    remove_tree(temp)
    temp.mkdir()
    write_json(temp / MARKER, {**marker, "made_seconds": time.time()})
    for folder in _candidates(parent, job.name):
        try:
            rename_noreplace(temp, folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                continue
            if error.errno == errno.ENOENT and (read_marker(folder) or {}).get("job_id") == job.id:
                return folder  # a retried NFS rename says "not there" although it was done
            raise
        fsync_directory(parent)
        return folder
    raise FileExistsError(errno.EEXIST, f"no free name for {job.name} in {parent}")


def _candidates(parent: Path, name: str) -> Iterable[Path]:
    yield parent / name
    yield from (parent / f"{name}-{count}" for count in range(2, 100))
    yield parent / f"{name}-{secrets.token_hex(4)}"


def same_file(found: os.stat_result, file: InputFile) -> bool:
    """Whether a file on disk is the one that was claimed. The device number is left out: a new mount changes it."""
    return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns, found.st_ino) == (
        file.size,
        file.mtime_ns,
        file.inode,
    )


def find_input(layout: Layout, job: Job, file: InputFile) -> Place | None:
    """Where an input is now: in the inbox as claimed, else where `reject` or `archive` put it; None when nowhere."""
    found = lstat_beneath(layout.inbox, file.path)
    if found is not None and same_file(found, file):
        return Place(layout.inbox, file.path)
    name = kept_names(job.inputs)[file.path]
    for parent in (layout.failed, archive_parent(layout, job)):
        folder = find_own(parent, job)
        if folder is not None and (folder / name).is_file() and not (folder / name).is_symlink():
            return Place(folder, name)
    return None


def free_bytes(folder: Path) -> int:
    """Room for us on the disk that holds `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def require_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise DiskFullError unless `folder`'s disk has room for `needed_bytes` more."""
    free = free_bytes(folder)
    if free < needed_bytes:
        raise DiskFullError(
            f"{what}: needs {needed_bytes:,} bytes in {folder}, {free:,} are free",
            case="no_room",
            needed_bytes=needed_bytes,
            free_bytes=free,
        )
