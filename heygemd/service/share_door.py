"""The daemon's door: the share and its spool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from heygemd.core.errors import HeygemdError
from heygemd.core.job import Job
from heygemd.files import explained
from heygemd.service.door import ClaimKey, Delivery, InputGoneError, ItemOutcome, StagedItem
from heygemd.service.room import WorkRoom
from heygemd.spool.farewell import archive, reject
from heygemd.spool.layout import Layout
from heygemd.spool.outbox import ItemResult, publish
from heygemd.spool.staging import InputChangedError, InputVanishedError, StagedInput, stage
from heygemd.spool.status import write_status


class ShareDoor:
    """See Door. Methods of different jobs may run side by side."""

    def __init__(
        self,
        layout: Layout,
        *,
        reserve_bytes: int,
        max_work_bytes: int = 0,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        """`fence` raises LeaseLostError where the share is another daemon's."""
        self._layout = layout
        self._fence = fence
        self._room = WorkRoom(layout.work, max_work_bytes, reserve_bytes)
        self._reserve_bytes = reserve_bytes
        self._sums: dict[str, Mapping[str, str]] = {}
        self._consents: dict[str, Sequence[StagedInput]] = {}

    def stage(self, job: Job) -> Sequence[StagedItem]:
        if not self._layout.job_inputs(job.id).exists():
            with explained("work folder"):
                self._room.require(f"copy of {job.name}", sum(file.size for file in job.inputs))
        try:
            staged = stage(job, self._layout, reserve_bytes=self._reserve_bytes)
        except (InputChangedError, InputVanishedError) as error:
            raise InputGoneError(error.message, path=error.path) from error
        self._sums[job.id] = staged.sums()
        consents = {file.path for file in job.inputs if file.role == "consent"}
        self._consents[job.id] = [copy for copy in staged.inputs if copy.path in consents]
        return [
            StagedItem(
                item,
                copy.video,
                None if _is_text(copy.audio) else copy.audio,
                copy.audio if _is_text(copy.audio) else None,
                copy.text,
            )
            for item, copy in zip(job.items, staged.items, strict=True)
        ]

    def deliver(
        self,
        job: Job,
        outcomes: Sequence[ItemOutcome],
        error: HeygemdError | None,
        receipt: Mapping[str, Any],
        still_needed: Collection[ClaimKey],
    ) -> Delivery:
        self._layout.check_share()  # a bare mount point must not swallow results
        self._fence()
        sums = self._sums.get(job.id, {})
        inputs = [{**entry, "sha256": sums.get(entry["path"])} for entry in receipt["inputs"]]
        results = [ItemResult(o.item.name, o.video, o.sheet, dict(o.receipt)) for o in outcomes if o.video is not None]
        where: list[str] = []
        if results:
            failures = [dict(o.receipt) for o in outcomes if o.error is not None]
            consents = self._consents.get(job.id, ())
            whole = {**receipt, "inputs": inputs, "failed_items": failures}
            where.append(self._relative(publish(job, self._layout, results, whole, consents=consents)))
        if error is None:
            moved = archive(job, self._layout, still_needed=still_needed)
        else:
            failed = {o.item.name: o.error for o in outcomes if o.error is not None}
            log = next((o.ffmpeg_log for o in outcomes if o.error is not None), None)
            moved = reject(
                job, self._layout, error, failed_items=failed or None, ffmpeg_log=log, still_needed=still_needed
            )
            where.append(self._relative(moved.folder))
        self._sums.pop(job.id, None)
        self._consents.pop(job.id, None)
        return Delivery(", ".join(where), tuple(sorted(moved.stuck_paths)))

    def show(self, job: Job, view: Mapping[str, Any]) -> None:
        try:
            write_status(self._layout, job, dict(view))
        except HeygemdError:
            return  # it only informs; what blocks the share stops the queue elsewhere, with its reason

    def _relative(self, path: Path) -> str:
        return f"{path.relative_to(self._layout.root)}/"


def _is_text(path: Path | None) -> bool:
    return path is not None and path.suffix == ".txt"
