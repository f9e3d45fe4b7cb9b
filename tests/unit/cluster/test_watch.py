from __future__ import annotations

from typing import Any, cast

from heygemd.cluster.executor import RayExecutor
from heygemd.cluster.watch import ClusterWatch
from heygemd.core.capacity import Device
from heygemd.gpu.devices import MemoryNow
from heygemd.gpu.watch import DeviceWatch

GIB = 2**30
HOST = Device("cpu", "cpu", 8 * GIB, 4 * GIB, 1)


class Executor:
    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] | None = None
        self.problem: str | None = "the Ray cluster at h cannot be reached: no"


class Local:
    memory: dict[str, MemoryNow] = {}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        self.next: tuple[list[Device], dict[str, str]] | None = None

    def moved(self, *_: Any) -> tuple[list[Device], dict[str, str]] | None:
        found, self.next = self.next, None
        return found

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Rig:
    def __init__(self, when_lost: str = "wait") -> None:
        self.executor, self.local, self.now = Executor(), Local(), 0.0
        self.watch = ClusterWatch(
            cast(RayExecutor, self.executor),
            0.9,
            cast(Any, when_lost),
            cast(DeviceWatch, self.local),
            [HOST],
            clock=lambda: self.now,
        )

    def moved(self, **reserved: int) -> Any:
        found = self.watch.moved({name.replace("_", "/"): value for name, value in reserved.items()}, ())
        return found and ([d.name for d in found[0]], set(found[1]))


def node(name: str, free_gib: int = 20, problem: str | None = None) -> dict[str, Any]:
    device = Device(f"{name}/cuda:0", "cuda", 24 * GIB, 20 * GIB, 2, node=name, uuid="GPU-1")
    entry = {"device": vars(device), "free_bytes": free_gib * GIB, "processes": {}, "most_bytes": 21 * GIB}
    return {"name": name, "problem": problem, "fixed_cpu": False, "devices": [entry], "pids": []}


def test_devices_come_and_go_with_their_nodes() -> None:
    rig = Rig()
    rig.executor.nodes, rig.executor.problem = [node("a"), node("b")], None
    assert rig.moved() == (["a/cuda:0", "b/cuda:0"], set())
    assert rig.moved() is None, "nothing new"
    rig.executor.nodes = [node("b")]
    assert rig.moved() == (["b/cuda:0"], {"a/cuda:0"})
    rig.now = 700.0
    rig.executor.nodes = [node("b")]
    assert rig.moved() == (["b/cuda:0"], set()), "one that left long ago is forgotten"
    rig.executor.nodes = [node("b", problem="it runs another heygemd")]
    assert rig.moved() == ([], {"b/cuda:0"})
    assert rig.watch.problem is not None and "no node that renders" in rig.watch.problem


def test_budgets_follow_each_nodes_own_reading_and_never_exceed_what_ray_was_given() -> None:
    rig = Rig()
    rig.executor.problem, rig.executor.nodes = None, [node("a", free_gib=24)]
    found = rig.watch.moved({}, ())
    assert found is not None and found[0][0].budget_bytes == 21 * GIB
    rig.executor.nodes = [node("a", free_gib=10)]
    found = rig.watch.moved({}, ())
    assert found is not None and found[0][0].budget_bytes == int(10 * GIB * 0.9)
    rig.executor.nodes = [node("a", free_gib=6)]  # ours took four of them
    found = rig.watch.moved({"a/cuda:0": 4 * GIB}, ())
    assert found is not None and found[0][0].budget_bytes == int(10 * GIB * 0.9)


def test_without_the_cluster_renders_wait_and_a_young_daemon_says_nothing_yet() -> None:
    rig = Rig()
    assert rig.moved() is None and rig.watch.problem is None
    rig.now = 11.0
    assert rig.moved() == ([], set()) and rig.moved() is None
    assert rig.watch.problem == "the Ray cluster at h cannot be reached: no; renders wait for it"
    rig.executor.nodes, rig.executor.problem = [node("a")], None
    assert rig.moved() == (["a/cuda:0"], set()) and rig.watch.problem is None
    rig.executor.nodes, rig.executor.problem = None, "gone"
    assert rig.moved() == ([], {"a/cuda:0"})


def test_this_machine_stands_in_where_that_is_configured() -> None:
    rig = Rig("local")
    rig.now = 11.0
    assert rig.moved() == (["cpu"], set())
    assert "rendering on this machine" in str(rig.watch.problem)
    rig.executor.nodes, rig.executor.problem = [node("a")], None
    assert rig.moved() == (["a/cuda:0"], set())
    rig.executor.nodes, rig.executor.problem = None, "gone"
    assert rig.moved() == (["cpu"], {"a/cuda:0"})
    rig.local.next = ([HOST], {})
    assert rig.moved() == (["cpu"], {"a/cuda:0"})
