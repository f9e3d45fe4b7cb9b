"""What the fleet does about warm workers, budgets that move and devices that go."""

from __future__ import annotations

from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.placement import Request
from heygemd.service.fleet import Fleet
from tests.unit.service.fakes import FakeExecutor

HOST = Device("cpu", "cpu", 1000, 800, 1)
CARD = Device("cuda:0", "cuda", 1000, 900, 2)
TWIN = Device("cuda:1", "cuda", 1000, 900, 2)


class Executor(FakeExecutor):
    def __init__(self) -> None:
        super().__init__()
        self.evicted: list[str] = []

    def evict(self, device: str) -> None:
        self.evicted.append(device)


class Watch:
    """Gives what it is told to give."""

    elastic = False
    problem = None

    def __init__(self) -> None:
        self.next: tuple[list[Device], dict[str, str]] | None = None
        self.age_seconds = 0.0

    def moved(self, reserved: Any, own_pids: Any) -> tuple[list[Device], dict[str, str]] | None:
        found, self.next = self.next, None
        return found


class Rig:
    def __init__(self, *devices: Device) -> None:
        self.executor, self.watch = Executor(), Watch()
        self.events: list[str] = []
        self.fleet = Fleet(
            devices,
            HOST,
            self.executor,
            aging_seconds=60.0,
            log=lambda name, **fields: self.events.append(f"{name}: {fields.get('reason')}"),
            watch=self.watch,  # type: ignore[arg-type]
        )

    def run(self, name: str, need: int, *, ends: bool = True, alive: bool = True) -> str | None:
        placed = self.fleet.decide([ask(name, need)], 0.0)
        for placement in placed:
            self.fleet.started(placement)
            if ends:
                self.fleet.ended(name, alive=alive)
        return placed[0].device.name if placed else None


def ask(name: str, need: int) -> Request:
    return Request(name, f"job-{name}", "", 0, 0.0, 0, {"cuda": (need,)})


def test_idle_workers_go_when_what_they_keep_warm_is_needed() -> None:
    rig = Rig(CARD)
    assert rig.run("a", 400, ends=False) and rig.run("b", 400, ends=False)
    rig.fleet.ended("a", alive=True)
    rig.fleet.ended("b", alive=True)
    assert rig.run("c", 400) == "cuda:0"
    assert rig.executor.evicted == [], "one is used again, the other still fits beside it"
    assert rig.run("d", 600) == "cuda:0"
    assert rig.executor.evicted == ["cuda:0"]
    assert rig.run("e", 900) == "cuda:0"
    assert rig.executor.evicted == ["cuda:0"], "nothing was left to end"


def test_a_worker_that_died_keeps_nothing() -> None:
    rig = Rig(CARD)
    for name in ("a", "b"):
        rig.run(name, 400, ends=False)
    for name in ("a", "b"):
        rig.fleet.ended(name, alive=False)
    assert rig.run("c", 900) == "cuda:0"
    assert rig.executor.evicted == []


def test_after_a_death_on_a_card_the_next_try_gets_a_new_process() -> None:
    rig = Rig(CARD, TWIN)
    rig.run("a", 400)
    rig.fleet.strike("cuda:0", "b", 0.0)
    assert rig.executor.evicted == ["cuda:0"], "a driver that was reset has spoilt those that waited, too"
    rig.fleet.strike(HOST.name, "b", 0.0)
    assert rig.executor.evicted == ["cuda:0"], "where no driver is, they are as good as before"


def test_a_co_tenant_shrinks_the_budget_and_a_lost_card_is_told() -> None:
    rig = Rig(CARD, TWIN)
    rig.watch.next = [Device("cuda:0", "cuda", 1000, 300, 2)], {"cuda:1": "the driver does not list it any more"}
    rig.fleet.refresh(0.0)
    assert rig.run("a", 400) is None
    rig.fleet.tell_waiting(ask("a", 400), {})
    rig.fleet.tell_waiting(ask("a", 400), {})
    assert rig.events == [
        "daemon.degraded: cuda:1 is away: the driver does not list it any more",
        "job.waiting: no device offers the 1 MiB that it needs at its smallest now",
    ]
    assert "cuda:0" in rig.executor.evicted
    rig.watch.next = [CARD, TWIN], {}
    rig.fleet.refresh(5.0)
    assert rig.run("b", 400) is not None
    assert rig.events[-1] == "daemon.recovered: cuda:1 is back"


def test_a_card_that_comes_after_the_start_renders_and_is_told() -> None:
    rig = Rig(CARD)
    rig.watch.next = [CARD, TWIN], {}
    rig.fleet.refresh(0.0)
    assert [d.name for d in rig.fleet.configured] == ["cuda:0", "cuda:1"], "plans count on it"
    assert {rig.run(name, 900, ends=False) for name in ("a", "b")} == {"cuda:0", "cuda:1"}
    rig.watch.next = [CARD], {"cuda:1": "the driver does not list it any more"}
    rig.fleet.refresh(5.0)
    assert [event.split(":")[0] for event in rig.events] == ["daemon.recovered", "daemon.degraded"]
    assert "is here now, and renders" in rig.events[0]


def test_a_driver_that_does_not_answer_is_told_once() -> None:
    rig = Rig(CARD)
    for rig.watch.age_seconds in (10.0, 100.0, 110.0, 1.0):
        rig.fleet.refresh(0.0)
    assert rig.events == [
        "daemon.degraded: the GPU driver has not answered for 100 s",
        "daemon.recovered: the GPU driver answers again",
    ]


def test_a_device_set_aside_comes_back_and_the_last_one_is_never_set_aside() -> None:
    rig = Rig(CARD, TWIN)
    for job in ("a", "a", "a", "b"):
        rig.fleet.strike("cuda:0", job, 0.0)
    assert [d.name for d in rig.fleet.renders] == ["cuda:0", "cuda:1"], "two jobs are no pattern"
    rig.fleet.strike("cuda:0", "c", 0.0)
    assert [d.name for d in rig.fleet.renders] == ["cuda:1"]
    for job in "abcdef":
        rig.fleet.strike("cuda:1", job, 0.0)
    assert [d.name for d in rig.fleet.renders] == ["cuda:1"]
    rig.fleet.refresh(299.0)
    assert [d.name for d in rig.fleet.renders] == ["cuda:1"]
    rig.fleet.refresh(301.0)
    assert [d.name for d in rig.fleet.renders] == ["cuda:0", "cuda:1"]
