"""The time that a job will take: as measured here, else guessed from pass 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from heygemd.core.memory import Calibration
from heygemd.core.placement import Device
from heygemd.core.settings import SchedulerSettings
from heygemd.core.speed import Speeds
from heygemd.service.estimates import TimeEstimate, estimate_time, speed_key
from heygemd.service.planning import ItemMemory, plan_item
from heygemd.work.item import ItemFolder, Prepared
from tests.unit.service.fakes import prepared

CPU = Device("cpu", "cpu", 8 << 30, 8 << 30, slots=1, threads=2)


def estimate(item: Prepared, folder: Path, speeds: Speeds | None = None) -> TimeEstimate:
    store = ItemFolder(folder)
    store.save_arrays("cuts", {"cost": np.zeros(item.num_frames, np.float32)})
    plan = plan_item(item, store, [CPU], SchedulerSettings())
    memory = ItemMemory(item, Calibration(), CPU.threads)
    return estimate_time(item, plan, memory, [CPU], CPU, speeds or Speeds())


def test_a_still_is_not_guessed_by_what_starting_took(tmp_path: Path) -> None:
    """Pass 1 of one frame is all start: as speed it would make hours of minutes."""
    clip = prepared(1000)
    still = replace(clip, video=replace(clip.video, num_frames=1))
    found = estimate(still, tmp_path)
    assert found.basis == "guess"
    assert 10 < found.seconds < 100


def test_what_was_measured_is_believed(tmp_path: Path) -> None:
    item = prepared(1000)
    key = speed_key("render", ItemMemory(item, Calibration(), CPU.threads), CPU, "float32")
    found = estimate(item, tmp_path, Speeds().timed(key, 10.0, 100))
    assert (found.basis, found.renders) == ("measured", 1)
    assert 100 < found.seconds < 120
