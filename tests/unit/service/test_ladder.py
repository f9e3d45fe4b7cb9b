"""The out-of-memory ladder and lost devices, through the dispatcher, with an executor that does no work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.capacity import Device
from heygemd.core.errors import HeygemdError, OutOfMemoryError, WorkerDiedError
from heygemd.core.job import JobState
from heygemd.core.plan import BATCHES
from heygemd.core.task import Task
from heygemd.work.item import MemoryPoint
from tests.unit.service import fakes
from tests.unit.service.fakes import Rig, prepared


def attempts(rig: Rig) -> list[dict[str, Any]]:
    return [fields for name, fields in rig.events if name == "segment.retried"]


def test_the_ladder_ends_with_the_right_video(tmp_path: Path) -> None:
    """Only what is shorter than ten frames fits: batch, then length, then the whole device."""
    seen: list[tuple[int, int]] = []

    def script(task: Task, _attempt: int) -> HeygemdError | None:
        if task.kind != "render":
            return None
        segment = task.values["segment"]
        frames = segment["stop_frame"] - segment["first_frame"]
        seen.append((task.values["batch"], frames))
        return OutOfMemoryError("no room") if frames > 60 else None

    rig = Rig(tmp_path, frames=200, script=script)
    rig.dispatcher.settings = replaced(rig, segment_seconds=10.0)
    job = rig.submit()
    rig.run()
    ((ended, outcomes, error, _),) = rig.door.delivered
    assert ended.id == job.id and error is None and outcomes[0].error is None
    assert [batch for batch, frames in seen if frames == 200] == [8, 4, 2, 1]
    assert sorted({frames for _, frames in seen}) == [50, 100, 200]
    assert sum(frames for _, frames in seen if frames == 50) == 200, "every frame once"
    reasons = [fields["reason"] for fields in attempts(rig)]
    assert reasons[:3] == ["with half the batch"] * 3
    assert reasons.count("as two segments of half the length") == 3
    raised = [f for n, f in rig.events if n == "memory.corrected" and "out of memory" in f["reason"]]
    assert len(raised) == len(reasons)


def test_what_never_fits_fails_after_the_last_rung_and_says_what_was_tried(tmp_path: Path) -> None:
    def script(task: Task, _attempt: int) -> HeygemdError | None:
        return OutOfMemoryError("no room") if task.kind == "render" else None

    rig = Rig(tmp_path, frames=20, script=script)
    rig.submit()
    rig.run()
    ((_, outcomes, _, _),) = rig.door.delivered
    failed = outcomes[0].error
    assert isinstance(failed, OutOfMemoryError)
    tried = failed.details["attempts"]
    assert [entry["batch"] for entry in tried] == [8, 4, 2, 1, 1]
    assert tried[-1]["reserved_bytes"] > tried[-2]["reserved_bytes"], "the last one had the device to itself"
    assert [f["reason"] for f in attempts(rig)][-1] == "with the smallest batch and the whole device to itself"


def test_a_worker_killed_twice_from_outside_is_tried_alone(tmp_path: Path) -> None:
    def script(task: Task, attempt: int) -> HeygemdError | None:
        return WorkerDiedError("x", signal="SIGKILL") if task.kind == "render" and attempt <= 2 else None

    rig = Rig(tmp_path, frames=20, script=script)
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert [f["reason"] for f in attempts(rig)] == [
        "trying again can help",
        "with the smallest batch and the whole device to itself",
    ]


def test_a_device_on_which_jobs_keep_dying_is_set_aside(tmp_path: Path) -> None:
    """Not after one poison job; after three different ones; and never the last device."""
    homes: dict[str, str] = {}

    def script(task: Task, _attempt: int) -> HeygemdError | None:
        return WorkerDiedError("Xid 79") if task.kind == "render" and homes[task.id] == "sim:1" else None

    rig = Rig(tmp_path, frames=20, script=script)
    fleet = rig.dispatcher._runner._fleet
    devices = [Device(f"sim:{n}", "cpu", 2**33, 2**33, 1) for n in (0, 1)]
    fleet._configured = fleet._here = tuple(devices)
    fleet._publish()
    start = rig.executor.start

    def remember(task: Task, device: Device) -> None:
        homes[task.id] = device.name
        start(task, device)

    rig.executor.start = remember  # type: ignore[method-assign]
    for number in range(12):
        rig.submit(f"job{number}")
    rig.run(600)
    assert [job.state for job in rig.dispatcher.ended] == [JobState.DONE] * 12
    aside = [fields["reason"] for name, fields in rig.events if name == "daemon.degraded"]
    assert aside == ["sim:1 is set aside: 3 jobs in a row died on it"]


@pytest.mark.parametrize("fallback", [False, True])
def test_without_its_gpu_a_job_waits_or_goes_to_the_cpu_as_configured(
    tmp_path: Path, fallback: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tuple(MemoryPoint(kind, "float32", b, 2**20 * (100 + b)) for kind in ("cpu", "cuda") for b in BATCHES)
    monkeypatch.setattr(fakes, "prepared", lambda frames: replace(prepared(frames), memory=points))
    rig = Rig(tmp_path, frames=20)
    rig.dispatcher.settings = replaced(rig, cpu_fallback=fallback)
    fleet = rig.dispatcher._runner._fleet
    fleet._configured = (Device("cuda:0", "cuda", 2**33, 2**33, 1),)
    fleet._here = ()
    fleet._publish()
    rig.submit()
    if fallback:
        rig.run()
        assert rig.dispatcher.ended[0].state is JobState.DONE
        return
    with pytest.raises(AssertionError, match="not idle"):
        rig.run(30)
    (reason,) = [fields["reason"] for name, fields in rig.events if name == "job.waiting"]
    assert "no device offers" in reason
    fleet._here = fleet._configured
    fleet._publish()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE, "the card is back"


def test_an_engine_that_knows_no_gpu_renders_on_the_host_beside_the_cards(tmp_path: Path) -> None:
    rig = Rig(tmp_path, frames=20)
    fleet = rig.dispatcher._runner._fleet
    fleet._configured = fleet._here = (Device("cuda:0", "cuda", 2**33, 2**33, 1),)
    fleet._publish()
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    started = [fields["device"] for name, fields in rig.events if name == "segment.started"]
    assert set(started) == {"cpu"}


def replaced(rig: Rig, **changes: Any) -> Any:
    settings = rig.dispatcher.settings
    return replace(settings, scheduler=settings.scheduler.model_copy(update=changes))
