"""What the owner of the share works on, written on the share: so that whoever takes over goes on with the same jobs.

One file for each unfinished job, named after the files that it claims and created exclusively: no two daemons can hold
the same drop, whatever they believe of each other. A job keeps its id and its name when another daemon takes it, so
what the first one has published or moved already is found and not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from heygemd.core.job import Job
from heygemd.failpoints import failpoint
from heygemd.files import explained, publish_file, rename_noreplace, temp_name
from heygemd.spool.drops import claim_key
from heygemd.spool.lease import FOLDER


class ClaimBook:
    """See the module. Every method may block on the share, and raises ShareAwayError and its like."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER / "jobs"

    def open(self) -> list[Job]:
        """All jobs that are claimed; makes the folder. What cannot be read as a job is passed by: it claims nothing."""
        with explained("the claims on the share"):
            self._folder.mkdir(parents=True, exist_ok=True)
            found = [_read(path) for path in sorted(self._folder.iterdir()) if path.suffix == ".json"]
        return sorted((job for job in found if job is not None), key=lambda job: (job.created_seconds, job.id))

    def claim(self, jobs: Sequence[Job]) -> list[Job]:
        """For each of them the job that holds its files now: itself, or another that came first."""
        with explained("the claims on the share"):
            return [self._claim(job) for job in jobs]

    def release(self, job: Job) -> None:
        """Its files are nobody's any more."""
        with explained("the claims on the share"):
            self._path(job).unlink(missing_ok=True)

    def _claim(self, job: Job) -> Job:
        target = self._path(job)
        temp = temp_name(target)
        try:
            temp.write_text(job.to_json(), encoding="utf-8")
            failpoint("claim.take")
            rename_noreplace(temp, target)
        except FileExistsError:
            other = _read(target)
            if other is not None:
                return other
            publish_file(temp, target, replace=True)  # damaged, or released in between
        finally:
            temp.unlink(missing_ok=True)
        return job

    def _path(self, job: Job) -> Path:
        keys = sorted({claim_key(file) for file in job.inputs})
        return self._folder / f"{hashlib.sha256(json.dumps(keys).encode()).hexdigest()}.json"


def _read(path: Path) -> Job | None:
    try:
        return Job.from_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
