"""How devices are spelled as Ray resources. Pure.

A node offers `heygemd_cuda_mib` (memory of its GPUs) or `heygemd_cpu_mib` (RAM), in MiB, and a worker on it holds what
its segment was predicted to need. So Ray never places more than fits, whoever asks, and its autoscaler knows what is
missing. Which card of a node it is, is for our own placement to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from heygemd.core.capacity import Device
from heygemd.core.memory import mib

MIB = 2**20
KINDS = ("cpu", "cuda")
MOST_BUNDLES = 1000
"""More are not asked of the autoscaler at once: it grows in steps, and the list travels with each request."""


def resource(kind: str) -> str:
    return f"heygemd_{kind}_mib"


def demand(kind: str, num_bytes: int) -> dict[str, float]:
    """What a worker asks of Ray; nothing for a task without a reservation."""
    return {resource(kind): float(mib(num_bytes))} if num_bytes > 0 else {}


def offered(devices: Iterable[Device]) -> dict[str, int]:
    """What a node with these devices gives to Ray: the sum of their budgets by kind, in whole MiB."""
    sums: Counter[str] = Counter()
    for device in devices:
        sums[resource(device.kind)] += device.budget_bytes // MIB
    return {name: value for name, value in sorted(sums.items()) if value > 0}


def bundles(
    waiting: Sequence[Mapping[str, int]], running: Iterable[Mapping[str, float]], offers: Iterable[Mapping[str, float]]
) -> list[dict[str, float]]:
    """What the autoscaler is told: what runs, and the smallest form of what waits, at most MOST_BUNDLES.

    A task that could take a GPU or a CPU is asked for as the kind that the cluster has or, where it has none yet, as a
    GPU. `offers`: the resources of each node.
    """
    here = {kind for kind in KINDS for offer in offers if offer.get(resource(kind), 0) > 0}
    found = [dict(held) for held in running if held][:MOST_BUNDLES]
    for needs in waiting[: MOST_BUNDLES - len(found)]:
        known = sorted((kind for kind in needs if kind in KINDS), key=lambda kind: (kind not in here, kind != "cuda"))
        if known:
            found.append(demand(known[0], needs[known[0]]))
    return [bundle for bundle in found if bundle]
