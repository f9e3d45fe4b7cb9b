"""A job keeps to one encoder: what happens when the card's fails, goes away or differs, with an executor that does no
work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heygemd.core.coding import Card, Coding
from heygemd.core.errors import EncoderUnavailableError, HeygemdError, RenderError
from heygemd.core.job import JobState
from heygemd.core.memory import Calibration
from heygemd.core.plan import BATCHES, Plan
from heygemd.core.settings import SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.service.planning import plan_item, with_estimates
from heygemd.service.tasks import card_of
from heygemd.work.item import ItemFolder, MemoryPoint, Prepared
from tests.unit.service import fakes
from tests.unit.service.fakes import Rig

ON_CARD = Coding("nvenc", "a trial passed", "nvdec", "a trial passed")
FULL = EncoderUnavailableError("0000.mp4: the encoder ended early: OpenEncodeSessionEx failed: out of memory")


@pytest.fixture(autouse=True)
def on_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every item is prepared for the card's encoder."""
    plain = fakes.prepared
    monkeypatch.setattr(fakes, "prepared", lambda frames: replace(plain(frames), coding=ON_CARD))


def encoders(seen: list[Task]) -> list[tuple[int, str]]:
    return [(task.values["segment"]["number"], task.values["coding"]["encoder"]) for task in seen]


def rig_with(tmp_path: Path, script: fakes.Script) -> tuple[Rig, list[Task]]:
    seen: list[Task] = []

    def noted(task: Task, attempt: int) -> HeygemdError | None:
        if task.kind == "render":
            seen.append(task)
            return script(task, attempt)
        return None

    return Rig(tmp_path, frames=75, script=noted), seen


def events(rig: Rig, name: str) -> list[dict[str, Any]]:
    return [fields for event, fields in rig.events if event == name]


def receipt(rig: Rig) -> dict[str, Any]:
    ((_, _, error, told),) = rig.door.delivered
    assert error is None
    (item,) = told["items"]
    return dict(item)


def test_the_choice_is_logged_and_in_the_receipt(tmp_path: Path) -> None:
    rig, seen = rig_with(tmp_path, lambda _task, _attempt: None)
    rig.submit()
    rig.run()
    assert encoders(seen) == [(0, "nvenc"), (1, "nvenc"), (2, "nvenc")]
    (chosen,) = events(rig, "encoder.chosen")
    assert (chosen["encoder"], chosen["decoder"], chosen["reason"]) == ("nvenc", "nvdec", "a trial passed")
    told = receipt(rig)
    assert (told["encoder"], told["encoder_reason"]) == ("nvenc", "a trial passed")


def test_a_session_that_comes_free_is_waited_for(tmp_path: Path) -> None:
    rig, seen = rig_with(
        tmp_path, lambda task, attempt: FULL if task.values["segment"]["number"] == 1 and attempt == 1 else None
    )
    rig.submit()
    rig.run()
    assert sorted(encoders(seen)) == [(0, "nvenc"), (1, "nvenc"), (1, "nvenc"), (2, "nvenc")]
    assert not events(rig, "encoder.replaced")


def test_no_session_makes_the_whole_result_in_software(tmp_path: Path) -> None:
    """What the card had encoded is not joined with what software encodes."""
    rig, seen = rig_with(
        tmp_path,
        lambda task, _attempt: (
            FULL if task.values["coding"]["encoder"] == "nvenc" and task.values["segment"]["number"] == 2 else None
        ),
    )
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert encoders(seen)[-3:] == [(3, "software"), (4, "software"), (5, "software")]
    frames = [task.values["segment"] for task in seen if task.values["coding"]["encoder"] == "software"]
    assert [(s["first_frame"], s["stop_frame"]) for s in frames] == [(0, 25), (25, 50), (50, 75)]
    (replaced,) = events(rig, "encoder.replaced")
    assert "OpenEncodeSessionEx" in replaced["reason"]
    told = receipt(rig)
    assert told["encoder"] == "software" and "OpenEncodeSessionEx" in told["encoder_reason"]
    assert told["segments"] == 3
    assert told["stage_seconds"]["generate"] == pytest.approx(1.5), "of three segments, not of five"


def test_a_segment_on_the_cpu_needs_no_second_try(tmp_path: Path) -> None:
    gone = EncoderUnavailableError("segment 0 renders on the CPU", device="cpu")
    rig, seen = rig_with(tmp_path, lambda task, _attempt: gone if task.values["coding"]["encoder"] == "nvenc" else None)
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert sum(encoder == "nvenc" for _, encoder in encoders(seen)) <= 2, "one for each slot, none twice"
    assert len(events(rig, "encoder.replaced")) == 1


def test_what_was_begun_before_does_not_count_afterwards(tmp_path: Path) -> None:
    """The other slot's segment of the old plan fails for good, after the job has begun again."""
    fatal = RenderError("the card is gone")
    gone = EncoderUnavailableError("segment 0 renders on the CPU", device="cpu")

    def script(task: Task, _attempt: int) -> HeygemdError | None:
        if task.values["coding"]["encoder"] == "software":
            return None
        return gone if task.values["segment"]["number"] == 0 else fatal

    rig, _ = rig_with(tmp_path, script)
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert receipt(rig)["encoder"] == "software"


def test_two_models_of_card_whose_streams_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, seen = rig_with(tmp_path, lambda _task, _attempt: None)
    plain = rig.executor._answer

    def answer(task: Task) -> Message:
        message = plain(task)
        if task.kind == "render" and task.values["coding"]["encoder"] == "nvenc":
            message.values["parameters"] = "b" if task.values["segment"]["number"] == 1 else "a"
        return message

    monkeypatch.setattr(rig.executor, "_answer", answer)
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert [number for number, encoder in encoders(seen) if encoder == "software"] == [3, 4, 5]
    (replaced,) = events(rig, "encoder.replaced")
    assert "differ" in replaced["reason"]


def test_the_plan_survives_a_restart(tmp_path: Path) -> None:
    """An old item.json without the choice is one of software's."""
    data = fakes.prepared(10).to_dict()
    assert Prepared.from_dict(data).coding == ON_CARD
    del data["coding"]
    assert Prepared.from_dict(data).coding == Coding()


def test_a_card_is_known_by_its_uuid() -> None:
    gpu = replace(fakes.CPU, name="cuda:1", kind="cuda", uuid="GPU-1")
    card = card_of(gpu)
    assert card == Card(1, "GPU-1")
    assert (card.number, card.environment) == (0, {"CUDA_VISIBLE_DEVICES": "GPU-1"})
    assert (Card(1).number, Card(1).environment) == (1, {})


@pytest.mark.parametrize(("mib", "encoder"), [(8000, "nvenc"), (700, "software")])
def test_a_card_with_room_for_the_render_alone_leaves_encoding_to_software(
    tmp_path: Path, mib: int, encoder: str
) -> None:
    folder = ItemFolder(tmp_path)
    folder.make()
    folder.save_arrays("cuts", {"cost": np.zeros(75, np.float32)})
    points = tuple(MemoryPoint("cuda", "float32", batch, 2**20 * (100 + batch)) for batch in BATCHES)
    made = replace(fakes.prepared(75), memory=points)
    gpu = replace(fakes.CPU, name="cuda:0", kind="cuda", uuid="GPU-1", budget_bytes=mib * 2**20)
    plan = plan_item(made, folder, [gpu], SchedulerSettings())
    assert plan.coding.encoder == encoder
    assert ("no room" in plan.coding.encoder_reason) == (encoder == "software")
    assert Plan.from_dict(plan.to_dict()) == plan
    room = plan.choices[-1].reserved_bytes
    assert with_estimates(plan, made, [gpu], Calibration()).choices[-1].reserved_bytes == room
