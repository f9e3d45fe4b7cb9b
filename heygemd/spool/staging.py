"""From the share to local work: copied, hashed, compared with what was claimed. Runs in pool threads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from heygemd.core.errors import BadInputError, InputBusyError, ShareAwayError
from heygemd.core.job import InputFile, Job
from heygemd.failpoints import failpoint
from heygemd.files import TEMP_PREFIX, copy_hashed, explained, remove_tree, write_json
from heygemd.spool.beneath import lstat_beneath, open_beneath
from heygemd.spool.layout import Layout
from heygemd.spool.names import shown
from heygemd.spool.places import find_input, require_room, same_file

_RECORD = "inputs.json"


class InputChangedError(InputBusyError):
    """An input is another file than the one that was claimed. Let the job go: the next scan sees the new one."""


class InputVanishedError(InputBusyError):
    """Somebody took an input away before it was copied. Let the job go: nothing is lost, they have it."""


@dataclass(frozen=True)
class StagedInput:
    """One input's local copy. `path`: its key in the job."""

    path: str
    file: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class StagedItem:
    """One item with local files. `audio` ending in .txt, or `text`, is to be spoken. `work`: its scratch, made."""

    name: str
    index: int
    video: Path
    audio: Path | None
    text: str | None
    work: Path


@dataclass(frozen=True)
class Staged:
    items: tuple[StagedItem, ...]
    inputs: tuple[StagedInput, ...]

    def sums(self) -> dict[str, str]:
        """Input path → SHA-256, for the receipt."""
        return {file.path: file.sha256 for file in self.inputs}


def stage(
    job: Job, layout: Layout, *, reserve_bytes: int = 0, on_bytes: Callable[[int, int], None] | None = None
) -> Staged:
    """Copy the job's inputs to STATE/work/<job id>/inputs. What is there already is kept, so it can be repeated.

    `reserve_bytes` must stay free on the state disk. `on_bytes(done, total)` may raise to stop the copy.
    Raises DiskFullError, ShareAwayError, InputBusyError, InputChangedError, InputVanishedError, UnsafePathError, and
    BadInputError where a sum differs from the manifest's.
    """
    folder = layout.job_inputs(job.id)
    files = [file for file in job.inputs if file.role != "manifest"]
    with explained(f"work folder of {job.name}"):
        folder.mkdir(parents=True, exist_ok=True)
        failpoint("stage.begin")
        staged = _recorded(folder)
        todo = [file for file in files if file.path not in staged]
        total = sum(file.size for file in todo)
        require_room(folder, total + reserve_bytes if todo else 0, f"copy of {job.name}")
    done = 0
    for number, file in enumerate(files):
        if file.path in staged:
            continue
        report = (lambda count, before=done: on_bytes(before + count, total)) if on_bytes else None
        with explained(f"copy of {shown(file.path)}"):
            failpoint("stage.copy")
            staged[file.path] = copied = _copy(layout, job, file, _target(folder, number, file.path), report)
            failpoint("stage.record")
            rows = [{**asdict(s), "file": str(s.file.relative_to(folder))} for s in staged.values()]
            write_json(folder / _RECORD, rows)
        done += copied.size
    with explained(f"work folder of {job.name}"):
        items = tuple(_item(job, layout, index, staged) for index in range(len(job.items)))
        failpoint("stage.end")
    return Staged(items, tuple(staged[file.path] for file in files))


def unstage(job_id: str, layout: Layout) -> None:
    """Remove all local work of a job."""
    with explained(f"work folder of job {job_id}"):
        remove_tree(layout.job_work(job_id))


def sweep_work(layout: Layout, keep_ids: frozenset[str]) -> tuple[str, ...]:
    """Remove work folders of jobs that are not to be kept; their ids. For the start of the daemon."""
    removed = []
    with explained("work folder"):
        for path in tuple(layout.work.iterdir()):
            if path.name not in keep_ids:
                remove_tree(path) if path.is_dir() else path.unlink()
                removed.append(path.name)
    return tuple(removed)


def sweep_parts(state: Path) -> int:
    """Remove what writers of the state folder's files left when they were killed; how many. For the daemon's start."""
    parts = [path for path in state.glob(f"{TEMP_PREFIX}*.part") if path.is_file()]
    for path in parts:
        path.unlink(missing_ok=True)
    return len(parts)


def _copy(
    layout: Layout, job: Job, file: InputFile, target: Path, on_bytes: Callable[[int], None] | None
) -> StagedInput:
    name = shown(file.path)
    place = find_input(layout, job, file)
    if place is None:
        raise _gone(layout, file)
    target.unlink(missing_ok=True)  # a part of an earlier try
    try:
        source = open_beneath(place.root, place.relative)
    except FileNotFoundError:
        raise _gone(layout, file) from None
    with source:
        before = os.fstat(source.fileno())
        if place.root == layout.inbox and not same_file(before, file):
            raise InputChangedError(f"{name} changed after it was claimed", path=file.path)

        def watch(count: int) -> None:
            if count > before.st_size:  # it grows, maybe for ever
                raise InputChangedError(f"{name} grew while it was copied", path=file.path)
            if on_bytes:
                on_bytes(count)

        digest = copy_hashed(source, target, on_bytes=watch)
        after = os.fstat(source.fileno())
    size = target.stat().st_size
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or size != after.st_size:
        target.unlink()
        raise InputChangedError(f"{name} changed while it was copied", path=file.path)
    if file.sha256 is not None and digest != file.sha256:
        target.unlink()
        raise BadInputError(
            f"{name}: its SHA-256 is {digest}, the manifest promises {file.sha256}",
            remedy="Copy the file again, or correct the sum in the manifest.",
            path=file.path,
            case="sum_differs",
        )
    return StagedInput(file.path, target, size, digest)


def _gone(layout: Layout, file: InputFile) -> Exception:
    """Why an input cannot be found. A share that is away explains everything and comes first."""
    try:
        layout.check_share()
    except ShareAwayError as error:
        return error
    if lstat_beneath(layout.inbox, file.path) is not None:
        return InputChangedError(f"{shown(file.path)} changed after it was claimed", path=file.path)
    return InputVanishedError(f"{shown(file.path)} was taken away before it was copied", path=file.path)


def _recorded(folder: Path) -> dict[str, StagedInput]:
    """Copies of earlier runs that are whole: recorded only after their fsync, so their size tells."""
    try:
        rows = json.loads((folder / _RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    found = {}
    for row in rows:
        staged = StagedInput(row["path"], folder / row["file"], row["size"], row["sha256"])
        if staged.file.is_file() and staged.file.stat().st_size == staged.size:
            found[staged.path] = staged
    return found


def _item(job: Job, layout: Layout, index: int, staged: dict[str, StagedInput]) -> StagedItem:
    item = job.items[index]
    work = layout.item_work(job.id, index)
    work.mkdir(parents=True, exist_ok=True)
    audio = None if item.audio is None else staged[item.audio].file
    return StagedItem(item.name, index, staged[item.video].file, audio, item.text, work)


def _target(folder: Path, number: int, path: str) -> Path:
    """A folder of its own for each copy, so that it keeps the user's name: every later message speaks of that."""
    own = folder / f"{number:03d}"
    own.mkdir(exist_ok=True)
    return own / path.rpartition("/")[2]
