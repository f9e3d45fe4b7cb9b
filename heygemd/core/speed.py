"""How long things took here, and how long the next one will take. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

_WEIGHT = 0.3
_LEAST_FRAMES = 25
"""Less than this says more about starting than about speed."""


class SpeedKey(NamedTuple):
    """`what`: "render" or "finish". `device`: name and model, as far as they matter. `size`: memory.size_class."""

    what: str
    engine: str
    variant: str
    device: str
    precision: str
    size: str

    def text(self) -> str:
        return "/".join(part or "-" for part in self)

    @property
    def anywhere(self) -> SpeedKey:
        """The same at any size: worth a guess, no more."""
        return self._replace(size="any")


@dataclass(frozen=True)
class Speed:
    """Seconds for a frame, as a running mean over `count` measurements."""

    seconds: float = 0.0
    count: int = 0

    def timed(self, seconds: float) -> Speed:
        weight = max(_WEIGHT, 1 / (self.count + 1))
        return Speed(self.seconds + weight * (seconds - self.seconds), self.count + 1)


@dataclass(frozen=True)
class Speeds:
    """All of them, by key. `timed` gives a new one."""

    known: Mapping[str, Speed] = field(default_factory=dict)

    def timed(self, key: SpeedKey, seconds: float, frames: int) -> Speeds:
        """`frames` took so many seconds."""
        if frames < _LEAST_FRAMES:
            return self
        each = seconds / frames
        changed = {k.text(): self.known.get(k.text(), Speed()).timed(each) for k in (key, key.anywhere)}
        return Speeds({**self.known, **changed})

    def seconds_a_frame(self, key: SpeedKey) -> tuple[float, int] | None:
        """Seconds and the number of measurements; a count of 0 says that they were of another size. None: unknown."""
        exact = self.known.get(key.text())
        if exact is not None:
            return exact.seconds, exact.count
        other = self.known.get(key.anywhere.text())
        return None if other is None else (other.seconds, 0)

    def to_dict(self) -> dict[str, Any]:
        return {key: asdict(value) for key, value in sorted(self.known.items())}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Speeds:
        """Raises TypeError for what `to_dict` did not write."""
        return Speeds({key: Speed(**value) for key, value in data.items()})
