"""What becomes of a job's inputs: to the archive, to failed/, or back to the inbox. Runs in pool threads; repeatable.

An input is moved only while it is the very file that was claimed. What changed since is somebody's new work and stays.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import BadInputError, HeygemdError, UnsafePathError
from heygemd.core.job import InputFile, Job
from heygemd.failpoints import failpoint
from heygemd.files import explained, fsync_directory, write_atomic, write_json
from heygemd.spool.beneath import held_parent, lstat_beneath, move_file
from heygemd.spool.drops import ClaimKey, claim_key
from heygemd.spool.layout import MARKER, Layout
from heygemd.spool.names import shown
from heygemd.spool.places import (
    ERROR_FILE,
    LOG_FILE,
    archive_parent,
    find_input,
    find_own,
    kept_names,
    own_folder,
    same_file,
)

_MAX_LOG_BYTES = 1_000_000
_STUCK = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY, errno.EROFS}


@dataclass(frozen=True)
class Left:
    """An input that stayed where it was. `stuck`: it should have been moved but could not be; it stays claimed."""

    path: str
    reason: str
    stuck: bool = False


@dataclass(frozen=True)
class Moved:
    """`folder`: where the inputs went. `moved`, `left`: by their path in the job."""

    folder: Path
    moved: tuple[str, ...]
    left: tuple[Left, ...]

    @property
    def stuck_paths(self) -> frozenset[str]:
        """For `Journal.release(except_paths=…)`: without it the next scan would take them for new."""
        return frozenset(left.path for left in self.left if left.stuck)


def archive(
    job: Job, layout: Layout, *, still_needed: Collection[ClaimKey] = (), paths: Collection[str] | None = None
) -> Moved:
    """Move the inputs (only `paths` where given) to archive/<day>/<job>/, those of a retried job from failed/ too.

    `still_needed`: `Journal.still_needed(job.id)`. Raises DiskFullError, ShareAwayError.
    """
    files = [file for file in job.inputs if paths is None or file.path in paths]
    with explained(f"archive of {job.name}"):
        failpoint("archive.folder")
        parent = archive_parent(layout, job)
        if not parent.is_dir():
            parent.mkdir(exist_ok=True)
            fsync_directory(parent.parent)
        names = kept_names(job.inputs)
        folder = own_folder(parent, job, "archive", [names[file.path] for file in files])
        moved = _move(job, layout, files, folder, still_needed, "archive.move")
        if paths is None:
            _clear_failed(job, layout)
        failpoint("archive.end")
    return moved


def reject(
    job: Job,
    layout: Layout,
    error: HeygemdError,
    *,
    failed_items: Mapping[str, HeygemdError] | None = None,
    ffmpeg_log: Path | None = None,
    still_needed: Collection[ClaimKey] = (),
) -> Moved:
    """Move the inputs to failed/<job>/, the end of `ffmpeg_log` beside them, error.json last.

    `failed_items` (a batch, item name → its error): only what those items need goes to failed/; the rest is archived.
    Works for cancelled jobs too. Raises DiskFullError, ShareAwayError.
    """
    files = list(job.inputs)
    if failed_items is not None and len(failed_items) < len(job.items):
        needed = {p for item in job.items if item.name in failed_items for p in (item.video, item.audio) if p}
        files = [file for file in job.inputs if file.path in needed or file.role in ("manifest", "consent")]
        rest = {file.path for file in job.inputs} - {file.path for file in files}
        archive(job, layout, still_needed=still_needed, paths=rest)
    names = kept_names(job.inputs)
    with explained(f"failed folder of {job.name}"):
        failpoint("reject.folder")
        every = [*names.values(), ERROR_FILE, LOG_FILE]
        folder = own_folder(layout.failed, job, "failed", every)
        moved = _move(job, layout, files, folder, still_needed, "reject.move")
        if ffmpeg_log is not None and ffmpeg_log.is_file():
            write_atomic(folder / LOG_FILE, _tail(ffmpeg_log))
        failpoint("reject.error")
        write_json(folder / ERROR_FILE, _error_view(job, error, failed_items or {}, files, names, moved))
        failpoint("reject.end")
    return moved


def tidy(job: Job, layout: Layout, *, still_needed: Collection[ClaimKey] = ()) -> Moved:
    """Try again to move an ended job's stuck inputs to where the others are. Raises DiskFullError, ShareAwayError."""
    with explained(f"inputs of {job.name}"):
        folder = find_own(layout.failed, job)
    if folder is None:
        return archive(job, layout, still_needed=still_needed)
    with explained(f"inputs of {job.name}"):
        return _move(job, layout, job.inputs, folder, still_needed, "reject.move")


def restore(job: Job, layout: Layout) -> tuple[str, ...]:
    """Move a failed job's inputs back to their places in the inbox, the manifest last; the paths.

    For jobs that were refused before they had items: the next scan reads them anew. Raises BadInputError, and moves
    nothing, where another file has taken a place; ShareAwayError, DiskFullError.
    """
    with explained(f"return of {job.name}"):
        folder = find_own(layout.failed, job)
        if folder is None:
            return ()
        names = kept_names(job.inputs)
        files = sorted(job.inputs, key=lambda file: file.role == "manifest")
        there = [file for file in files if os.path.lexists(folder / names[file.path])]
        for file in there:
            if lstat_beneath(layout.inbox, file.path) is not None:
                raise BadInputError(
                    f"the inbox already holds another {shown(file.path)}",
                    remedy="Rename or remove that one, then retry.",
                    path=file.path,
                    case="name_taken",
                )
        for file in there:
            failpoint("restore.move")
            with held_parent(layout.inbox, file.path, make=True) as held:
                move_file(folder / names[file.path], held)
        _clear_failed(job, layout)
    return tuple(file.path for file in there)


def begin_retry(job: Job, layout: Layout) -> None:
    """Before a failed job is queued again under its own name: see that its inputs are all there, drop the old error.

    The inputs stay in failed/<job>/ and are staged from there, or not at all where the local copies are kept.
    Raises BadInputError that names what is missing.
    """
    with explained(f"retry of {job.name}"):
        missing = [f.path for f in job.inputs if f.role != "manifest" and find_input(layout, job, f) is None]
        if missing:
            raise BadInputError(
                f"{job.name}: {', '.join(shown(path) for path in missing)} is no longer there",
                remedy="Drop the files again.",
                path=missing[0],
                case="inputs_gone",
            )
        if (folder := find_own(layout.failed, job)) is not None:
            (folder / ERROR_FILE).unlink(missing_ok=True)


def _move(
    job: Job,
    layout: Layout,
    files: Sequence[InputFile],
    folder: Path,
    still_needed: Collection[ClaimKey],
    point: str,
) -> Moved:
    names = kept_names(job.inputs)
    moved, left = [], []
    for file in files:
        target = folder / names[file.path]
        failpoint(point)
        if os.path.lexists(target):  # moved by an earlier try
            moved.append(file.path)
            continue
        if claim_key(file) in still_needed:
            left.append(Left(file.path, "another job needs it"))
            continue
        try:
            reason = _move_one(job, layout, file, names[file.path], target)
        except UnsafePathError as error:
            reason = error.message
        except OSError as error:
            if error.errno not in _STUCK:
                raise
            left.append(Left(file.path, f"cannot be moved: {os.strerror(error.errno)}", stuck=True))
            continue
        if reason is None:
            moved.append(file.path)
        else:
            left.append(Left(file.path, reason))
    return Moved(folder, tuple(moved), tuple(left))


def _move_one(job: Job, layout: Layout, file: InputFile, name: str, target: Path) -> str | None:
    """Move one input to `target`; None, or why it stayed."""
    reason = "gone"
    try:
        with held_parent(layout.inbox, file.path) as held:
            if same_file(os.lstat(held), file):
                move_file(held, target)
                return None
            reason = "changed after it was claimed"
    except (FileNotFoundError, NotADirectoryError):
        pass
    for parent in (layout.failed, archive_parent(layout, job)):
        own = find_own(parent, job)
        if own is not None and own != target.parent and os.path.lexists(own / name):
            move_file(own / name, target)
            return None
    return reason


def _clear_failed(job: Job, layout: Layout) -> None:
    """Remove what we wrote to failed/<job>/, and the folder when nothing else is in it."""
    folder = find_own(layout.failed, job)
    if folder is None:
        return
    if {path.name for path in folder.iterdir()} <= {ERROR_FILE, LOG_FILE, MARKER}:
        for name in (ERROR_FILE, LOG_FILE, MARKER):  # the marker last: a crash between leaves a folder that is ours
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
        fsync_directory(layout.failed)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _MAX_LOG_BYTES))
        return file.read(_MAX_LOG_BYTES)


def _error_view(
    job: Job,
    error: HeygemdError,
    failed_items: Mapping[str, HeygemdError],
    files: Sequence[InputFile],
    names: Mapping[str, str],
    moved: Moved,
) -> dict[str, Any]:
    reasons = {left.path: left.reason for left in moved.left}
    return {
        "job": job.name,
        "job_id": job.id,
        "error": error.to_dict(),
        "items": [{"name": name, "error": item.to_dict()} for name, item in failed_items.items()],
        "inputs": [
            {"path": f.path, "file": None if f.path in reasons else names[f.path], "left": reasons.get(f.path)}
            for f in files
        ],
        "retry": f"heygemd retry {shlex.quote(job.name)}",
    }
