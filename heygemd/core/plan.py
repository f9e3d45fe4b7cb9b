"""Plan: how one item is cut into segments, and what each of them needs. Pure."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.errors import CannotFitError

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Segment:
    """Output frames first_frame .. stop_frame - 1 of one item: the unit of scheduling, resuming and parallelism."""

    number: int
    first_frame: int
    stop_frame: int

    @property
    def num_frames(self) -> int:
        return self.stop_frame - self.first_frame


@dataclass(frozen=True)
class DeviceOffer:
    """What a device has for one worker, as the planner sees it. `kind`: "cpu" or "cuda"."""

    kind: str
    budget_bytes: int
    precisions: tuple[str, ...] = ("float32",)
    best_batch: int = 128


@dataclass(frozen=True)
class PlanRequest:
    """What is to be cut. `predict(device, precision, batch) -> bytes` is the memory model at this clip's resolution."""

    num_frames: int
    fps: Fraction
    width: int
    height: int
    max_segment_seconds: float
    max_segment_frames: int
    cut_cost: NDArray[np.float32] | None = None  # (num_frames,): how bad a cut before each frame is


@dataclass(frozen=True)
class Plan:
    """Segments in order, and what each needs while it renders."""

    segments: tuple[Segment, ...]
    batch: int
    precision: str
    predicted_bytes: int
    device_kind: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"segments": [asdict(segment) for segment in self.segments]}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Plan:
        return Plan(**(data | {"segments": tuple(Segment(**segment) for segment in data["segments"])}))


def cut(request: PlanRequest) -> tuple[Segment, ...]:
    """Cover every frame exactly once with segments of nearly equal length, none above the caps.

    Each border may move by an eighth of a segment to where `cut_cost` is least (silence, a still mouth).
    """
    cap = max(1, min(request.max_segment_frames, int(Fraction(request.max_segment_seconds) * request.fps)))
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


def choose_batch(predict: Any, offers: tuple[DeviceOffer, ...], *, what: str) -> tuple[DeviceOffer, int, str, int]:
    """The offer, largest batch, precision and bytes that fit. Raises CannotFitError that says what would.

    Prefers CUDA to CPU, then the precision that the device lists first, then the largest batch up to its best.
    """
    smallest: int | None = None
    for offer in sorted(offers, key=lambda o: (o.kind != "cuda", -o.budget_bytes)):
        for precision in offer.precisions:
            for batch in reversed([b for b in BATCHES if b <= offer.best_batch]):
                need = int(predict(offer.kind, precision, batch))
                if need <= offer.budget_bytes:
                    return offer, batch, precision, need
                smallest = need if smallest is None else min(smallest, need)
    most = max((offer.budget_bytes for offer in offers), default=0)
    raise CannotFitError(
        f"{what} needs at least {_mib(smallest or 0)} MiB at its smallest; the largest device offers {_mib(most)} MiB",
        remedy="Set `resolution_limit`, or give the daemon a device with more memory.",
        needed_bytes=smallest or 0,
        offered_bytes=most,
    )


def _mib(count: int) -> int:
    return -(-count // 2**20)
