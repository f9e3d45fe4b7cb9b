"""The ceiling: the most memory that a task could ever be given. What certainly needs more is refused at once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ceiling:
    """`by_kind`: of every kind of device that renders here, the largest budget of one with nobody else on it; None
    where devices may come that nobody knows yet. `host_bytes`: the same of this machine's RAM, where items are
    prepared, and rendered by engines that know no other kind. `ratios`: to what share of its formula a prediction may
    come down by measuring, by kind (1 unless named).
    """

    by_kind: Mapping[str, int] | None
    host_bytes: int
    ratios: Mapping[str, float] = field(default_factory=dict)

    def of(self, kinds: Collection[str]) -> dict[str, int]:
        """For an engine that renders on `kinds`: where it would, and the most bytes there; empty where nobody knows."""
        if self.by_kind is None:
            return {}
        found = {kind: self.by_kind[kind] for kind in kinds if kind in self.by_kind}
        return found or ({"cpu": self.host_bytes} if "cpu" in kinds else {})

    def surely_above(self, kind: str, formula_bytes: int, most_bytes: int) -> bool:
        """Whether what a formula says of the smallest that there can be is too much, whatever is measured yet."""
        return formula_bytes * self.ratios.get(kind, 1.0) > most_bytes

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Ceiling:
        return Ceiling(**data)
