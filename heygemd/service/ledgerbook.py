"""What the dispatcher writes down while jobs run: the journal for the daemon, a dict for `heygemd run`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from heygemd.core.job import Job
from heygemd.service.door import ClaimKey


class Ledgerbook(Protocol):
    """The part of the journal that is written while jobs run."""

    def update(self, job: Job) -> None: ...

    def finish(self, job: Job, except_paths: Collection[str] = ()) -> None: ...

    def still_needed(self, job_id: str) -> Collection[ClaimKey]: ...

    def set_plan(self, job_id: str, item: str, segments: Sequence[Mapping[str, Any]]) -> None: ...

    def count_attempt(self, job_id: str, item: str, number: int) -> int: ...

    def segment_stats(self, job_id: str, item: str) -> Mapping[int, dict[str, Any]]: ...

    def segment_done(self, job_id: str, item: str, number: int, info: Mapping[str, Any]) -> None: ...
