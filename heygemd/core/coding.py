"""Who decodes and encodes an item's picture, and why: decided once, so that all its segments can be joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SOFTWARE = "software"
NVENC = "nvenc"
NVDEC = "nvdec"


@dataclass(frozen=True)
class Coding:
    """`encoder`: software (x264, x265) or nvenc; `decoder`: software or nvdec. The reasons are for people."""

    encoder: str = SOFTWARE
    encoder_reason: str = ""
    decoder: str = SOFTWARE
    decoder_reason: str = ""

    @property
    def on_card(self) -> bool:
        """Whether anything of it needs memory on a card."""
        return self.encoder == NVENC or self.decoder == NVDEC

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Coding:
        return Coding(**data)


IN_SOFTWARE = Coding()


@dataclass(frozen=True)
class Card:
    """A CUDA device as a process sees it: by its number there or, better, by its uuid."""

    index: int = 0
    uuid: str = ""

    @property
    def number(self) -> int:
        """What ffmpeg calls it: with a uuid it is the only one that the process sees."""
        return 0 if self.uuid else self.index

    @property
    def environment(self) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": self.uuid} if self.uuid else {}

    @property
    def name(self) -> str:
        return f"cuda:{self.index}"

    @staticmethod
    def of(device: str) -> Card:
        """`cuda` or `cuda:N`, as a worker calls its device."""
        return Card(int(device.partition(":")[2] or 0))
