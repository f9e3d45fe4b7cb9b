"""Throughput of the Ray executor on this machine: `python bench/cluster.py VIDEO AUDIO`, from the repository's root.

Renders the same segments with one worker and with two, on this machine alone and on a local cluster of one and of two
nodes, each after one segment that nobody counts (it starts the worker and brings the inputs). Prints JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from heygemd.core.capacity import Device
from heygemd.core.options import Options
from heygemd.core.plan import Segment
from heygemd.core.settings import LimitSettings, MediaSettings
from heygemd.core.task import Task
from heygemd.work.executor import Executor
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.local import LocalExecutor
from heygemd.work.prepare import PrepareRequest, prepare
from tests.cluster import Cluster, wait_for_nodes

SEGMENTS = 16
RESERVED = 1500 * 2**20


def prepared(folder: Path, video: Path, audio: Path) -> Prepared:
    request = PrepareRequest(
        video=video,
        audio=audio,
        text_file=None,
        text=None,
        options=Options(),
        limits=LimitSettings(),
        default_engine="rewrite",
        checkpoint_dir=folder / "none",
        checkpoint=None,
        device_kinds=("cpu",),
    )
    return prepare(request, ItemFolder(folder), lambda *_: None)


def task(folder: Path, segment: Segment, name: str) -> Task:
    values = {
        "segment": asdict(segment),
        "batch": 4,
        "precision": "float32",
        "media": MediaSettings(preset="veryfast").model_dump(),
    }
    return Task(name, "render", str(folder), "cpu", 1, values, RESERVED)


def measure(executor: Executor, devices: list[Device], folder: Path, segments: list[Segment]) -> dict[str, float]:
    """One task at a time on each device; seconds from the first start to the last answer."""
    ItemFolder(folder).segment(0).parent.mkdir(exist_ok=True)
    waiting = [*[(n, segments[0]) for n in range(len(devices))], *enumerate(segments[1:], start=len(devices))]
    free = dict.fromkeys(range(len(devices)))
    at: dict[str, int] = {}
    began = 0.0
    warm, done_frames = len(devices), 0
    while waiting or at:
        if began == 0.0 and not at and len(waiting) == len(segments) - 1:
            began = time.monotonic()
        while waiting and free and (began or len(waiting) > len(segments) - 1):
            place, (number, segment) = free.popitem()[0], waiting.pop(0)
            name = f"{number}"
            ItemFolder(folder).segment(segment.number).unlink(missing_ok=True)
            at[name] = place
            executor.start(task(folder, segment, name), devices[place])
        for message in executor.poll(0.05):
            if message.type == "failed":
                raise SystemExit(message.values)
            if message.type == "done":
                free[at.pop(message.task_id)] = None
                done_frames += message.values["num_frames"] if int(message.task_id) >= warm else 0
    seconds = time.monotonic() - began
    return {"seconds": round(seconds, 2), "frames": done_frames, "frames_per_second": round(done_frames / seconds, 2)}


def main() -> None:
    video, audio = (Path(argument).absolute() for argument in sys.argv[1:3])
    report: dict[str, object] = {"cores": os.cpu_count(), "segments": SEGMENTS}
    with tempfile.TemporaryDirectory(prefix="heygemd-bench-") as work:
        folder = Path(work) / "item"
        count = prepared(folder, video, audio).num_frames
        borders = [round(n * count / (SEGMENTS + 1)) for n in range(SEGMENTS + 2)]
        segments = [Segment(n, a, b) for n, (a, b) in enumerate(itertools.pairwise(borders))]
        for workers in (1, 2):
            local = LocalExecutor()
            try:
                device = Device("cpu", "cpu", 10**10, 10**10, workers, 1)
                report[f"local {workers}"] = measure(local, [device] * workers, folder, segments)
            finally:
                local.close()
            for share in (Path(work), None):
                with Cluster(nodes=workers) as cluster:
                    executor = cluster.executor(Path(work), share=share)
                    try:
                        nodes = wait_for_nodes(executor, workers)
                        devices = [
                            Device(**{**node["devices"][0]["device"], "threads": 1, "slots": 1}) for node in nodes
                        ]
                        way = "share" if share else "object store"
                        report[f"ray {workers}, {way}"] = measure(executor, devices, folder, segments)
                    finally:
                        executor.close()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
