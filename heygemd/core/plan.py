"""Plan: how one item is cut into segments, and what each of them needs. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.coding import SOFTWARE, Coding
from heygemd.core.errors import CannotFitError
from heygemd.core.memory import Estimate, mib

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
LEAST_SPLIT_FRAMES = 16
"""A segment shorter than twice this is not split any more: its fixed costs would be most of it."""
MOST_SPLITS = 2

Predict = Callable[[str, str, int], Estimate]
"""(device kind, precision, batch) → the memory model's estimate at this item's resolution."""


@dataclass(frozen=True)
class Segment:
    """Output frames first_frame .. stop_frame - 1 of one item: the unit of scheduling, resuming and parallelism."""

    number: int
    first_frame: int
    stop_frame: int
    splits: int = 0  # how often it was halved after out-of-memory

    @property
    def num_frames(self) -> int:
        return self.stop_frame - self.first_frame


@dataclass(frozen=True)
class DeviceOffer:
    """What a device has for renders, as the planner sees it. `kind`: "cpu" or "cuda"; `slots`: renders at once."""

    kind: str
    budget_bytes: int
    precisions: tuple[str, ...] = ("float32",)
    best_batch: int = 128
    slots: int = 1


@dataclass(frozen=True)
class PlanRequest:
    """What is to be cut, and the most that one segment may be."""

    num_frames: int
    fps: Fraction
    width: int
    height: int
    max_segment_seconds: float
    max_segment_frames: int
    cut_cost: NDArray[np.float32] | None = None  # (num_frames,): how bad a cut before each frame is
    max_segment_pixels: int | None = None


@dataclass(frozen=True)
class Choice:
    """One way to render a segment of the item, and its memory. `host_bytes`: of the host's RAM, beside a GPU's."""

    kind: str
    precision: str
    batch: int
    predicted_bytes: int
    reserved_bytes: int
    host_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """Segments in order, and what each needs while it renders.

    `batch`, `precision`, `predicted_bytes` and `device_kind` are what is expected; `choices` are all ways that fit some
    device: by kind, the largest batch first. Which one it becomes is known when a device is free. `alone`: the device
    must have nothing else on it (the last rung of the out-of-memory ladder). `coding` says who
    encodes every segment, whatever device renders it.
    """

    segments: tuple[Segment, ...]
    batch: int
    precision: str
    predicted_bytes: int
    device_kind: str
    choices: tuple[Choice, ...] = ()
    alone: bool = False
    coding: Coding = field(default_factory=Coding)

    @property
    def needs(self) -> dict[str, tuple[int, ...]]:
        """Bytes to reserve by device kind, one for each choice of `of_kind`, the largest first."""
        return {c.kind: tuple(o.reserved_bytes for o in self.of_kind(c.kind)) for c in self.choices}

    @property
    def host_bytes(self) -> int:
        """RAM of the host to reserve for a render on a GPU, whichever choice it becomes."""
        return max((choice.host_bytes for choice in self.choices), default=0)

    def of_kind(self, kind: str) -> tuple[Choice, ...]:
        return tuple(choice for choice in self.choices if choice.kind == kind)

    def segment(self, number: int) -> Segment:
        """Raises KeyError."""
        for segment in self.segments:
            if segment.number == number:
                return segment
        raise KeyError(number)

    def limited(self, batch: int) -> Plan:
        """No choice above this batch: the first rung of the ladder."""
        choices = tuple(c for c in self.choices if c.batch <= batch)
        return replace(self, choices=choices, batch=min(self.batch, batch)) if choices else self

    def can_split(self, number: int) -> bool:
        """Whether halving it makes sense, and has not been done twice already."""
        segment = self.segment(number)
        return segment.splits < MOST_SPLITS and segment.num_frames >= 2 * LEAST_SPLIT_FRAMES

    def split(self, number: int) -> Plan:
        """That segment as two of half its length, with new numbers: a number names a file, and never changes."""
        old = self.segment(number)
        middle = (old.first_frame + old.stop_frame) // 2
        free, splits = max(s.number for s in self.segments) + 1, old.splits + 1
        halves = (Segment(free, old.first_frame, middle, splits), Segment(free + 1, middle, old.stop_frame, splits))
        segments = itertools.chain.from_iterable(halves if s is old else (s,) for s in self.segments)
        return replace(self, segments=tuple(segments))

    def has(self, number: int) -> bool:
        """Whether a segment of that number is in the plan (still)."""
        return any(segment.number == number for segment in self.segments)

    def in_software(self, reason: str) -> Plan:
        """Every segment again, with the software's encoder, under new numbers: two encoders' cannot be joined."""
        free = max(s.number for s in self.segments) + 1
        segments = tuple(replace(segment, number=free + i) for i, segment in enumerate(self.segments))
        return replace(self, segments=segments, coding=replace(self.coding, encoder=SOFTWARE, encoder_reason=reason))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Plan:
        segments = tuple(Segment(**segment) for segment in data["segments"])
        choices = tuple(Choice(**choice) for choice in data.get("choices", ()))
        coding = Coding.from_dict(data.get("coding", {}))
        return Plan(**(data | {"segments": segments, "choices": choices, "coding": coding}))


def cut(request: PlanRequest) -> tuple[Segment, ...]:
    """Cover every frame exactly once with segments of nearly equal length, none above the caps.

    Each border may move by an eighth of a segment to where `cut_cost` is least (silence, a still mouth).
    """
    cap = max(1, min(request.max_segment_frames, int(Fraction(request.max_segment_seconds) * request.fps)))
    if request.max_segment_pixels is not None:
        cap = max(1, min(cap, request.max_segment_pixels // (request.width * request.height)))
    count = -(-request.num_frames // cap)
    borders = [round(i * request.num_frames / count) for i in range(count + 1)]
    if request.cut_cost is not None and count > 1:
        borders = _settle(borders, cap, request.cut_cost)
    return tuple(Segment(i, a, b) for i, (a, b) in enumerate(itertools.pairwise(borders)))


def _settle(borders: list[int], cap: int, cost: NDArray[np.float32]) -> list[int]:
    moved = [borders[0]]
    last = borders[-1]
    for i, border in enumerate(borders[1:-1], start=1):
        reach = max(1, (borders[i + 1] - borders[i]) // 8)
        left = len(borders) - 1 - i  # segments still to come
        lowest = max(moved[-1] + 1, border - reach, last - left * cap)
        highest = min(border + reach, moved[-1] + cap, last - left)
        if lowest > highest:
            lowest = highest = min(max(border, moved[-1] + 1), moved[-1] + cap)
        window = cost[lowest : highest + 1]
        best = lowest + int(np.argmin(window + 1e-6 * np.abs(np.arange(lowest, highest + 1) - border)))
        moved.append(best)
    moved.append(last)
    return moved


def choices(predict: Predict, offers: Sequence[DeviceOffer], *, what: str) -> tuple[Choice, ...]:
    """Every way that fits some offer, in one precision: GPUs before the CPU, the largest batch first.

    The precision is the first of the preferred offer that fits at all, so that every segment is computed alike. Raises
    CannotFitError that says what would fit.
    """
    ordered = sorted(offers, key=lambda o: (o.kind != "cuda", -o.budget_bytes))
    smallest: int | None = None
    for precision in dict.fromkeys(itertools.chain.from_iterable(offer.precisions for offer in ordered)):
        found: dict[tuple[str, int], Choice] = {}
        for offer in ordered:
            if precision not in offer.precisions:
                continue
            for batch in reversed([b for b in BATCHES if b <= offer.best_batch]):
                estimate = predict(offer.kind, precision, batch)
                need = estimate.reserved_bytes
                if need <= offer.budget_bytes:
                    choice = Choice(
                        offer.kind, precision, batch, estimate.predicted_bytes, need, estimate.host_bytes
                    )  # fmt: skip
                    found.setdefault((offer.kind, -batch), choice)
                smallest = need if smallest is None else min(smallest, need)
        if found:
            return monotone([found[key] for key in sorted(found, key=lambda key: (key[0] != "cuda", key))])
    most = max((offer.budget_bytes for offer in offers), default=0)
    raise CannotFitError(
        f"{what} needs at least {mib(smallest or 0)} MiB at its smallest; the largest device offers {mib(most)} MiB",
        remedy=f"Give the daemon a device that offers {mib(smallest or 0)} MiB to renders (`heygemd doctor` lists "
        "them), or set `resolution_limit` in the job: a smaller picture takes less.",
        case="memory",
        needed_bytes=smallest or 0,
        offered_bytes=most,
    )


def monotone(found: Sequence[Choice]) -> tuple[Choice, ...]:
    """A larger batch never counts for less than a smaller one, whatever was measured of each."""
    most: dict[str, int] = {}
    fixed = []
    for choice in reversed(found):
        most[choice.kind] = max(most.get(choice.kind, 0), choice.reserved_bytes)
        fixed.append(replace(choice, reserved_bytes=most[choice.kind]))
    return tuple(reversed(fixed))


def step_within(needs: Sequence[int], share_bytes: int, free_bytes: int) -> int | None:
    """Which of `needs` (largest first) to take where `free_bytes` are left and `share_bytes` are one slot's share.

    The largest within the share, so that the other slots keep theirs; where even the smallest is more than a share, the
    smallest if it fits at all.
    """
    for step, need in enumerate(needs):
        if need <= share_bytes:
            return step
    return len(needs) - 1 if needs and needs[-1] <= free_bytes else None


def expected(found: Sequence[Choice], offers: Sequence[DeviceOffer]) -> Choice:
    """The choice on the best device while others work beside it."""
    kind = found[0].kind
    of_kind = [choice for choice in found if choice.kind == kind]
    best = max((o for o in offers if o.kind == kind), key=lambda o: o.budget_bytes)
    step = step_within([c.reserved_bytes for c in of_kind], best.budget_bytes // best.slots, best.budget_bytes)
    return of_kind[-1 if step is None else step]
