"""The cluster's devices for the fleet: budgets that move, nodes that come and go, and what takes their place."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from heygemd.cluster.executor import RayExecutor
from heygemd.core.capacity import Device
from heygemd.gpu.devices import CPU_SHARE, MemoryNow
from heygemd.gpu.watch import DeviceWatch, budget_bytes, others_bytes

_FORGET_SECONDS = 600.0
_GRACE_SECONDS = 10.0


class ClusterWatch:
    """See gpu.watch.Watch. `local`: this machine's devices, where they stand in while the cluster is away."""

    elastic = True

    def __init__(
        self,
        executor: RayExecutor,
        gpu_fraction: float,
        when_lost: Literal["wait", "local"],
        local: DeviceWatch,
        local_devices: Collection[Device],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._gpu_fraction = gpu_fraction
        self._stands_in = when_lost == "local"
        self._local = local
        self._local_devices = list(local_devices)
        self._known: dict[str, Device] = {}
        self._others: dict[str, int] = {}
        self._gone: dict[str, float] = {}  # device → when its node left
        self._taken: object = None
        self._away: bool | None = None
        self._clock = clock
        self._began = clock()

    def start(self) -> None:
        if self._stands_in:
            self._local.start()

    def stop(self) -> None:
        self._local.stop()

    @property
    def age_seconds(self) -> float:
        """The bridge watches over its own readings: one that is silent is ended."""
        return 0.0

    @property
    def memory(self) -> Mapping[str, MemoryNow]:
        """The newest reading, by device."""
        found = dict(self._local.memory)
        for node in self._executor.nodes or ():
            for entry in node["devices"]:
                device = entry["device"]
                found[device["name"]] = MemoryNow(device["total_bytes"], entry["free_bytes"], {})
        return found

    @property
    def problem(self) -> str | None:
        """Why nothing renders on the cluster now. A young daemon is given time to find it."""
        reason = self._reason()
        if reason is None or self._is_young:
            return None
        return f"{reason}; " + ("rendering on this machine" if self._stands_in else "renders wait for it")

    @property
    def _is_young(self) -> bool:
        return self._executor.nodes is None and self._clock() - self._began < _GRACE_SECONDS

    def _reason(self) -> str | None:
        nodes = self._executor.nodes
        if nodes is None:
            return self._executor.problem or "the Ray cluster does not answer"
        if not any(node["problem"] is None and node["devices"] for node in nodes):
            return "the Ray cluster has no node that renders"
        return None

    def moved(
        self, reserved: Mapping[str, int], own_pids: Collection[int]
    ) -> tuple[list[Device], dict[str, str]] | None:
        away = self._reason() is not None
        if away and self._is_young:
            return None  # it may be there in a moment
        turned, self._away = away is not self._away, away
        nodes = self._executor.nodes
        if away or nodes is None:
            return self._instead(turned, reserved, own_pids)
        if nodes is self._taken and not turned:
            return None
        self._taken = nodes
        devices = {d.name: d for node in nodes if node["problem"] is None for d in self._of(node, reserved)}
        now = self._clock()
        self._gone = {name: at for name, at in self._gone.items() if now - at < _FORGET_SECONDS and name not in devices}
        self._gone |= dict.fromkeys(self._known.keys() - devices.keys(), now)
        self._known = devices
        return list(devices.values()), dict.fromkeys(self._gone, "its node has left the cluster")

    def _instead(
        self, turned: bool, reserved: Mapping[str, int], own_pids: Collection[int]
    ) -> tuple[list[Device], dict[str, str]] | None:
        """While the cluster is away."""
        gone = dict.fromkeys((*self._known, *self._gone), "the cluster is away")
        here = self._local.moved(reserved, own_pids) if self._stands_in else None
        if here is not None:
            self._local_devices = here[0]
            return here[0], gone | here[1]
        if not turned:
            return None
        return (self._local_devices if self._stands_in else []), gone

    def _of(self, node: dict[str, Any], reserved: Mapping[str, int]) -> list[Device]:
        found = []
        for entry in node["devices"]:
            device = Device(**entry["device"])
            if not _is_simulated(device) and not (device.kind == "cpu" and node["fixed_cpu"]):
                processes = {int(pid): int(used) for pid, used in entry["processes"].items()}
                now = MemoryNow(device.total_bytes, entry["free_bytes"], processes)
                others = others_bytes(now, reserved.get(device.name, 0), node["pids"], self._others.get(device.name, 0))
                if not reserved.get(device.name):
                    self._others[device.name] = others
                fraction = CPU_SHARE if device.kind == "cpu" else self._gpu_fraction
                budget = budget_bytes(device.total_bytes, others, fraction)
                device = replace(device, budget_bytes=min(budget, entry["most_bytes"]))
            found.append(device)
        return found


def _is_simulated(device: Device) -> bool:
    return "/sim:" in device.name
