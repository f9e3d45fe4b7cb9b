"""What one folder may have waiting: so many jobs, so many bytes. What is more stays in the inbox and says why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heygemd.core.errors import LimitError
from heygemd.core.settings import InboxSettings
from heygemd.spool.drops import Drop, Refusal, Waiting, Why
from heygemd.spool.names import shown


@dataclass(frozen=True)
class Load:
    """Jobs of a folder that wait, and the bytes of their inputs."""

    jobs: int = 0
    num_bytes: int = 0

    def with_one(self, num_bytes: int) -> Load:
        return Load(self.jobs + 1, self.num_bytes + num_bytes)


@dataclass(frozen=True)
class Sorted:
    """`ready`: the longest quiet first. `refused`: what would not fit into an empty folder either."""

    ready: list[Drop]
    waiting: list[Waiting]
    refused: list[Refusal]


def within_limits(
    complete: Iterable[tuple[float, Drop]], pending: Mapping[str, Load], settings: InboxSettings
) -> Sorted:
    """Let drops in, (quiet seconds, drop), as far as their folders have room for more."""
    loads: defaultdict[str, Load] = defaultdict(Load, pending)
    found = Sorted([], [], [])
    most_jobs, most_bytes = settings.max_pending_per_folder, settings.max_pending_bytes_per_folder
    for quiet, drop in sorted(complete, key=lambda one: (-one[0], one[1].inputs[0].path)):
        size, load = sum(file.size for file in drop.inputs), loads[drop.folder]
        detail = ""
        if most_bytes and size > most_bytes:
            text = f"{shown(drop.name)}: {size:,} bytes; a folder may have {most_bytes:,} waiting"
            error = LimitError(
                text,
                remedy="Ask the operator to raise inbox.max_pending_bytes_per_folder.",
                case="job_too_large",
                size_bytes=size,
                limit_bytes=most_bytes,
            )
            found.refused.append(Refusal(_without_items(drop), error))
            continue
        if load.jobs >= most_jobs:
            detail = f"{most_jobs} jobs of this folder wait already"
        elif most_bytes and load.num_bytes + size > most_bytes:
            detail = f"{load.num_bytes:,} bytes of this folder wait already; {most_bytes:,} may"
        if detail:
            files = tuple(file.path for file in drop.inputs)
            found.waiting.append(Waiting(drop.manifest or files[0], Why.FOLDER_LIMIT, quiet, detail, files))
        else:
            loads[drop.folder] = load.with_one(size)
            found.ready.append(drop)
    return found


def _without_items(drop: Drop) -> Drop:
    return Drop(drop.name, drop.folder, (), drop.inputs, drop.options, drop.priority, drop.batch, drop.manifest)
