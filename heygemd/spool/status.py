"""status/<job>.json on the share: what a user opens to see how far a job is. It informs; nothing depends on it."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from heygemd.core.errors import UnsafePathError
from heygemd.core.job import Job
from heygemd.failpoints import failpoint
from heygemd.files import TEMP_PREFIX, explained, open_regular, write_json
from heygemd.spool.layout import Layout
from heygemd.spool.names import fold

_MAX_BYTES = 1_000_000
_MAX_TEMP_SECONDS = 3600.0


def write_status(layout: Layout, job: Job, view: dict[str, Any]) -> None:
    """Replace the job's status file by `view` at once; `job`, `job_id` and `state` are added. Not fsynced."""
    with explained(f"status of {job.name}"):
        failpoint("status.write")
        data = {"job": job.name, "job_id": job.id, "state": job.state, **view}
        write_json(layout.status / f"{job.name}.json", data, durable=False)


def told_otherwise(layout: Layout, jobs: Collection[Job]) -> tuple[Job, ...]:
    """Those of `jobs` whose status file says another state: a daemon that was killed could not write the last one."""
    wrong = []
    with explained("status folder"):
        there = {path.name for path in layout.status.iterdir()}
    for job in jobs:
        if f"{job.name}.json" in there:
            tree = _read(layout.status / f"{job.name}.json")
            if tree is not None and tree.get("job_id") == job.id and tree.get("state") != job.state:
                wrong.append(job)
    return tuple(wrong)


def _read(path: Path) -> dict[str, Any] | None:
    """A status file of ours; None for everything else."""
    try:
        with open_regular(path) as file:
            tree = json.loads(file.read(_MAX_BYTES))
    except (ValueError, UnsafePathError, FileNotFoundError):
        return None
    return tree if isinstance(tree, dict) and tree.get("job") == path.stem and "job_id" in tree else None


def remove_status(layout: Layout, name: str) -> None:
    """Remove the status file of a job. Missing is fine."""
    with explained(f"status of {name}"):
        (layout.status / f"{name}.json").unlink(missing_ok=True)


def _old(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > _MAX_TEMP_SECONDS
    except FileNotFoundError:
        return False


def prune_status(layout: Layout, keep: Collection[str]) -> tuple[str, ...]:
    """Remove status files of jobs not in `keep` (names); the names removed. Files that are not ours stay."""
    kept = {fold(name) for name in keep}
    removed = []
    with explained("status folder"):
        for path in tuple(layout.status.iterdir()):
            name, dot, suffix = path.name.rpartition(".")
            if name.startswith(TEMP_PREFIX) and suffix == "part" and _old(path):
                path.unlink(missing_ok=True)  # of a daemon that was killed
            if not dot or suffix != "json" or fold(name) in kept or name.startswith("."):
                continue
            if _read(path) is not None:
                path.unlink(missing_ok=True)
                removed.append(name)
    return tuple(removed)
