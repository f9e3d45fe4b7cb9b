"""The nodes of the cluster as Ray lists them, each with an agent of ours that says what it has and what it sees."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import heygemd
from heygemd.cluster.agents import NodeAgent, boot_id
from heygemd.cluster.resources import KINDS, MIB, resource
from heygemd.cluster.transfer import EXCHANGE
from heygemd.core.capacity import Device
from heygemd.core.errors import NodeLostError
from heygemd.core.settings import RaySettings, SchedulerSettings

_ASK_SECONDS = 30.0
_MEET_AGAIN_SECONDS = 30.0
_PROBE_SURVEYS = 15
"""The share of a node is looked for again after so many surveys: mounts come and go."""

OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass
class Node:
    """One node that is alive. `problem`: why it gets no work."""

    node_id: str
    name: str
    resources: Mapping[str, float]
    agent: Any
    bringing: asyncio.Lock = field(default_factory=asyncio.Lock)
    report: dict[str, Any] | None = None
    parts: str = ""
    problem: str | None = None
    sees_share: bool = False
    surveys: int = 0
    tasks: int = 0  # that hold a worker there
    brought_by: str = ""  # how inputs came last: "share" or "ray"

    @property
    def devices(self) -> list[dict[str, Any]]:
        return [] if self.report is None else list(self.report["devices"])


class Nodes:
    """See the module. `survey` again and again; the rest answers from what it found."""

    def __init__(
        self, settings: RaySettings, scheduler: SchedulerSettings, share: Path | None, on_event: OnEvent
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._share = share
        self._on_event = on_event
        self._agent = ray.remote(NodeAgent)
        self._nodes: dict[str, Node] = {}
        self._shunned: dict[str, tuple[float, str | None]] = {}  # node → until when, and why
        self._boot = boot_id()
        if share is not None:
            (share / EXCHANGE).mkdir(exist_ok=True)

    async def survey(self) -> None:
        """Take note of nodes that came or went, and ask each what it has."""
        listed = {n["NodeID"]: n for n in await asyncio.to_thread(ray.nodes) if n["Alive"]}
        for node_id in self._nodes.keys() - listed.keys():
            del self._nodes[node_id]
        for node_id, entry in listed.items():
            if time.monotonic() < self._shunned.get(node_id, (0.0, None))[0]:
                continue
            if node_id not in self._nodes and any(entry["Resources"].get(resource(kind), 0) > 0 for kind in KINDS):
                self._nodes[node_id] = self._meet(node_id, entry)
        await asyncio.gather(*(self._ask(node) for node in self._nodes.values()))

    def _meet(self, node_id: str, entry: Mapping[str, Any]) -> Node:
        name = f"{entry['NodeManagerHostname']}-{node_id[:6]}"
        agent = self._agent.options(
            num_cpus=0,
            max_concurrency=8,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(
            node_id[:16],
            self._settings.node_folder,
            self._settings.node_cache_mib,
            self._scheduler.model_dump(mode="json"),
        )
        _, problem = self._shunned.pop(node_id, (0.0, None))  # what was said already is not said again
        return Node(node_id, name, dict(entry["Resources"]), agent, problem=problem)

    async def _ask(self, node: Node) -> None:
        try:
            report = await asyncio.wait_for(_call(node.agent.look), _ASK_SECONDS)
            if not node.parts:
                node.parts = await asyncio.wait_for(_call(node.agent.parts), _ASK_SECONDS)
            if node.surveys % _PROBE_SURVEYS == 0:
                await self._probe(node)
        except (ray.exceptions.RayError, TimeoutError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            self._trouble(node, f"its agent does not answer: {said[0]}")
            if isinstance(error, ray.exceptions.RayActorError):
                self._nodes.pop(node.node_id, None)
                self._shunned[node.node_id] = time.monotonic() + _MEET_AGAIN_SECONDS, node.problem
            return
        node.surveys += 1
        node.report = report
        theirs = report["heygemd"]
        other = None if theirs == heygemd.__version__ else f"it runs heygemd {theirs}, not {heygemd.__version__}"
        self._trouble(node, other)

    async def _probe(self, node: Node) -> None:
        """The share counts as mounted there when both read what the other has just written."""
        before, node.sees_share = node.sees_share, False
        if self._share is not None:
            nonce, answer = os.urandom(16).hex(), os.urandom(16).hex()
            folder = self._share / EXCHANGE
            question, reply = folder / f"probe-{nonce}", folder / f"answer-{answer}"
            there = Path(self._settings.share_on_nodes or self._share) / EXCHANGE
            try:
                await asyncio.to_thread(question.write_text, nonce)
                said = await asyncio.wait_for(_call(node.agent.probe, str(there), nonce, answer), _ASK_SECONDS)
                node.sees_share = said and await asyncio.to_thread(_holds, reply, answer)
            except OSError:
                node.sees_share = False  # it is away for us too; the daemon's scan says so
            finally:
                for path in (question, reply):
                    await asyncio.to_thread(_remove, path)
        if node.sees_share != before or node.surveys == 0:
            way = "over the share" if node.sees_share else "over Ray"
            self._on_event("node.ready", {"node": node.name, "reason": f"files travel {way}"})

    def _trouble(self, node: Node, problem: str | None) -> None:
        if problem != node.problem and problem is not None:
            self._on_event("daemon.degraded", {"reason": f"node {node.name} gets no work: {problem}"})
        node.problem = problem

    def for_device(self, device: Device, needed: Mapping[str, float]) -> Node:
        """The device's node; for a device without one, that which has least to do. Raises NodeLostError."""
        usable = [node for node in self._nodes.values() if node.problem is None and node.report is not None]
        if device.node:
            found = [node for node in usable if node.name == device.node]
        else:
            found = [n for n in usable if all(n.resources.get(name, 0) >= value for name, value in needed.items())]
        if not found:
            raise NodeLostError(f"node {device.node} is gone" if device.node else "the cluster has no node for it")
        return min(found, key=lambda node: (node.tasks, node.name))

    def offers(self) -> list[Mapping[str, float]]:
        return [node.resources for node in self._nodes.values()]

    def here(self) -> set[str]:
        """Names of nodes on this very machine."""
        return {n.name for n in self._nodes.values() if n.report is not None and n.report["boot_id"] == self._boot}

    def report(self, pids: Mapping[str, list[int]]) -> list[dict[str, Any]]:
        """For the daemon. `pids`: of our workers, by node."""
        return [
            {
                "name": node.name,
                "problem": node.problem,
                "sees_share": node.sees_share,
                "fixed_cpu": node.report["fixed_cpu"],
                "devices": [_capped(node, entry) for entry in node.devices],
                "pids": pids.get(node.name, []),
            }
            for node in self._nodes.values()
            if node.report is not None
        ]

    def end_all(self) -> Iterable[Any]:
        return [node.agent.end.remote() for node in self._nodes.values()]


def _capped(node: Node, entry: dict[str, Any]) -> dict[str, Any]:
    """The device under its cluster-wide name, never larger than what the node gives to Ray."""
    device = Device(**entry["device"])
    given = int(node.resources.get(resource(device.kind), 0)) * MIB
    device = replace(
        device, name=f"{node.name}/{device.name}", node=node.name, budget_bytes=min(device.budget_bytes, given)
    )
    return {**entry, "device": vars(device), "most_bytes": given}


async def _call(method: Any, *arguments: Any) -> Any:
    return await method.remote(*arguments)


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the share has gone; the sweep at the next start takes it
