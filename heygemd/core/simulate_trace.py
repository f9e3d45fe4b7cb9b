"""Traces for the simulator: jobs that arrive, from a file or made up from a seed. Pure."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from heygemd.core.errors import UsageError


@dataclass(frozen=True)
class TraceJob:
    """One job of a trace. `frames`: of the result; `width`, `height`: of its picture."""

    id: str
    arrival_seconds: float
    frames: int
    width: int = 1920
    height: int = 1080
    fps: float = 25
    priority: int = 0
    folder: str = ""


_SIZES = (((854, 480), 15), ((1280, 720), 30), ((1920, 1080), 45), ((2560, 1440), 4), ((3840, 2160), 6))
_PRIORITIES = ((0, 80), (5, 15), (10, 5))


def generate(count: int, seed: int, *, arrivals_per_hour: float = 0.0, folders: int = 8) -> tuple[TraceJob, ...]:
    """`count` jobs: mostly a minute or two, some of hours; 480p to 4K; half of them from one folder that floods.

    `arrivals_per_hour` 0: all at once, a saturated queue.
    """
    dice = random.Random(seed)  # noqa: S311 - a simulation must be repeatable
    now = 0.0
    jobs = []
    for number in range(count):
        if arrivals_per_hour > 0:
            now += dice.expovariate(arrivals_per_hour / 3600)
        seconds = min(4 * 3600.0, max(3.0, dice.lognormvariate(4.3, 1.0)))
        (width, height), priority = _pick(dice, _SIZES), _pick(dice, _PRIORITIES)
        folder = "flood" if dice.random() < 0.5 else f"folder{dice.randrange(max(1, folders - 1))}"
        jobs.append(TraceJob(f"job{number}", now, max(1, int(seconds * 25)), width, height, 25, priority, folder))
    return tuple(jobs)


def _pick(dice: random.Random, weighted: tuple[tuple[Any, int], ...]) -> Any:
    return dice.choices([value for value, _ in weighted], [weight for _, weight in weighted])[0]


def _check(job: TraceJob) -> None:
    """Raises ValueError."""
    for name, most in (("frames", _MOST_FRAMES), ("width", _MOST_SIDE), ("height", _MOST_SIDE)):
        value = getattr(job, name)
        if type(value) is not int or not 0 < value <= most:
            raise ValueError(f"{name} {value!r}: must be a whole number from 1 to {most}")
    if not _is_number(job.fps) or not 0 < job.fps <= _MOST_RATE:
        raise ValueError(f"fps {job.fps!r}: must be a number above 0, at most {_MOST_RATE}")
    if not _is_number(job.arrival_seconds) or job.arrival_seconds < 0:
        raise ValueError(f"arrival_seconds {job.arrival_seconds!r}: must be a number, 0 or more")
    if type(job.priority) is not int:
        raise ValueError(f"priority {job.priority!r}: must be a whole number")
    for name in ("id", "folder"):
        if not isinstance(getattr(job, name), str):
            raise ValueError(f"{name} {getattr(job, name)!r}: must be text, in quotes")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_MOST_FRAMES = 10_000_000  # four days at 25 fps
_MOST_SIDE = 16_384
_MOST_RATE = 1000


def parse_trace(lines: Iterable[str], name: str) -> tuple[TraceJob, ...]:
    """One JSON object a line, with the fields of TraceJob; `id` and `arrival_seconds` may be left out. Empty lines and
    lines that start with # are passed by. Raises UsageError that names the line."""
    known = {field.name for field in fields(TraceJob)}
    jobs = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            data: Any = json.loads(text)
            if not isinstance(data, dict):
                raise ValueError("it is no JSON object")
            unknown = sorted(data.keys() - known)
            if unknown:
                raise ValueError(f"it has an unknown field {unknown[0]!r}")
            if "frames" not in data:
                raise ValueError("it has no `frames`")
            job = TraceJob(**{"id": f"job{number}", "arrival_seconds": 0.0, **data})
            _check(job)
        except ValueError as error:
            raise UsageError(
                f"{name}, line {number}: {error}", remedy="See docs/scheduling.md for the fields of a trace."
            ) from None
        jobs.append(job)
    if len({job.id for job in jobs}) != len(jobs):
        raise UsageError(f"{name}: two jobs have the same id", remedy="Give each job an id of its own, or none.")
    return tuple(sorted(jobs, key=lambda job: job.arrival_seconds))
