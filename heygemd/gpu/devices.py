"""What this machine can render on: NVML's cards, or the CPU with its RAM and cores. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.errors import ConfigError
from heygemd.core.placement import Device
from heygemd.core.settings import SchedulerSettings


@dataclass(frozen=True)
class CardSnapshot:
    """One GPU as NVML sees it now. `index` is the number that CUDA uses (after CUDA_VISIBLE_DEVICES)."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    driver: str


def cards() -> list[CardSnapshot]:
    """The visible NVIDIA cards; empty where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver or no card: the CPU is the device then, and `doctor` says so
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            found.append(
                CardSnapshot(
                    number, pynvml.nvmlDeviceGetName(handle), uuid, int(memory.total), int(memory.free), driver
                )
            )
    finally:
        pynvml.nvmlShutdown()
    return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(found: Sequence[CardSnapshot], variable: str | None) -> list[CardSnapshot]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, renumbered in its order. CUDA stops at the first unknown entry."""
    if variable is None:
        return list(found)
    chosen: list[CardSnapshot] = []
    for entry in (part.strip() for part in variable.split(",")):
        match = next((c for c in found if entry == str(c.index) or (entry and c.uuid.startswith(entry))), None)
        if match is None:
            break
        chosen.append(match)
    return [CardSnapshot(i, c.name, c.uuid, c.total_bytes, c.free_bytes, c.driver) for i, c in enumerate(chosen)]


def usable_cores() -> int:
    """Cores this process may use: affinity and the cgroup's quota."""
    cores = float(len(os.sched_getaffinity(0)))
    for path, parse in _CPU_QUOTA_FILES:
        try:
            quota = parse(Path(path).read_text())
        except (OSError, ValueError):
            continue
        if quota is not None:
            cores = min(cores, quota)
    return max(1, int(cores))


def usable_ram_bytes() -> int:
    """RAM this process may use: the machine's, or the cgroup's limit where it is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue  # "max", or no such cgroup version
    return total


def _v2_quota(text: str) -> float | None:
    quota, period = text.split()
    return None if quota == "max" else int(quota) / int(period)


def _v1_quota(text: str) -> float | None:
    quota = int(text)
    return None if quota < 0 else quota / 100_000  # the period's default; few set another


_CPU_QUOTA_FILES = (
    ("/sys/fs/cgroup/cpu.max", _v2_quota),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", _v1_quota),
)


def cpu_device(settings: SchedulerSettings) -> Device:
    """The CPU: RAM is its memory; each slot gets its share of the cores."""
    cores = usable_cores()
    slots = settings.cpu_slots or max(1, cores // 2)
    total = usable_ram_bytes()
    budget = settings.cpu_memory_mib * 2**20 or int(total * 0.8)
    return Device("cpu", "cpu", total, min(budget, total), slots, max(1, cores // slots))


def devices(settings: SchedulerSettings) -> list[Device]:
    """The devices that the configuration names. Raises ConfigError for one that is not there."""
    found = {f"cuda:{card.index}": card for card in cards()}
    names = list(settings.devices)
    if names == ["auto"]:
        names = list(found) or ["cpu"]
    chosen: list[Device] = []
    for name in names:
        if name == "cpu":
            chosen.append(cpu_device(settings))
        elif name in found:
            card = found[name]
            budget = int(card.free_bytes * settings.gpu_memory_fraction)
            chosen.append(Device(name, "cuda", card.total_bytes, budget, slots=2, threads=2))
        else:
            known = ", ".join(["auto", "cpu", *found])
            raise ConfigError(f"scheduler.devices names {name!r}, which is not here; known: {known}")
    return chosen
