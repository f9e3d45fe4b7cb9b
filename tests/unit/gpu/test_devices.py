"""Devices: NVML through a stand-in, cgroups through files, budgets that move."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heygemd.core.errors import ConfigError
from heygemd.core.settings import SchedulerSettings
from heygemd.gpu import devices as module
from heygemd.gpu.devices import CardSnapshot, MemoryNow, cards, devices, memory_now, render_cards, usable_cores, visible

GIB = 2**30


class NVMLError(Exception):
    pass


class FakeNvml:
    """The part of pynvml that is used. A card is a dict; `mig` lists its instances."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *found: dict[str, Any], broken: str = "") -> None:
        self.found = found
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own names
        if self.broken == "init":
            raise NVMLError("Driver Not Loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"550.54"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.broken == "count":
            raise NVMLError("Unknown Error")
        return len(self.found)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> dict[str, Any]:  # noqa: N802
        if self.found[number].get("lost"):
            raise NVMLError("GPU is lost")
        return self.found[number]

    def nvmlDeviceGetMigMode(self, card: dict[str, Any]) -> tuple[int, int]:  # noqa: N802
        if "mig" not in card:
            raise NVMLError("Not Supported")
        return 1, 1

    def nvmlDeviceGetMaxMigDeviceCount(self, card: dict[str, Any]) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: dict[str, Any], number: int) -> dict[str, Any]:  # noqa: N802
        try:
            instance: dict[str, Any] = card["mig"][number]
        except IndexError:
            raise NVMLError("Not Found") from None
        return instance

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, Any]) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=card["total"], free=card["free"])

    def nvmlDeviceGetName(self, card: dict[str, Any]) -> str:  # noqa: N802
        return "NVIDIA Test"

    def nvmlDeviceGetUUID(self, card: dict[str, Any]) -> str:  # noqa: N802
        return str(card["uuid"])

    def nvmlDeviceGetComputeRunningProcesses(self, card: dict[str, Any]) -> list[SimpleNamespace]:  # noqa: N802
        if "processes" not in card:
            raise NVMLError("No Permission")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card["processes"].items()]


A = {"uuid": "GPU-aaaa-1", "total": 24 * GIB, "free": 20 * GIB, "processes": {7: GIB, 8: None}}
B = {"uuid": "GPU-bbbb-2", "total": 8 * GIB, "free": 8 * GIB}


def test_cards_and_their_processes() -> None:
    nvml = FakeNvml(A, B)
    first, second = cards(nvml, "0,1")
    assert (first.index, first.uuid, first.total_bytes, first.free_bytes) == (0, "GPU-aaaa-1", 24 * GIB, 20 * GIB)
    assert first.processes == {7: GIB} and second.processes == {}
    assert first.driver == "550.54"
    assert nvml.open == 0, "NVML is closed again"


@pytest.mark.parametrize("broken", ["init", "count"])
def test_without_a_driver_there_are_no_cards(broken: str) -> None:
    nvml = FakeNvml(A, broken=broken)
    assert cards(nvml) == []
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("variable", "uuids"),
    [
        ("1", ["GPU-bbbb-2"]),
        ("1,0", ["GPU-bbbb-2", "GPU-aaaa-1"]),
        ("GPU-bbbb", ["GPU-bbbb-2"]),
        ("0,9,1", ["GPU-aaaa-1"]),
        ("0,0", ["GPU-aaaa-1"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(variable: str, uuids: list[str]) -> None:
    found = cards(FakeNvml(A, B), variable)
    assert [c.uuid for c in found] == uuids
    assert [c.index for c in found] == list(range(len(uuids)))


def test_a_card_in_mig_mode_is_its_instances() -> None:
    parts = [{"uuid": f"MIG-{n}", "total": 10 * GIB, "free": 9 * GIB} for n in range(2)]
    found = cards(FakeNvml({**A, "mig": parts}, B), "MIG-1,GPU-bbbb-2")
    assert [(c.index, c.uuid, c.total_bytes) for c in found] == [(0, "MIG-1", 10 * GIB), (1, "GPU-bbbb-2", 8 * GIB)]
    everything = visible(found, None)
    assert [c.index for c in everything] == [0, 1]


def test_a_lost_card_is_told_and_not_used() -> None:
    found = cards(FakeNvml({**A, "lost": True}, B), "0,1")
    assert found[0].problem == "GPU is lost"
    assert [d.name for d in devices(SchedulerSettings(), found)] == ["cuda:1"]
    with pytest.raises(ConfigError, match=r"cuda:0.*GPU is lost"):
        devices(SchedulerSettings(devices=("cuda:0",)), found)


def test_a_torch_that_is_built_for_the_cpu_uses_no_card() -> None:
    found = render_cards(cards(FakeNvml(A), "0"), torch="2.13.0+cpu")
    assert [d.name for d in devices(SchedulerSettings(), found)] == ["cpu"], "a render there would only fail"
    with pytest.raises(ConfigError, match=r"cuda:0.*build for the CPU.*install.sh --torch cuda"):
        devices(SchedulerSettings(devices=("cuda:0",)), found)
    assert render_cards(cards(FakeNvml(A), "0"), torch="2.13.0+cu129")[0].problem is None
    lost = render_cards(cards(FakeNvml({**A, "lost": True}), "0"), torch="2.13.0+cpu")
    assert lost[0].problem == "GPU is lost"


def test_devices_as_the_configuration_names_them() -> None:
    found = cards(FakeNvml(A, B), "0,1")
    auto = devices(SchedulerSettings(gpu_memory_fraction=0.5), found)
    assert [(d.name, d.kind, d.budget_bytes, d.uuid) for d in auto] == [
        ("cuda:0", "cuda", 10 * GIB, "GPU-aaaa-1"),
        ("cuda:1", "cuda", 4 * GIB, "GPU-bbbb-2"),
    ]
    assert [d.name for d in devices(SchedulerSettings(devices=("cpu", "cuda:1")), found)] == ["cpu", "cuda:1"]
    assert [d.name for d in devices(SchedulerSettings(), [])] == ["cpu"]
    with pytest.raises(ConfigError, match="cuda:5"):
        devices(SchedulerSettings(devices=("cuda:5",)), found)


def test_simulated_cards_are_budgets_for_cpu_workers() -> None:
    made = devices(SchedulerSettings(simulated_gpus_mib=(8192, 1024)), [])
    assert [(d.name, d.kind, d.total_bytes // 2**20) for d in made] == [("sim:0", "cpu", 8192), ("sim:1", "cpu", 1024)]
    assert made[1].budget_bytes == int(1024 * 2**20 * 0.9)


def meminfo(folder: Path) -> Path:
    path = folder / "meminfo"
    path.write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:   12582912 kB\nHugePages_Total: 0\n")
    return path


def test_ram_without_a_limit_is_the_machines(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_now(tmp_path, meminfo(tmp_path)) == MemoryNow(16 * GIB, 12 * GIB, {})


def test_ram_under_a_limit_of_cgroup_2(tmp_path: Path) -> None:
    for name, text in (("memory.max", str(4 * GIB)), ("memory.current", str(3 * GIB))):
        (tmp_path / name).write_text(text)
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    assert memory_now(tmp_path, meminfo(tmp_path)) == MemoryNow(4 * GIB, 2 * GIB, {})


def test_ram_under_a_limit_of_cgroup_1(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(2 * GIB))
    (folder / "memory.usage_in_bytes").write_text(str(GIB))
    assert memory_now(tmp_path, meminfo(tmp_path)) == MemoryNow(2 * GIB, GIB, {})
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert memory_now(tmp_path, meminfo(tmp_path)).total_bytes == 16 * GIB


def test_cores_under_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _pid: set(range(16)))
    assert usable_cores(tmp_path) == 16
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert usable_cores(tmp_path) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == 16
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("300000")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("50000")
    assert usable_cores(tmp_path) == 6
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1")
    assert usable_cores(tmp_path) == 16


def test_a_snapshot_is_a_value() -> None:
    assert CardSnapshot(0, "a", "b", 1, 1, "d", {}) == CardSnapshot(0, "a", "b", 1, 1, "d", {})
