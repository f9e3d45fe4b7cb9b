"""Where jobs come in and results go out: the share for the daemon, two plain files for `heygemd run`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from heygemd.core.errors import HeygemdError
from heygemd.core.job import Item, Job


@dataclass(frozen=True)
class StagedItem:
    """Local, private copies that nobody else writes to. Exactly one of audio, text_file, text is given."""

    item: Item
    video: Path
    audio: Path | None
    text_file: Path | None
    text: str | None


@dataclass(frozen=True)
class ItemOutcome:
    """How one item ended: with a video and its receipt, or with an error."""

    item: Item
    video: Path | None
    sheet: Path | None
    receipt: Mapping[str, Any]
    error: HeygemdError | None
    ffmpeg_log: Path


ClaimKey = tuple[str, int, int]
"""Path, size, mtime_ns: see spool.drops."""


class InputGoneError(HeygemdError):
    """An input vanished or was replaced before it was staged: what is there now is seen as a new drop."""

    code = "HG-2006"


@dataclass(frozen=True)
class Delivery:
    """`where`: for the log, in words. `stuck`: inputs that could not be moved and so stay claimed."""

    where: str
    stuck: tuple[str, ...] = ()


class Door(Protocol):
    """All methods may block on the share and are called from pool threads. They raise HeygemdError, and each may be
    called again after a crash in the middle."""

    def stage(self, job: Job) -> Sequence[StagedItem]:
        """Copy, check and hash the inputs. Raises InputGoneError when they are no longer what was claimed."""
        ...

    def deliver(
        self,
        job: Job,
        outcomes: Sequence[ItemOutcome],
        error: HeygemdError | None,
        receipt: Mapping[str, Any],
        still_needed: Collection[ClaimKey],
    ) -> Delivery:
        """Publish what succeeded, keep what failed with its reason, archive the other inputs.

        `error`: why the job as a whole ended without success. `still_needed`: inputs that other jobs hold.
        """
        ...

    def show(self, job: Job, view: Mapping[str, Any]) -> None:
        """Replace the job's status file."""
        ...
