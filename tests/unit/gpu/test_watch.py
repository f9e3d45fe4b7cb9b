"""Budgets follow what others take and give back; cards that vanish and come back are noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.capacity import Device
from heygemd.core.settings import SchedulerSettings
from heygemd.gpu.devices import CardSnapshot, MemoryNow
from heygemd.gpu.watch import DeviceWatch, budget_bytes, others_bytes, read

GIB = 2**30
CARD = Device("cuda:0", "cuda", 24 * GIB, 20 * GIB, 2, uuid="GPU-a")


def card(free: int, processes: dict[int, int] | None = None, problem: str | None = None) -> CardSnapshot:
    return CardSnapshot(0, "Test", "GPU-a", 24 * GIB, free, "1", processes or {}, problem)


def test_what_others_use() -> None:
    idle = MemoryNow(24, 20, {})
    assert others_bytes(idle, 0, (), 0) == 4, "nothing of ours runs: all of it"
    loading = MemoryNow(24, 18, {})
    assert others_bytes(loading, 10, (), 4) == 4, "ours has taken 2 of its 10 so far"
    grown = MemoryNow(24, 6, {})
    assert others_bytes(grown, 10, (), 4) == 8, "18 are used, we promised 10"
    gone = MemoryNow(24, 23, {})
    assert others_bytes(gone, 10, (), 4) == 1, "no more than is used at all"
    assert others_bytes(MemoryNow(24, 6, {1: 9, 2: 9}), 10, {1}, 4) == 9, "NVML tells processes apart"


@given(st.integers(1, 100), st.integers(0, 100), st.integers(0, 100), st.integers(0, 100), st.floats(0.1, 1.0))
def test_a_budget_never_exceeds_what_is_there(
    total: int, free: int, reserved: int, before: int, fraction: float
) -> None:
    now = MemoryNow(total, min(free, total), {})
    others = others_bytes(now, reserved, (), before)
    assert 0 <= others <= total
    assert 0 <= budget_bytes(total, others, fraction) <= total


def test_a_lost_card_is_a_problem_and_a_renumbered_one_is_not() -> None:
    by_uuid = {"GPU-a": "cuda:0"}
    assert "cuda:0" in read(by_uuid, True, lambda: [card(5)]).memory
    moved = CardSnapshot(3, "Test", "GPU-a", 24 * GIB, 7, "1", {})
    assert read(by_uuid, True, lambda: [moved]).memory["cuda:0"].free_bytes == 7
    for found in ([], [card(5, problem="GPU is lost")]):
        reading = read(by_uuid, True, lambda found=found: found)  # type: ignore[misc]
        assert "cuda:0" not in reading.memory
        assert "driver does not list" in reading.problems["cuda:0"]


def test_another_card_in_its_place_is_not_the_lost_one() -> None:
    other = CardSnapshot(0, "Test", "GPU-b", 8 * GIB, 8 * GIB, "1", {})
    reading = read({"GPU-a": "cuda:0"}, True, lambda: [other])
    assert "cuda:0" not in reading.memory and list(reading.new) == [other]
    assert "driver does not list" in reading.problems["cuda:0"]


HOST = Device("cpu", "cpu", 8 * GIB, 6 * GIB, 2)


@pytest.mark.parametrize(("names", "taken"), [(("auto",), ["cpu", "cuda:0", "cuda:1"]), (("cpu",), ["cpu"])])
def test_cards_that_come_after_the_start_are_taken_in_where_all_are_wanted(
    names: tuple[str, ...], taken: list[str]
) -> None:
    here: list[CardSnapshot] = []
    watched = DeviceWatch([HOST], SchedulerSettings(devices=names), interval_seconds=0.01, look=lambda: list(here))
    found: list[Device] = []

    def look(expected: list[str]) -> bool:
        moved = watched.moved({}, ())
        found[:] = found if moved is None else moved[0]
        return [device.name for device in found] == expected

    watched.start()
    try:
        until(lambda: look(["cpu"]))
        here += [card(20 * GIB), CardSnapshot(0, "Test", "GPU-b", 8 * GIB, 8 * GIB, "1", {})]
        for _ in range(5):
            until(lambda: look(taken))
    finally:
        watched.stop()
    assert [(d.uuid, d.budget_bytes) for d in found[1:]] == [
        ("GPU-a", int(20 * GIB * 0.9)),
        ("GPU-b", int(8 * GIB * 0.9)),
    ][: len(taken) - 1]


def watch(look: Callable[[], list[CardSnapshot]]) -> DeviceWatch:
    return DeviceWatch([CARD], SchedulerSettings(), interval_seconds=0.01, look=look)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_budget_moves_with_a_co_tenant() -> None:
    free = [20 * GIB]
    watched = watch(lambda: [card(free[0])])
    watched.start()
    budgets: list[int] = []

    def look(expected: int, reserved: int = 0) -> bool:
        moved = watched.moved({"cuda:0": reserved}, ())
        if moved is not None:
            budgets.append(moved[0][0].budget_bytes)
        return bool(budgets) and budgets[-1] == expected

    try:
        until(lambda: look(int(20 * GIB * 0.9)))
        free[0] = 8 * GIB
        until(lambda: look(int(8 * GIB * 0.9)))
        free[0] = 2 * GIB  # ours takes the 6 that it has reserved
        until(lambda: look(int(8 * GIB * 0.9), 6 * GIB))
    finally:
        watched.stop()


def test_a_driver_that_hangs_blocks_nobody() -> None:
    stuck = threading.Event()

    def look() -> list[CardSnapshot]:
        stuck.wait(30)
        return []

    watched = watch(look)
    watched.start()
    assert watched.moved({}, ()) is None
    watched.stop()
    stuck.set()
