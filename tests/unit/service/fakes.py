"""An executor that does no work but leaves its files, a door that remembers, a clock that is set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import wait
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from heygemd.core.clip import AudioInfo, VideoInfo
from heygemd.core.errors import HeygemdError
from heygemd.core.job import InputFile, Item, Job
from heygemd.core.options import Options
from heygemd.core.placement import Device
from heygemd.core.settings import LimitSettings, MediaSettings, SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.files import write_json
from heygemd.gpu.watch import Watch
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.door import Delivery, ItemOutcome, StagedItem
from heygemd.service.tasks import TaskSettings
from heygemd.work.item import ItemFolder, MemoryPoint, Prepared

CPU = Device("cpu", "cpu", 16 * 2**30, 12 * 2**30, slots=2, threads=1)
Script = Callable[[Task, int], HeygemdError | None]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class FakeExecutor:
    """Answers each task at the next poll. `script(task, try)` may give an error instead of success."""

    def __init__(self, frames: int = 100, script: Script = lambda _task, _try: None) -> None:
        self.frames = frames
        self.script = script
        self.waiting: list[Task] = []
        self.tries: dict[str, int] = {}
        self.hold = False
        self.cancelled: list[str] = []
        self.closed = False
        self.waits: list[float] = []  # of each poll, in seconds
        self.render_values: dict[str, Any] = {}  # what renders say beside the usual
        self.prepare_bytes = 0  # what preparing takes, as a worker's probe would find
        self.reserved: dict[str, list[int]] = {}  # by task, for every try

    def start(self, task: Task, device: Device) -> None:
        self.tries[task.id] = self.tries.get(task.id, 0) + 1
        self.reserved.setdefault(task.id, []).append(task.reserved_bytes)
        self.waiting.append(task)

    def poll(self, timeout_seconds: float) -> list[Message]:
        self.waits.append(timeout_seconds)
        if self.hold:
            return []
        tasks, self.waiting = self.waiting, []
        return [self._answer(task) for task in tasks]

    def _answer(self, task: Task) -> Message:
        error = self.script(task, self.tries[task.id])
        if error is not None:
            return Message("failed", task.id, error.to_dict())
        folder = ItemFolder(Path(task.folder))
        values: dict[str, Any] = {"seconds_total": 1.0, "peak_bytes": 5 * 2**20}
        if task.kind == "prepare" and task.reserved_bytes < self.prepare_bytes:
            values["needed_bytes"] = self.prepare_bytes
        elif task.kind == "prepare":
            folder.make()
            folder.save_arrays("cuts", {"cost": np.zeros(self.frames, np.float32)})
            folder.save_prepared(prepared(self.frames))
            values |= {"num_frames": self.frames, "engine": "fake"}
        elif task.kind == "render":
            segment = task.values["segment"]
            folder.segment(segment["number"]).write_bytes(b"segment")
            frames = segment["stop_frame"] - segment["first_frame"]
            values |= {"num_frames": frames, "passed_frames": 0, "device": "cpu", "seconds": {"generate": 0.5}}
            values |= self.render_values
        else:
            (folder.result / "video.mp4").write_bytes(b"video")
            (folder.result / "sheet.jpg").write_bytes(b"sheet")
            write_json(folder.result_file, {"size_bytes": 5, "sha256": "0" * 64, "checked": {}})
        return Message("done", task.id, values)

    def cancel(self, task_id: str) -> None:
        self.cancelled.append(task_id)

    def running(self) -> frozenset[str]:
        return frozenset(task.id for task in self.waiting)

    def evict(self, device: str) -> None: ...

    def expect(self, waiting: Sequence[Mapping[str, int]]) -> None: ...

    def pids(self) -> Mapping[int, str]:
        return {}

    def close(self) -> None:
        self.closed = True


def prepared(frames: int) -> Prepared:
    points = tuple(MemoryPoint("cpu", "float32", b, 2**20 * (100 + b)) for b in (1, 2, 4, 8, 16, 32, 64, 128))
    return Prepared(
        video_path="v.mp4",
        audio_path="a.wav",
        video=VideoInfo(640, 480, Fraction(25), 50, 2.0, "yuv420p"),
        audio=AudioInfo(16000, 1, frames / 25),
        options=Options(),
        engine="fake",
        engine_reason="for a test",
        checkpoint=None,
        num_frames=frames,
        speech_seconds=frames / 25,
        phones=None,
        language=None,
        memory=points,
        summary={},
        seconds={"analyse": 1.0},
    )


class FakeDoor:
    def __init__(self) -> None:
        self.stage_errors: list[HeygemdError] = []
        self.busy: dict[str, HeygemdError] = {}  # by job's id, as long as it is here
        self.stuck: tuple[str, ...] = ()
        self.deliver_errors: list[HeygemdError] = []
        self.delivered: list[tuple[Job, Sequence[ItemOutcome], HeygemdError | None, Mapping[str, Any]]] = []
        self.views: dict[str, list[Mapping[str, Any]]] = {}

    def stage(self, job: Job) -> Sequence[StagedItem]:
        if self.stage_errors:
            raise self.stage_errors.pop(0)
        if job.id in self.busy:
            raise self.busy[job.id]
        return [StagedItem(item, Path("v.mp4"), Path("a.wav"), None, None) for item in job.items]

    def deliver(
        self,
        job: Job,
        outcomes: Sequence[ItemOutcome],
        error: HeygemdError | None,
        receipt: Mapping[str, Any],
        still_needed: Collection[tuple[str, int, int]],
    ) -> Delivery:
        if self.deliver_errors:
            raise self.deliver_errors.pop(0)
        self.delivered.append((job, outcomes, error, receipt))
        return Delivery(f"outbox/{job.name}/", self.stuck)

    def show(self, job: Job, view: Mapping[str, Any]) -> None:
        self.views.setdefault(job.name, []).append(view)


class FakeJournal:
    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []
        self.attempts: dict[tuple[str, int], int] = {}
        self.done: list[tuple[str, int]] = []
        self.released: list[str] = []
        self.stats: dict[int, dict[str, Any]] = {}

    def update(self, job: Job) -> None:
        self.states.append((job.name, job.state.value))

    def finish(self, job: Job, except_paths: Collection[str] = ()) -> None:
        self.update(job)
        self.released.append(job.id)

    def still_needed(self, job_id: str) -> frozenset[tuple[str, int, int]]:
        return frozenset()

    def set_plan(self, job_id: str, item: str, segments: Sequence[Mapping[str, Any]]) -> None: ...

    def count_attempt(self, job_id: str, item: str, number: int) -> int:
        self.attempts[item, number] = self.attempts.get((item, number), 0) + 1
        return self.attempts[item, number]

    def segment_stats(self, job_id: str, item: str) -> Mapping[int, dict[str, Any]]:
        return self.stats

    def segment_done(self, job_id: str, item: str, number: int, info: Mapping[str, Any]) -> None:
        self.done.append((item, number))
        self.stats[number] = dict(info)


class Rig:
    """A dispatcher with all its fakes."""

    def __init__(
        self,
        work: Path,
        *,
        frames: int = 100,
        script: Script = lambda _task, _try: None,
        host: Device = CPU,
        watch: Watch | None = None,
    ) -> None:
        self.clock = Clock()
        self.executor = FakeExecutor(frames, script)
        self.door = FakeDoor()
        self.journal = FakeJournal()
        self.events: list[tuple[str, dict[str, Any]]] = []
        scheduler = SchedulerSettings(segment_seconds=1.0, attempts=3, calibrate="never")
        self.dispatcher = Dispatcher(
            journal=self.journal,
            executor=self.executor,
            door=self.door,
            devices=[host],
            host=host,
            settings=TaskSettings(scheduler, LimitSettings(), MediaSettings(), "auto", work / "none"),
            work=work,
            log=lambda name, **fields: self.events.append((name, fields)),
            clock=self.clock,
            watch=watch,
        )

    def submit(self, name: str = "job", items: int = 1, **changes: Any) -> Job:
        job = Job(
            id=f"id-{name}",
            name=name,
            folder="",
            items=tuple(Item(f"{name}-{i}", "v.mp4", "a.wav") for i in range(items)),
            inputs=(InputFile("v.mp4", "video", 1, 1, 1, 1),),
            created_seconds=self.clock.now,
            batch=items > 1,
        ).evolve(**changes)
        self.dispatcher.submit(job)
        return job

    def run(self, rounds: int = 200, step_seconds: float = 1.0, enough: Callable[[], bool] = lambda: False) -> None:
        """Rounds until nothing is left to do, or it is `enough`."""
        for _ in range(rounds):
            self.step()
            self.clock.now += step_seconds
            if self.dispatcher.idle or enough():
                return
        raise AssertionError(f"not idle after {rounds} rounds: {self.dispatcher.counts}, {self.events[-5:]}")

    def step(self) -> None:
        """One round; what it gave to threads is done then, and every view shown, however busy the machine is."""
        self.dispatcher.step(0.0)
        wait([*self.dispatcher._pool._futures, *self.dispatcher._board._last], timeout=60)

    def names(self) -> list[str]:
        return [name for name, _ in self.events]
