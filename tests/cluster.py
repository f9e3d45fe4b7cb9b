"""A Ray cluster of several nodes on this machine, for tests. Nothing leaves the machine, nothing stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heygemd.cluster.executor import RAY_ENVIRONMENT, RayExecutor
from heygemd.core.settings import RaySettings, SchedulerSettings
from tests.ports import free_port

QUIET = {
    **RAY_ENVIRONMENT,
    "RAY_AUTH_MODE": "disabled",  # of this cluster alone: a token of whoever runs the tests is not ours to use
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "30000",  # one that is gone refuses at once; one that others keep busy is not gone
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3",  # how long nodes outlive their head
    "RAY_enable_metrics_collection": "0",
    "RAY_scheduler_avoid_gpu_nodes": "0",
}
OBJECT_STORE_BYTES = 80 * 2**20
NODE_MIB = 8000


class Cluster:
    """A head that renders nothing, and nodes that do. A context manager; `node(n)` is Ray's own handle."""

    def __init__(self, nodes: int, *, mib: int = NODE_MIB, port: int = 0) -> None:
        self._count = nodes
        self._mib = mib
        self.port = port or free_port()
        self._nodes: list[Any] = []
        self._before: dict[str, str | None] = {}
        self._cluster: Any = None
        self._address = ""

    @property
    def address(self) -> str:
        """Ray takes 127.0.0.1 for this machine's own address, so that is what the head listens on."""
        return str(self._cluster.address) if self._cluster is not None else self._address

    def __enter__(self) -> Cluster:
        self._before = {name: os.environ.get(name) for name in QUIET}
        os.environ.update(QUIET)
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def start(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        shared = {"object_store_memory": OBJECT_STORE_BYTES}
        self._cluster = RayCluster(
            initialize_head=True,
            head_node_args={
                **shared,
                "num_cpus": 0,
                "gcs_server_port": self.port,
                "include_dashboard": False,
                "resources": {"head": 1},
            },
        )
        self._nodes = [self._cluster.add_node(wait=False, **shared, **self._node()) for _ in range(self._count)]
        self._cluster.wait_for_nodes()
        self._address = str(self._cluster.address)

    def add(self) -> None:
        shared = {"object_store_memory": OBJECT_STORE_BYTES}
        self._nodes.append(self._cluster.add_node(**shared, **self._node()))

    def remove(self, name: str) -> None:
        """End a node at once, as a machine that loses power. `name`: as heygemd calls it."""
        node = next(n for n in self._nodes if name.endswith(n.node_id[:6]))
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
            self._cluster = None

    def executor(self, folder: Path, *, share: Path | None = None, **options: Any) -> RayExecutor:
        ray = RaySettings(address=self.address, node_folder=str(folder / "nodes"), **options.pop("ray", {}))
        scheduler = SchedulerSettings(**options.pop("scheduler", {"cpu_slots": 1}))
        return RayExecutor(ray, scheduler, share=share, **options)

    def _node(self) -> dict[str, Any]:
        return {"num_cpus": 1, "resources": {"heygemd_cpu_mib": self._mib}, "include_dashboard": False}


def wait_for_nodes(executor: RayExecutor, count: int, seconds: float = 180.0) -> list[dict[str, Any]]:
    import time

    until = time.monotonic() + seconds
    while len(executor.nodes or ()) != count:
        assert time.monotonic() < until, (executor.nodes, executor.problem)
        assert executor.poll(0.1) == []
    return list(executor.nodes or ())


__all__ = ["Cluster", "Iterator", "free_port", "wait_for_nodes"]
