"""What `doctor` looks at. Each check yields findings; none changes anything but a hidden file of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `remedy`: what to do, empty when it is well."""

    area: str
    level: Level
    message: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
