from __future__ import annotations

import json

import pytest

from heygemd.cluster.node import start_command
from heygemd.cluster.resources import MOST_BUNDLES, bundles, demand, offered
from heygemd.core.capacity import Device
from heygemd.core.errors import ConfigError, UsageError
from heygemd.core.memory import mib
from heygemd.core.settings import RaySettings, SchedulerSettings

GIB = 2**30


def test_a_node_offers_the_budgets_of_its_devices_by_kind_in_mib() -> None:
    cards = [Device(f"cuda:{n}", "cuda", 24 * GIB, 20 * GIB, 2) for n in range(2)]
    assert offered(cards) == {"heygemd_cuda_mib": 40960}
    assert offered([*cards, Device("cpu", "cpu", GIB, GIB // 2 + 1, 1)]) == {
        "heygemd_cpu_mib": 512,
        "heygemd_cuda_mib": 40960,
    }


def test_a_segment_asks_for_its_predicted_bytes_rounded_up() -> None:
    assert mib(1) == 1 and mib(2**20) == 1 and mib(2**20 + 1) == 2
    assert demand("cuda", 5 * GIB + 1) == {"heygemd_cuda_mib": 5121.0}
    assert demand("cpu", 0) == {}


def test_the_autoscaler_hears_of_what_runs_and_what_waits() -> None:
    gpu_node = {"heygemd_cuda_mib": 24000.0, "CPU": 8.0}
    waiting = [{"cpu": 2 * GIB, "cuda": 3 * GIB}, {"cpu": GIB}]
    assert bundles(waiting, [demand("cuda", GIB)], [gpu_node]) == [
        {"heygemd_cuda_mib": 1024.0},
        {"heygemd_cuda_mib": 3072.0},
        {"heygemd_cpu_mib": 1024.0},
    ]
    assert bundles(waiting[:1], [], []) == [{"heygemd_cuda_mib": 3072.0}], "no node yet: a GPU where it could take one"
    assert bundles(waiting[:1], [], [{"heygemd_cpu_mib": 1.0}]) == [{"heygemd_cpu_mib": 2048.0}]
    assert len(bundles([{"cpu": GIB}] * 5000, [demand("cpu", GIB)] * 10, [])) == MOST_BUNDLES


def test_heygemd_node_starts_ray_with_what_this_machine_has() -> None:
    command = start_command(SchedulerSettings(cpu_memory_mib=512), address="head:6379", head=False)
    assert "--address=head:6379" in command and "--block" in command and "--disable-usage-stats" in command
    told = next(word for word in command if word.startswith("--resources="))
    assert set(json.loads(told.partition("=")[2])) <= {"heygemd_cpu_mib", "heygemd_cuda_mib"}
    head = start_command(SchedulerSettings(), address=None, head=True)
    assert "--head" in head and not any(word.startswith("--resources") for word in head)


def test_heygemd_node_says_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="either --address"):
        start_command(SchedulerSettings(), address=None, head=False)
    with pytest.raises(ConfigError, match="cuda:77"):
        start_command(SchedulerSettings(devices=("cuda:77",)), address="head:6379", head=False)


def test_ray_client_is_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="cannot follow segments"):
        RaySettings(address="ray://head:10001")
