"""Calibration passes: what is measured, and the straight line through the peaks: what a render takes fixed, and what
each frame of the batch adds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SOURCE_FRAMES = 40
"""Of the clip that is made up. It is rendered once forwards and once backwards: the way back takes more."""


@dataclass(frozen=True)
class Shape:
    """What is measured: a picture, the largest face region in it, and the batch sizes, ascending."""

    engine: str
    checkpoint: str | None
    width: int
    height: int
    pix_fmt: str
    bit_depth: int
    region: tuple[int, int]
    batches: tuple[int, ...]

    @property
    def in_words(self) -> str:
        return f"{self.width}x{self.height}, face {self.region[0]}x{self.region[1]}"


def batches_for(best: int) -> tuple[int, ...]:
    """The smallest, the best and one between them."""
    return tuple(sorted({1, max(1, best // 4), best}))


@dataclass(frozen=True)
class Point:
    """One measured pass. `peak_bytes`: what a reservation must hold (on a CPU the worker's RAM with its children, on a
    GPU all of its memory there). The others are parts of it, 0 where there is no GPU: the allocator's own peaks, and
    what the device as a whole had more in use than before."""

    batch: int
    peak_bytes: int
    allocated_bytes: int = 0
    cached_bytes: int = 0
    device_bytes: int = 0


@dataclass(frozen=True)
class Fit:
    """`fixed_bytes` + batch × `per_item_bytes`, and never below `load_bytes`, the peak while a model is loaded.

    `formula_bytes`: what the formula says of the same shape, by batch: the fit is used as its ratio to that, so that it
    speaks about other shapes too. `shape`: what was measured, in words. `outside_bytes`: on a GPU, what lies outside of
    the allocator. `largest_error`: the most that a point is off the line.
    """

    fixed_bytes: int
    per_item_bytes: int
    load_bytes: int = 0
    outside_bytes: int = 0
    largest_error: float = 0.0
    shape: str = ""
    formula_bytes: Mapping[int, int] = field(default_factory=dict)
    points: tuple[Point, ...] = ()

    @staticmethod
    def through(
        points: Sequence[Point],
        formula_bytes: Mapping[int, int],
        *,
        load_bytes: int = 0,
        outside_bytes: int = 0,
        shape: str = "",
    ) -> Fit:
        """Least squares, with a slope that is never below zero: a larger batch cannot take less. Raises ValueError for
        no points at all; through one point the slope is the formula's."""
        if not points:
            raise ValueError("a fit needs a measured point")
        count = len(points)
        batch = sum(p.batch for p in points) / count
        peak = sum(p.peak_bytes for p in points) / count
        spread = sum((p.batch - batch) ** 2 for p in points)
        if spread:
            slope = max(0.0, sum((p.batch - batch) * (p.peak_bytes - peak) for p in points) / spread)
        else:
            slope = _slope_of(formula_bytes) * peak / max(1, formula_bytes.get(points[0].batch, 0) or int(peak))
        fixed = max(0.0, peak - slope * batch)
        error = max(abs((fixed + slope * p.batch) / max(1, p.peak_bytes) - 1) for p in points)
        return Fit(
            int(fixed), int(slope), load_bytes, outside_bytes, error, shape, dict(formula_bytes), tuple(points)
        )  # fmt: skip

    def bytes_at(self, batch: int) -> int:
        return max(self.load_bytes, self.fixed_bytes + batch * self.per_item_bytes)

    def ratio(self, batch: int) -> float:
        """Measured over formula at this batch, or at the nearest one that the formula was asked for."""
        if not self.formula_bytes:
            return 1.0
        known = min(self.formula_bytes, key=lambda b: (abs(b - batch), b))
        return self.bytes_at(known) / max(1, self.formula_bytes[known])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Fit:
        """Raises TypeError, ValueError for what `to_dict` did not write."""
        points = tuple(Point(**point) for point in data["points"])
        formula = {int(batch): int(value) for batch, value in data["formula_bytes"].items()}
        return Fit(**{**data, "points": points, "formula_bytes": formula})


def _slope_of(formula_bytes: Mapping[int, int]) -> float:
    batches = sorted(formula_bytes)
    if len(batches) < 2:
        return 0.0
    first, last = batches[0], batches[-1]
    return max(0.0, (formula_bytes[last] - formula_bytes[first]) / (last - first))
