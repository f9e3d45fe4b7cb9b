"""Which waiting job is let in next: by priority, age and fair share among folders; no folder beyond its seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from heygemd.core.job import Job
from heygemd.core.placement import Device, Request, Scheduler


class Admission:
    """Waiting jobs. Deciding costs about the same however many there are."""

    def __init__(self, aging_seconds: float) -> None:
        self._scheduler = Scheduler(aging_seconds=aging_seconds)
        self._held: dict[str, dict[str, Job]] = {}  # folder that has enough in work → its waiting jobs
        self._waiting: dict[str, dict[str, Job]] = {}  # folder → jobs that may be let in

    def offer(self, job: Job) -> None:
        if job.folder in self._held:
            self._held[job.folder][job.id] = job
            return
        self._waiting.setdefault(job.folder, {})[job.id] = job
        wanted: dict[str, Any] = {"job": (1,)}
        self._scheduler.offer(Request(job.id, job.id, job.folder, job.priority, job.created_seconds, 0, wanted))

    def withdraw(self, job: Job) -> None:
        """It does not wait any more."""
        self._scheduler.withdraw(job.id)
        for places in (self._held, self._waiting):
            places.get(job.folder, {}).pop(job.id, None)

    def release(self, job_id: str) -> None:
        """A job that was let in has ended. Unknown ids are ignored."""
        self._scheduler.release(job_id)

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
        return [request.id for request in found]

    def holds(self, folder: str) -> bool:
        """Whether the folder's jobs wait because it has enough in work."""
        return folder in self._held


def in_order(jobs: Iterable[Job], held: Mapping[str, int], now: float, aging_seconds: float) -> list[Job]:
    """Waiting jobs, about as they will be let in. `held`: jobs in work, by folder."""

    def rank(job: Job) -> tuple[int, int, float, str]:
        step = job.priority + int(max(0.0, now - job.created_seconds) / aging_seconds)
        return (-step, held.get(job.folder, 0), job.created_seconds, job.id)

    return sorted(jobs, key=rank)
