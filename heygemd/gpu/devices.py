"""What this machine can render on: NVML's cards, or the CPU with its RAM and cores. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from heygemd.core.capacity import Device
from heygemd.core.errors import ConfigError
from heygemd.core.settings import SchedulerSettings

CPU_SHARE = 0.8
"""Of RAM that nobody else uses; the rest is for the page cache and for what others start."""
GPU_SLOTS = 2
"""Workers on one card: while one decodes or loads, the other computes."""


@dataclass(frozen=True)
class CardSnapshot:
    """One GPU, or one MIG instance, as NVML sees it now. `index`: its number among the visible ones.

    `processes`: pid → bytes, of what NVML lets us see (in a container often nothing). `problem`: why it cannot be used.
    """

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    driver: str
    processes: Mapping[int, int]
    problem: str | None = None


@dataclass(frozen=True)
class MemoryNow:
    """One device's memory at one moment, whoever uses it."""

    total_bytes: int
    free_bytes: int
    processes: Mapping[int, int]


def cards(nvml: Any = None, variable: str | None = None) -> list[CardSnapshot]:
    """The visible NVIDIA cards; empty where there is no driver. `variable`: in place of CUDA_VISIBLE_DEVICES.

    A card in MIG mode is its instances. One that NVML has lost is listed with its `problem` and no memory.
    """
    nvml = import_module("pynvml") if nvml is None else nvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []  # no driver or no card: the CPU is the device then, and `doctor` says so
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion())
        found = list(_all_cards(nvml, driver))
    except nvml.NVMLError:
        return []  # the driver is being reset, or does not match its kernel module
    finally:
        nvml.nvmlShutdown()
    return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES") if variable is None else variable)


def render_cards(found: Sequence[CardSnapshot] | None = None, torch: str | None = None) -> list[CardSnapshot]:
    """The visible cards as renders may use them: with a torch that is built for the CPU, none of them. `torch`: its
    version, in place of the installed one's; it is not imported."""
    here = cards() if found is None else list(found)
    problem = _torch_problem(_torch_version() if torch is None else torch) if here else None
    return [replace(card, problem=card.problem or problem) for card in here]


def _torch_problem(installed: str) -> str | None:
    if not installed:
        return "torch is not installed"
    return f"torch {installed} is a build for the CPU (./install.sh --torch cuda)" if "+cpu" in installed else None


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _all_cards(nvml: Any, driver: str) -> Iterator[CardSnapshot]:
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            instances = _instances(nvml, handle)
            for instance in instances or [handle]:
                yield _snapshot(nvml, instance, number, driver)
        except nvml.NVMLError as error:
            yield CardSnapshot(number, f"card {number}", "", 0, 0, driver, {}, problem=str(error))


def _instances(nvml: Any, handle: Any) -> list[Any]:
    """Handles of the MIG instances; none where MIG is off or unknown."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
        if current != nvml.NVML_DEVICE_MIG_ENABLE:
            return []
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return []
    found = []
    for number in range(count):
        try:
            found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except nvml.NVMLError:
            continue  # an empty place
    return found


def _snapshot(nvml: Any, handle: Any, number: int, driver: str) -> CardSnapshot:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name, uuid = _text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle))
    processes: dict[int, int] = {}
    try:
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.usedGpuMemory is not None:
                processes[int(process.pid)] = int(process.usedGpuMemory)
    except nvml.NVMLError:
        processes = {}  # not permitted here
    return CardSnapshot(number, name, uuid, int(memory.total), int(memory.free), driver, processes)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # older bindings give bytes


def visible(found: Sequence[CardSnapshot], variable: str | None) -> list[CardSnapshot]:
    """The cards that CUDA_VISIBLE_DEVICES leaves, renumbered in its order. CUDA stops at the first unknown entry.

    Numbers count the cards as NVML does (by PCI bus); CUDA itself counts so only under CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if variable is None:
        return [replace(card, index=number) for number, card in enumerate(found)]
    chosen: list[CardSnapshot] = []
    for entry in (part.strip() for part in variable.split(",")):
        match = next((c for c in found if entry == str(c.index) or (entry and c.uuid.startswith(entry))), None)
        if match is None or match in chosen:
            break
        chosen.append(match)
    return [replace(card, index=number) for number, card in enumerate(chosen)]


# ---- the CPU ----


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use: affinity and the cgroup's quota."""
    cores = float(len(os.sched_getaffinity(0)))
    for quota in (_v2_quota(root), _v1_quota(root)):
        if quota is not None:
            cores = min(cores, quota)
    return max(1, int(cores))


def _v2_quota(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _v1_quota(root: Path) -> float | None:
    quota = _number(root / "cpu/cpu.cfs_quota_us")
    period = _number(root / "cpu/cpu.cfs_period_us")
    return None if quota is None or period is None or quota < 0 or period <= 0 else quota / period


def memory_now(root: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> MemoryNow:
    """RAM for this process: the machine's, or the cgroup's where that is less. Page cache counts as free."""
    facts = {
        line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.read_text().splitlines() if ":" in line
    }
    total, free = facts["MemTotal"], facts["MemAvailable"]
    for limit_file, used_file, cache_key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(root / limit_file), _number(root / used_file)
        if limit is None or limit >= total:
            continue  # "max", no limit, or no such cgroup version
        cache = _stat((root / limit_file).with_name("memory.stat"), cache_key)
        total = limit
        free = min(free, limit - max(0, (used or 0) - cache))
    return MemoryNow(total, max(0, free), {})


def usable_ram_bytes() -> int:
    """RAM this process may use: the machine's, or the cgroup's limit where it is less."""
    return memory_now().total_bytes


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _stat(path: Path, key: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == [key]), 0)


def cpu_device(settings: SchedulerSettings) -> Device:
    """The CPU: RAM is its memory; each slot gets its share of the cores."""
    cores = usable_cores()
    slots = settings.cpu_slots or max(1, cores // 2)
    total = memory_now().total_bytes
    budget = settings.cpu_memory_mib * 2**20 or int(total * CPU_SHARE)
    return Device("cpu", "cpu", total, min(budget, total), slots, max(1, cores // slots), model="cpu")


def card_device(card: CardSnapshot, settings: SchedulerSettings) -> Device:
    """A card as a device, with what is free on it now."""
    budget = int(card.free_bytes * settings.gpu_memory_fraction)
    return Device(
        f"cuda:{card.index}", "cuda", card.total_bytes, budget, GPU_SLOTS, threads=2, uuid=card.uuid, model=card.name
    )


def simulated_devices(settings: SchedulerSettings) -> list[Device]:
    """Cards that exist only as budgets: what is placed on them is rendered by CPU workers and counted in RAM."""
    threads = max(1, usable_cores() // max(1, GPU_SLOTS * len(settings.simulated_gpus_mib)))
    return [
        Device(f"sim:{number}", "cpu", mib * 2**20, int(mib * 2**20 * settings.gpu_memory_fraction), GPU_SLOTS, threads)
        for number, mib in enumerate(settings.simulated_gpus_mib)
    ]


def most_bytes(device: Device, settings: SchedulerSettings) -> int:
    """The largest budget that the device can ever have: with nobody else on it."""
    if device.name.startswith("sim:") or (device.kind == "cpu" and settings.cpu_memory_mib):
        return device.budget_bytes  # as configured, and it does not move
    share = CPU_SHARE if device.kind == "cpu" else settings.gpu_memory_fraction
    return max(device.budget_bytes, int(device.total_bytes * share))


def devices(settings: SchedulerSettings, found: Sequence[CardSnapshot] | None = None) -> list[Device]:
    """The devices that the configuration names. Raises ConfigError for one that is not there."""
    if settings.simulated_gpus_mib:
        return simulated_devices(settings)
    here = {f"cuda:{card.index}": card for card in (render_cards() if found is None else found)}
    names = list(settings.devices)
    if names == ["auto"]:
        names = [name for name, card in here.items() if card.problem is None] or ["cpu"]
    chosen: list[Device] = []
    for name in names:
        if name == "cpu":
            chosen.append(cpu_device(settings))
        elif name in here:
            problem = here[name].problem
            if problem is not None:
                raise ConfigError(f"scheduler.devices names {name!r}, which cannot be used: {problem}")
            chosen.append(card_device(here[name], settings))
        else:
            known = ", ".join(["auto", "cpu", *here])
            raise ConfigError(f"scheduler.devices names {name!r}, which is not here; known: {known}")
    return chosen
