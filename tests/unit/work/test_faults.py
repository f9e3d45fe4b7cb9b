"""A worker's every transition met with every fault: it says so, leaves no part, and goes on where it stopped.

The errors are met inside this process, by the worker's own class; SIGKILL by real workers under the real dispatcher.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heygemd import failpoints
from heygemd.core.capacity import Device
from heygemd.core.job import Item
from heygemd.core.memory import Calibration
from heygemd.core.options import Options
from heygemd.core.plan import Plan
from heygemd.core.settings import LimitSettings, MediaSettings, SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.failpoints import NAMES
from heygemd.service.door import StagedItem
from heygemd.service.planning import plan_item
from heygemd.service.tasks import TaskSettings, finish_task, prepare_task, render_task
from heygemd.work.item import ItemFolder
from heygemd.work.worker import Worker
from tests import media

HOST = Device("cpu", "cpu", 8 << 30, 8 << 30, slots=1, threads=1)
ACTIONS = {"enospc": "DiskFullError", "eio": "ShareAwayError", "estale": "ShareAwayError", "ebusy": "InputBusyError"}
STAGES = {
    "prepare": ["worker.task", *(n for n in NAMES if n.startswith("prepare.")), "worker.answer"],
    "render": ["worker.task", *(n for n in NAMES if n.startswith("render.")), "worker.answer"],
    "finish": ["worker.task", *(n for n in NAMES if n.startswith("finish.")), "worker.answer"],
}


def test_the_stages_are_all_that_workers_do() -> None:
    rooms = {"worker", *STAGES}
    assert {point for points in STAGES.values() for point in points} == {
        name for name in NAMES if name.partition(".")[0] in rooms
    }


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=0.3, size=96)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Bob.")


class Bench:
    """One worker in this process, and one item for it."""

    def __init__(self, folder: Path, clip: Path, voice: Path) -> None:
        self.folder = ItemFolder(folder)
        self.staged = StagedItem(Item("talk", "clip.mp4", "voice.wav"), clip, voice, None, None)
        self.settings = TaskSettings(
            SchedulerSettings(segment_seconds=0.4),
            LimitSettings(),
            MediaSettings(preset="ultrafast"),
            "rewrite",
            folder / "none",
        )
        self.said = io.StringIO()
        self.worker = Worker(self.said)

    def run(self, task: Task) -> Message:
        self.said.truncate(self.said.seek(0))
        self.worker.run(task)
        return [Message.from_line(line) for line in self.said.getvalue().splitlines()][-1]

    def prepare(self) -> Task:
        return prepare_task("t", self.folder, self.staged, Options(), HOST, ("cpu",), self.settings)

    def plan(self) -> Plan:
        prepared = self.folder.load_prepared()
        return plan_item(prepared, self.folder, (HOST,), self.settings.scheduler, Calibration())

    def render(self, plan: Plan, number: int) -> Task:
        return render_task("t", self.folder, plan.of_kind("cpu")[0], plan.segment(number), HOST, self.settings)

    def finish(self, plan: Plan) -> Task:
        return finish_task("t", self.folder, plan, HOST, self.settings)

    def whole(self) -> dict[str, Any]:
        """All of it, undisturbed or what is left of it; result.json."""
        assert self.run(self.prepare()).type == "done"
        plan = self.plan()
        for segment in plan.segments:
            assert self.run(self.render(plan, segment.number)).type == "done"
        assert self.run(self.finish(plan)).type == "done"
        result = self.folder.load_result()
        assert result is not None
        return result


def parts(folder: ItemFolder) -> list[Path]:
    return [path for path in folder.path.rglob("*") if ".part" in path.name or path.suffix == ".ffconcat"]


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_errors_at_each_transition(tmp_path: Path, clip: Path, voice: Path, action: str) -> None:
    bench = Bench(tmp_path / "item", clip, voice)
    rendered = 0

    def meet(point: str, task: Task) -> None:
        failpoints.arm(f"{point}={action}")
        answer = bench.run(task)
        assert (answer.type, answer.values.get("type")) == ("failed", ACTIONS[action]), (point, answer)
        assert answer.values["retryable"]
        assert not parts(bench.folder), point
        failpoints.arm("")

    for point in STAGES["prepare"]:
        meet(point, bench.prepare())
    plan = bench.plan()
    assert len(plan.segments) == 2
    for point in STAGES["render"]:
        meet(point, bench.render(plan, 0))
        whole = bench.folder.segment(0).exists()
        assert whole == (point in ("render.end", "worker.answer")), f"{point}: named only when it is finished"
    again = bench.run(bench.render(plan, 0))
    assert again.values["found"], "finished before its worker could say so: not rendered again"
    assert again.values["num_frames"] == plan.segment(0).num_frames
    assert bench.run(bench.render(plan, 1)).values.get("found") is None
    for point in STAGES["finish"]:
        meet(point, bench.finish(plan))
        assert (bench.folder.load_result() is not None) == (point == "worker.answer"), point
    bench.run(bench.finish(plan))
    rendered = len(media.framemd5(bench.folder.result / "video.mp4"))
    assert rendered == bench.folder.load_prepared().num_frames


@pytest.mark.slow
def test_what_was_disturbed_equals_what_was_not(tmp_path: Path, clip: Path, voice: Path) -> None:
    calm, rough = Bench(tmp_path / "calm", clip, voice), Bench(tmp_path / "rough", clip, voice)
    expected = calm.whole()
    failpoints.arm("prepare.record=eio, render.frame=enospc@5, finish.publish=estale")
    rough.run(rough.prepare())
    rough.run(rough.prepare())
    plan = rough.plan()
    for _ in range(2):
        for segment in plan.segments:
            rough.run(rough.render(plan, segment.number))
        rough.run(rough.finish(plan))
    rough.run(rough.finish(plan))
    found = rough.folder.load_result()
    assert found is not None
    assert media.framemd5(Path(found["video"])) == media.framemd5(Path(expected["video"]))


def test_lost_figures_of_a_finished_segment_cost_a_second_render(tmp_path: Path) -> None:
    """A machine that lost power may lose the small file and keep the segment: counts must stay true."""
    folder = ItemFolder(tmp_path)
    folder.make()
    folder.save_segment_stats(3, {"num_frames": 5})
    assert folder.load_segment_stats(3) is None, "figures alone are no segment"
    folder.segment(3).write_bytes(b"video")
    assert folder.load_segment_stats(3) == {"num_frames": 5}
    folder.segment(3).with_suffix(".json").write_text(json.dumps({"num_frames": 5})[:-3])
    assert folder.load_segment_stats(3) is None
