"""Real workers and a real dispatcher on one device, and a neighbour that takes its memory. Works on a CPU device too,
but for the neighbour."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heygemd.core.capacity import Device
from heygemd.core.errors import HeygemdError
from heygemd.core.fit import Shape
from heygemd.core.job import Job, JobState
from heygemd.core.settings import InboxSettings, LimitSettings, MediaSettings, SchedulerSettings
from heygemd.core.task import Task
from heygemd.gpu.calibration import CalibrationStore
from heygemd.gpu.watch import DeviceWatch
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.share_door import ShareDoor
from heygemd.service.tasks import TaskSettings, seen_by_worker
from heygemd.spool.inbox import Inbox
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.work.local import LocalExecutor

MIB = 2**20


def measure(shape: Shape, precision: str, device: Device, work: Path) -> dict[str, Any]:
    """A calibration pass by a fresh worker of its own."""
    executor = LocalExecutor()
    values = {
        "shape": vars(shape),
        "precision": precision,
        "media": MediaSettings(preset="ultrafast", encoder="software", decoder="software").model_dump(),
    }
    try:
        executor.start(Task("pass", "calibrate", str(work), seen_by_worker(device), device.threads, values), device)
        while True:
            for message in executor.poll(0.5):
                if message.type == "failed":
                    raise HeygemdError.from_dict(message.values)
                if message.type == "done":
                    return message.values
    finally:
        executor.close()


_TENANT = """
import sys, torch
kept = [torch.empty(int(sys.argv[1]), dtype=torch.uint8, device="cuda").fill_(1)]
torch.cuda.synchronize()
print("here", flush=True)
sys.stdin.read()
"""


class Tenant:
    """Another process that holds `num_bytes` of the card (and its own context) from `with` to the end of it."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes

    def __enter__(self) -> Tenant:
        command = [sys.executable, "-c", _TENANT, str(self._num_bytes)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"here\n", "the neighbour did not get its memory"
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Run:
    """One job through the dispatcher on one device."""

    folder: Path
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ended: list[Job] = field(default_factory=list)

    def go(
        self,
        device: Device,
        host: Device,
        clip: Path,
        voice: Path,
        checkpoint: Path,
        store: CalibrationStore,
        *,
        scheduler: SchedulerSettings,
        look: Callable[[Run], None] = lambda _run: None,
        seconds: float = 400.0,
    ) -> Path:
        """The video. `look` is called in every round. AssertionError where the job does not end well."""
        layout = Layout(self.folder / "share", self.folder / "state")
        layout.ensure()
        shutil.copy(clip, layout.inbox / "talk.mp4")
        shutil.copy(voice, layout.inbox / "talk.wav")
        scan = Inbox(layout, InboxSettings(settle_scans=1, settle_seconds=0), LimitSettings()).scan(frozenset())
        (drop,) = scan.ready
        watch = DeviceWatch([device], scheduler, interval_seconds=0.5)
        with Journal(layout.journal) as journal:
            job = drop.to_job("a" * 20, "talk", time.time()).evolve(
                options=drop.options.model_copy(update={"engine": "wav2lip", "quality": "lossless"})
            )
            journal.add(job)
            dispatcher = Dispatcher(
                journal=journal,
                executor=LocalExecutor(),
                door=ShareDoor(layout, reserve_bytes=0),
                devices=[device],
                host=host,
                settings=TaskSettings(
                    scheduler,
                    LimitSettings(),
                    MediaSettings(preset="ultrafast", encoder="software", decoder="software"),
                    "wav2lip",
                    layout.state / "checkpoints",
                    checkpoint,
                ),
                work=layout.work,
                log=lambda name, **fields: self.events.append((name, fields)),
                calibration=store,
                watch=watch,
            )
            watch.start()
            end = time.monotonic() + seconds
            try:
                dispatcher.submit(job)
                while not dispatcher.ended:
                    assert time.monotonic() < end, self.events[-8:]
                    dispatcher.step(0.05)
                    look(self)
            finally:
                dispatcher.close()
                watch.stop()
            self.ended = dispatcher.ended
        assert [one.state for one in self.ended] == [JobState.DONE], self.events[-8:]
        return layout.root / "outbox/talk/talk.mp4"

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]


def grey_frames(video: Path, size: int) -> np.ndarray:
    """(frames, size, size) uint8."""
    command = ["ffmpeg", "-v", "error", "-i", f"file:{video}", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size, size)
