"""What the simulator makes up: the world that the scheduler does not know, and what a render takes in it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from heygemd.core.memory import MIB, Picture


@dataclass(frozen=True)
class World:
    """What the scheduler does not know. `error`: each job's real need differs from the formula by up to this share,
    `bias` is added to all of them. `noise`: the most that other programs take of a card; they move every few seconds.
    `deaths`: share of tasks whose worker dies. `losses`: how often a card disappears, for ten minutes."""

    seed: int = 0
    error: float = 0.0
    bias: float = 0.0
    noise: float = 0.0
    deaths: float = 0.0
    losses: int = 0
    slots: int = 2
    fraction: float = 0.9
    segment_seconds: float = 30.0
    aging_seconds: float = 600.0
    attempts: int = 3


def formula_bytes(picture: Picture, batch: int) -> int:
    """A neural engine of middling size on a GPU: context and weights, and for each frame of the batch its share."""
    return 1000 * MIB + batch * (24 * MIB + 24 * picture.pixels)


def frames_a_second(picture: Picture, batch: int) -> float:
    """Of one slot."""
    return 60.0 / (1 + picture.pixels / (1920 * 1080)) * batch / (batch + 1)
