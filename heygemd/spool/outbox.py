"""Results to the share: every file whole under its name, the receipt last. Runs in pool threads; can be repeated."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.job import Job
from heygemd.failpoints import failpoint
from heygemd.files import (
    copy_hashed,
    explained,
    fsync_directory,
    open_regular,
    publish_file,
    sha256_of,
    temp_name,
    write_json,
)
from heygemd.spool.layout import Layout
from heygemd.spool.names import fold
from heygemd.spool.places import find_own, own_folder, require_room
from heygemd.spool.staging import StagedInput


@dataclass(frozen=True)
class ItemResult:
    """One finished item, in local files. `receipt`: what is to be told about it."""

    name: str
    video: Path
    sheet: Path | None
    receipt: dict[str, Any]


@dataclass(frozen=True)
class _File:
    name: str  # in the outbox folder
    source: Path


def result_names(job: Job, results: Sequence[ItemResult], consents: Sequence[StagedInput] = ()) -> tuple[str, ...]:
    """Every name that `publish` gives in outbox/<job>/."""
    names = [file.name for file in (*_files(job, results), *_consent_files(job, results, consents))]
    return (*names, *([f"{job.name}.zip"] if job.batch else []), f"{job.name}.json")


def publish(
    job: Job,
    layout: Layout,
    results: Sequence[ItemResult],
    receipt: dict[str, Any],
    *,
    consents: Sequence[StagedInput] = (),
    on_bytes: Callable[[int, int], None] | None = None,
) -> Path:
    """Copy the results to outbox/<job>/ and write the receipt last; the folder.

    The receipt gets `job`, `job_id`, `items` (each item's receipt with its file names) and `files` (name, size_bytes,
    sha256 of everything beside it). `consents` are kept beside it, and it names them in `consent`. A batch also gets
    <job>.zip with the videos, stored. After a crash at any point the same call goes on where it stopped: the marker in
    the folder tells that it is this job's. A retried job replaces what differs, its old receipt first. Raises
    DiskFullError, ShareAwayError, InputBusyError.
    """
    kept = _consent_files(job, results, consents)
    files = [*_files(job, results), *kept]
    sizes = {file.name: file.source.stat().st_size for file in files}
    final = layout.outbox / job.name
    with explained(f"results of {job.name}"):
        own = find_own(layout.outbox, job)
        missing = [f for f in files if own is None or not (own / f.name).is_file()]
        needed = sum(sizes[f.name] for f in missing) * (2 if job.batch else 1)
        require_room(layout.outbox, needed, f"results of {job.name}")
        failpoint("outbox.folder")
        final = own_folder(layout.outbox, job, "outbox", result_names(job, results, consents))
    receipt_path = final / f"{job.name}.json"
    done, total = 0, sum(sizes.values())
    entries: list[dict[str, Any]] = []
    changed = False
    for file in files:
        with explained(f"result {file.name}"):
            report = (lambda count, before=done: on_bytes(before + count, total)) if on_bytes else None
            digest, new = _publish_one(file, final, receipt_path, report)
        changed = changed or new
        entries.append({"name": file.name, "size_bytes": sizes[file.name], "sha256": digest})
        done += sizes[file.name]
    with explained(f"results of {job.name}"):
        if job.batch:
            entries.append(_publish_zip(job, results, final, receipt_path, changed))
        whole = {
            "job": job.name,
            "job_id": job.id,
            **receipt,
            "items": [{"name": r.name, **_item_files(job, r), **r.receipt} for r in results],
            "consent": [
                {"file": file.name, "path": told.path, "size_bytes": told.size, "sha256": told.sha256}
                for file, told in zip(kept, consents, strict=True)
            ],
            "files": entries,
        }
        failpoint("outbox.receipt")
        if _read_json(receipt_path) != json.loads(json.dumps(whole)):
            write_json(receipt_path, whole)
        failpoint("outbox.published")
    return final


def _files(job: Job, results: Sequence[ItemResult]) -> list[_File]:
    files = []
    for result in results:
        stem = result.name if job.batch else job.name
        files.append(_File(stem + result.video.suffix, result.video))
        if result.sheet is not None:
            files.append(_File(stem + result.sheet.suffix, result.sheet))
    return files


def _consent_files(job: Job, results: Sequence[ItemResult], consents: Sequence[StagedInput]) -> list[_File]:
    """Under their own names, where those are not the results'."""
    taken = {fold(file.name) for file in _files(job, results)}
    taken |= {fold(f"{job.name}.json"), fold(f"{job.name}.zip")}
    kept = []
    for consent in consents:
        stem, dot, suffix = consent.file.name.rpartition(".")
        name = consent.file.name
        while fold(name) in taken:
            stem += "-consent"
            name = f"{stem}{dot}{suffix}"
        taken.add(fold(name))
        kept.append(_File(name, consent.file))
    return kept


def _item_files(job: Job, result: ItemResult) -> dict[str, str | None]:
    stem = result.name if job.batch else job.name
    return {
        "file": stem + result.video.suffix,
        "contact_sheet": None if result.sheet is None else stem + result.sheet.suffix,
    }


def _publish_one(file: _File, folder: Path, receipt: Path, on_bytes: Callable[[int], None] | None) -> tuple[str, bool]:
    """The file's SHA-256, and whether it was written now (False: it stood there already)."""
    target = folder / file.name
    if target.is_file() and not target.is_symlink() and target.stat().st_size == file.source.stat().st_size:
        digest = sha256_of(file.source)
        if sha256_of(target) == digest:
            return digest, False
    failpoint("outbox.copy")
    temp = temp_name(target)
    with open_regular(file.source) as source:
        digest = copy_hashed(source, temp, on_bytes=on_bytes)
    _finish(temp, target, receipt)
    return digest, True


def _finish(temp: Path, target: Path, receipt: Path) -> None:
    """Give a finished file its name. Where an older one stands there, its receipt goes first: it is no longer true."""
    failpoint("outbox.rename")
    replace = os.path.lexists(target)
    if replace:
        receipt.unlink(missing_ok=True)
    try:
        publish_file(temp, target, replace=replace)
    except FileNotFoundError:
        if temp.exists() or not target.exists():  # a retried NFS rename says "not there" although it was done
            raise
        fsync_directory(target.parent)


def _publish_zip(job: Job, results: Sequence[ItemResult], folder: Path, receipt: Path, changed: bool) -> dict[str, Any]:
    target = folder / f"{job.name}.zip"
    members = {result.name + result.video.suffix: result.video for result in results}
    if changed or not _zip_holds(target, members):
        failpoint("outbox.zip")
        temp = temp_name(target)
        try:
            with temp.open("xb") as out:
                with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True, strict_timestamps=False) as archive:
                    for name, video in members.items():
                        archive.write(video, name)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                temp.unlink()
            raise
        _finish(temp, target, receipt)
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": target.name, "size_bytes": target.stat().st_size, "sha256": digest}


def _zip_holds(path: Path, members: dict[str, Path]) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info.file_size for info in archive.infolist()}
    except (FileNotFoundError, zipfile.BadZipFile):
        return False
    return found == {name: video.stat().st_size for name, video in members.items()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
