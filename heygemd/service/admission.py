"""Which waiting job is let in next: by priority, age and fair share among folders; no folder beyond its seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from heygemd.core.job import Job
from heygemd.core.placement import Device, Request, Scheduler

_REFUSALS_AT_ONCE = 8
"""Drops with an error on their way to failed/: moves of files, which wait for no device."""


class Admission:
    """Waiting jobs. Deciding costs about the same however many there are.

    What is refused has nothing to render: who dropped it hears at once, however long the queue is.
    """

    def __init__(self, aging_seconds: float) -> None:
        self._scheduler = Scheduler(aging_seconds=aging_seconds)
        self._held: dict[str, dict[str, Job]] = {}  # folder that has enough in work → its waiting jobs
        self._waiting: dict[str, dict[str, Job]] = {}  # folder → jobs that may be let in
        self._refused: dict[str, Job] = {}
        self._leaving: set[str] = set()  # refused jobs that were let in

    def offer(self, job: Job) -> None:
        if job.error is not None:
            self._refused[job.id] = job
            return
        if job.folder in self._held:
            self._held[job.folder][job.id] = job
            return
        self._waiting.setdefault(job.folder, {})[job.id] = job
        wanted: dict[str, Any] = {"job": (1,)}
        self._scheduler.offer(Request(job.id, job.id, job.folder, job.priority, job.created_seconds, 0, wanted))

    def withdraw(self, job: Job) -> None:
        """It does not wait any more."""
        self._scheduler.withdraw(job.id)
        self._refused.pop(job.id, None)
        for places in (self._held, self._waiting):
            places.get(job.folder, {}).pop(job.id, None)

    def release(self, job_id: str) -> None:
        """A job that was let in has ended, or gives up its place. Unknown ids are ignored."""
        self._scheduler.release(job_id)
        self._leaving.discard(job_id)

    def decide(
        self, now: float, *, room: int, aging_seconds: float, seconds: Mapping[str, float], most_seconds: float
    ) -> list[str]:
        """Ids of jobs to let in. `room`: how many may be in work at once; `seconds`: of video that each folder has in
        work; a folder with `most_seconds` or more lets nothing new in (0 = no limit)."""
        over = {folder for folder, found in seconds.items() if most_seconds and found >= most_seconds}
        for folder in over - self._held.keys():
            self._held[folder] = self._waiting.pop(folder, {})
            for job_id in self._held[folder]:
                self._scheduler.withdraw(job_id)
        for folder in self._held.keys() - over:
            for job in self._held.pop(folder).values():
                self.offer(job)
        self._scheduler.aging_seconds = aging_seconds
        self._scheduler.set_devices([Device("jobs", "job", room, room, room)])
        found = [placement.request for placement in self._scheduler.decide(now)]
        for request in found:
            self._waiting[request.folder].pop(request.id)
        return [*self._refusals(), *(request.id for request in found)]

    def _refusals(self) -> list[str]:
        ids = list(islice(self._refused, _REFUSALS_AT_ONCE - len(self._leaving)))
        for job_id in ids:
            del self._refused[job_id]
        self._leaving.update(ids)
        return ids

    def holds(self, folder: str) -> bool:
        """Whether the folder's jobs wait because it has enough in work."""
        return folder in self._held


def in_order(jobs: Iterable[Job], held: Mapping[str, int], now: float, aging_seconds: float) -> list[Job]:
    """Waiting jobs, about as they will be let in. `held`: jobs in work, by folder."""

    def rank(job: Job) -> tuple[int, int, float, str]:
        step = job.priority + int(max(0.0, now - job.created_seconds) / aging_seconds)
        return (-step, held.get(job.folder, 0), job.created_seconds, job.id)

    return sorted(jobs, key=rank)
