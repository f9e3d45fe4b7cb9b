"""Calibration passes through the dispatcher: before the first render on a card, once, and never at a job's cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.capacity import Device
from heygemd.core.errors import HeygemdError, WorkerDiedError
from heygemd.core.job import JobState
from heygemd.core.plan import BATCHES
from heygemd.core.task import Message, Task
from heygemd.work.item import MemoryPoint
from tests.unit.service import fakes
from tests.unit.service.fakes import FakeExecutor, Rig, prepared

MIB = 2**20
CARD = Device("cuda:0", "cuda", 2**33, 2**33, 2, model="Test card")


@pytest.fixture(autouse=True)
def on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake engine takes 1000 MiB and 10 a frame on a card, says its formula; a pass measures half of that."""
    points = tuple(
        MemoryPoint(kind, "float32", b, MIB * (1000 + 10 * b)) for kind in ("cpu", "cuda") for b in BATCHES
    )  # fmt: skip
    monkeypatch.setattr(fakes, "prepared", lambda frames: replace(prepared(frames), memory=points))
    answer = FakeExecutor._answer

    def answered(self: FakeExecutor, task: Task) -> Message:
        error = self.script(task, self.tries[task.id]) if task.kind == "calibrate" else None
        if task.kind != "calibrate" or error is not None:
            return answer(self, task)
        measured = [
            {"batch": b, "peak_bytes": MIB * (500 + 5 * b), "allocated_bytes": 1, "cached_bytes": 2, "device_bytes": 3}
            for b in task.values["shape"]["batches"]
        ]
        ram = [{**point, "peak_bytes": MIB * 700} for point in measured]
        values = {"points": measured, "host_points": ram, "load_bytes": 0, "outside_bytes": 300 * MIB, "stopped_at": 0}
        return Message("done", task.id, {**values, "seconds_total": 2.0})

    monkeypatch.setattr(FakeExecutor, "_answer", answered)


def rig_with(work: Path, *devices: Device, calibrate: str = "auto", **more: Any) -> Rig:
    rig = Rig(work, frames=50, **more)
    settings = rig.dispatcher.settings
    scheduler = settings.scheduler.model_copy(update={"calibrate": calibrate})
    rig.dispatcher.settings = replace(settings, scheduler=scheduler)
    fleet = rig.dispatcher._runner._fleet
    fleet._configured = fleet._here = tuple(devices)
    fleet._publish()
    return rig


def kinds(rig: Rig) -> list[str]:
    """Of tasks, in the order in which they were started."""
    return [name.rsplit("/", 1)[-1].split(":")[0].split("/")[0] for name in rig.executor.tries]


def passes(rig: Rig) -> list[str]:
    return [name for name in rig.executor.tries if "calibrate:" in name]


def test_the_first_job_on_a_card_is_measured_first_and_predicted_by_it(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, CARD)
    rig.submit("one")
    rig.run()
    rig.submit("two")
    rig.run()
    assert [job.state for job in rig.dispatcher.ended] == [JobState.DONE] * 2
    (only,) = passes(rig)
    assert only == "id-one/0/calibrate:fake/-/cuda/float32/Test card"
    names = [name for name, _ in rig.events]
    assert names.index("memory.calibrated") < names.index("job.planned")
    planned = next(fields for name, fields in rig.events if name == "job.planned")
    assert planned["predicted_bytes"] == pytest.approx(MIB * (500 + 5 * planned["batch"]), rel=0.001)
    (told,) = [fields["reason"] for name, fields in rig.events if name == "memory.calibrated"]
    assert "takes 500 MiB and 5.0 MiB for each frame of the batch (batches 1, 16, 64 at 640x480" in told


def test_jobs_that_come_together_share_one_pass(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, CARD)
    for number in range(3):
        rig.submit(f"job{number}", items=2)
    rig.run(400)
    assert [job.state for job in rig.dispatcher.ended] == [JobState.DONE] * 3
    assert len(passes(rig)) == 1


def test_each_model_of_card_is_measured(tmp_path: Path) -> None:
    twin, other = replace(CARD, name="cuda:1"), replace(CARD, name="cuda:2", model="Another card")
    rig = rig_with(tmp_path, CARD, twin, other)
    homes: dict[str, str] = {}
    start = rig.executor.start

    def remember(task: Task, device: Device) -> None:
        homes[task.id] = device.model
        start(task, device)

    rig.executor.start = remember  # type: ignore[method-assign]
    rig.submit()
    rig.run()
    measured = {name.rsplit("/", 1)[1]: homes[name] for name in passes(rig)}
    assert measured == {"Test card": "Test card", "Another card": "Another card"}


@pytest.mark.parametrize(("setting", "device", "wanted"), [
    ("auto", fakes.CPU, 0),
    ("always", replace(fakes.CPU, model="cpu"), 1),
    ("never", CARD, 0),
    ("auto", CARD, 1),
])  # fmt: skip
def test_what_is_measured_is_the_operators_choice(tmp_path: Path, setting: str, device: Device, wanted: int) -> None:
    rig = rig_with(tmp_path, device, calibrate=setting)
    rig.submit()
    rig.run()
    assert len(passes(rig)) == wanted
    assert rig.dispatcher.ended[0].state is JobState.DONE


def test_a_pass_that_fails_costs_no_job_and_is_not_tried_again(tmp_path: Path) -> None:
    def script(task: Task, _attempt: int) -> HeygemdError | None:
        return WorkerDiedError("Xid 79") if task.kind == "calibrate" else None

    rig = rig_with(tmp_path, CARD, script=script)
    for number in range(2):
        rig.submit(f"job{number}")
    rig.run()
    assert [job.state for job in rig.dispatcher.ended] == [JobState.DONE] * 2
    assert len(passes(rig)) == 1
    assert rig.names().count("memory.uncalibrated") == 1
    assert "segment.failed" not in rig.names() and "task.failed" not in rig.names()


def test_a_pass_has_the_card_to_itself_and_reserves_ram_beside(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, CARD)
    rig.submit()
    capacity = rig.dispatcher._runner._fleet.scheduler.capacity
    seen: list[tuple[int, int]] = []
    start = rig.executor.start

    def look(task: Task, device: Device) -> None:
        if task.kind in ("calibrate", "render"):
            seen.append((capacity.used_bytes("cuda:0"), capacity.used_bytes("cpu")))
        start(task, device)

    rig.executor.start = look  # type: ignore[method-assign]
    rig.run()
    (whole, ram), *renders = seen
    assert whole == CARD.budget_bytes
    assert ram > 1536 * MIB, "the pipeline, and torch with CUDA"
    assert renders and renders[-1][1] < 2 * 800 * MIB, "700 MiB were measured for each, and a margin"
    assert capacity.used_bytes("cpu") == capacity.used_bytes("cuda:0") == 0


def test_a_job_that_is_cancelled_leaves_the_pass_to_the_next(tmp_path: Path) -> None:
    rig = rig_with(tmp_path, CARD)
    rig.submit("one")
    for _ in range(50):
        rig.step()
        if passes(rig):
            break
    rig.executor.hold = True
    rig.submit("two")
    rig.dispatcher.cancel("id-one")
    assert any("calibrate:" in name for name in rig.executor.cancelled)
    rig.executor.hold = False
    rig.run()
    states = {job.name: job.state for job in rig.dispatcher.ended}
    assert states == {"one": JobState.CANCELLED, "two": JobState.DONE}
