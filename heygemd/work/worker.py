"""A worker process: reads tasks as JSON lines on stdin, answers with messages on stdout. It may die without harm.

It is the only kind of process of ours that imports torch or OpenCV, opens strangers' media and owns a GPU. It ends
when stdin closes or its parent dies. Progress is its heartbeat and comes from the work itself (core.heartbeat), never
from a thread beside it, so a hung worker is a silent one.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, TextIO

from heygemd.core import heartbeat
from heygemd.core.ceiling import Ceiling
from heygemd.core.coding import Card, Coding
from heygemd.core.errors import HeygemdError, OutOfMemoryError, RenderError
from heygemd.core.options import Options
from heygemd.core.plan import Plan, Segment
from heygemd.core.settings import LimitSettings, MediaSettings, ProvenanceSettings
from heygemd.core.task import DEVICE_FAILED_EXIT, Message, Task
from heygemd.engines import warm
from heygemd.failpoints import failpoint
from heygemd.files import explain
from heygemd.gpu import peak
from heygemd.work.credentials import require_signing
from heygemd.work.item import ItemFolder
from heygemd.work.meter import PeakMeter

_PR_SET_PDEATHSIG = 1
_PROGRESS_SECONDS = 0.25
_ALIVE_SECONDS = 1.0


class Worker:
    """Runs one task after the other and keeps the renderer of the last item warm."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._meter = PeakMeter()
        self._task_id = ""
        self._last_report = 0.0
        self._last: tuple[str, int, int] | None = None  # stage, done, total of the running task
        self._speaking = threading.Lock()  # threads of a task give signs of life, too
        self._renderer: Any = None  # work.render.SegmentRenderer, imported with the first segment

    def send(self, message: Message) -> None:
        with self._speaking:
            self._out.write(message.to_line() + "\n")
            self._out.flush()

    def report(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total:
            self._meter.sample()  # the encoder has all frames of a segment and still runs
        new = self._last is None or self._last[0] != stage
        self._last = last = stage, done, total
        if new or done >= total or now - self._last_report >= _PROGRESS_SECONDS:
            self._tell(last, now)

    def alive(self) -> None:
        """Something was done, and nothing new is to be told of it."""
        last, now = self._last, time.monotonic()
        if last is not None and now - self._last_report >= _ALIVE_SECONDS:
            self._tell(last, now)

    def _tell(self, progress: tuple[str, int, int], now: float) -> None:
        self._last_report = now
        stage, done, total = progress
        self.send(Message("progress", self._task_id, {"stage": stage, "done": done, "total": total}))

    def run(self, task: Task) -> None:
        """Do the task and answer it exactly once."""
        self._task_id, self._last = task.id, None
        started = time.monotonic()
        _spare_modules()
        try:
            failpoint("worker.task")
            with self._meter.watching():
                values = self._do(task)
            failpoint("worker.answer")
        except HeygemdError as error:
            answer = Message("failed", task.id, error.to_dict())
        except MemoryError as error:
            answer = Message("failed", task.id, OutOfMemoryError(f"out of memory: {error}").to_dict())
        except OSError as error:
            answer = Message("failed", task.id, explain(error, f"{task.kind} in the work folder").to_dict())
        except Exception as error:  # noqa: BLE001 - the worker's boundary: whatever it was, the daemon must hear of it
            if device_failed(error):
                _end_without_answer(error)
            answer = Message("failed", task.id, _unexpected(error).to_dict())
        else:
            values |= {"seconds_total": round(time.monotonic() - started, 3), "peak_bytes": self._meter.peak_bytes}
            answer = Message("done", task.id, values)
        if answer.type == "failed":
            self._drop_renderer()  # an error may leave a model half broken, or holding memory
            warm.drop_unused()
        self._last = None
        self.send(answer)

    def _do(self, task: Task) -> dict[str, Any]:
        if task.kind == "hello":  # whether a worker answers at all
            return {}
        folder = ItemFolder(Path(task.folder))
        if task.kind == "prepare":
            return self._prepare(task, folder)
        if task.kind == "render":
            return self._render(task, folder)
        if task.kind == "calibrate":
            return self._calibrate(task, folder)
        from heygemd.work.finish import finish

        self._drop_renderer()
        plan = Plan.from_dict(task.values["plan"])
        values = task.values
        return finish(
            folder,
            plan,
            MediaSettings.model_validate(values["media"]),
            self.report,
            ProvenanceSettings.model_validate(values["provenance"]),
        )

    def _prepare(self, task: Task, folder: ItemFolder) -> dict[str, Any]:
        from heygemd.work.afford import MoreRoomNeededError
        from heygemd.work.coding import require_coding
        from heygemd.work.prepare import PrepareRequest, prepare

        values = task.values
        request = PrepareRequest(
            video=Path(values["video"]),
            audio=_path(values.get("audio")),
            text_file=_path(values.get("text_file")),
            text=values.get("text"),
            options=Options.model_validate(values["options"]),
            limits=LimitSettings.model_validate(values["limits"]),
            default_engine=values["default_engine"],
            checkpoint_dir=Path(values["checkpoint_dir"]),
            checkpoint=_path(values.get("checkpoint")),
            device_kinds=tuple(values["device_kinds"]),
            face_detector=values["face_detector"],
            face_detector_file=_path(values["face_detector_file"]),
            landmarks=values.get("landmarks", "auto"),
            landmarks_file=_path(values.get("landmarks_file")),
            precision=values.get("precision", "auto"),
            media=MediaSettings.model_validate(values.get("media", {})),
            cards=tuple(Card(**card) for card in values.get("cards", ())),
            cpu_only=tuple(values.get("cpu_only", ())),
            reserved_bytes=task.reserved_bytes,
            ceiling=Ceiling.from_dict(values["ceiling"]) if values.get("ceiling") else None,
        )
        require_signing(ProvenanceSettings.model_validate(values.get("provenance", {})))
        require_coding(request.media, request.cards)
        try:
            prepared = prepare(request, folder, self.report)
        except MoreRoomNeededError as error:
            return {"needed_bytes": error.needed_bytes}
        return {"num_frames": prepared.num_frames, "engine": prepared.engine, "seconds": dict(prepared.seconds)}

    def _render(self, task: Task, folder: ItemFolder) -> dict[str, Any]:
        from heygemd.work.render import SegmentRenderer

        values = task.values
        segment = Segment(**values["segment"])
        done = folder.load_segment_stats(segment.number)
        if done is not None:  # the worker before died between its name and its answer
            return done | {"found": True}
        key = (str(folder.path), task.device, values["precision"])
        if self._renderer is None or self._renderer.key != key:
            self._drop_renderer()
            self._renderer = SegmentRenderer(
                folder,
                device=task.device,
                precision=values["precision"],
                media=MediaSettings.model_validate(values["media"]),
                threads=task.threads,
            )
            warm.drop_unused()  # a model of another job's is not in what was reserved for this one
        peak.reset_peak()
        self._meter.closely()  # the decoder of a short segment lives for some hundredths of a second
        coding = Coding.from_dict(values.get("coding", {}))
        stats = self._renderer.render(segment, batch=values["batch"], report=self.report, coding=coding)
        outside = values.get("outside_bytes")
        on_device = None if task.device == "cpu" else peak.peak_bytes(outside_bytes=outside)
        return asdict(stats) | ({} if on_device is None else {"device_peak_bytes": on_device})

    def _calibrate(self, task: Task, folder: ItemFolder) -> dict[str, Any]:
        from heygemd.core.fit import Shape
        from heygemd.work.calibrate import calibrate

        self._drop_renderer()
        warm.drop_unused()
        shape = task.values["shape"]
        shape |= {"region": tuple(shape["region"]), "batches": tuple(shape["batches"])}
        measured = calibrate(
            Shape(**shape),
            folder.path,
            device=task.device,
            precision=task.values["precision"],
            media=MediaSettings.model_validate(task.values["media"]),
            threads=task.threads,
            meter=self._meter,
            report=self.report,
        )
        return asdict(measured)

    def _drop_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _spare_modules() -> None:
    """Once torch is there: half a million objects of modules, which every collection would walk through in 0.12 s."""
    if "torch" in sys.modules and not gc.get_freeze_count():
        gc.freeze()


def _unexpected(error: Exception) -> HeygemdError:
    text = "".join(traceback.format_exception(error))[-8000:]
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the executor keeps the tail of stderr as evidence
    if type(error).__name__ == "OutOfMemoryError" or _no_room(str(error)):  # torch's, without importing torch
        return OutOfMemoryError(f"the device is out of memory: {str(error).splitlines()[0]}")
    return RenderError(f"{type(error).__name__}: {error}", traceback=text)


def device_failed(error: Exception) -> bool:
    """Whether the GPU or its driver is at fault: reset, fallen off the bus, a kernel that crashed. CUDA gives nothing
    more to a process that has seen one of these, so neither this task nor the next could be rendered here."""
    message = str(error)
    if type(error).__name__ == "OutOfMemoryError" or _no_room(message):
        return False
    return type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and any(words in message for words in _DEVICE_WORDS)
    )


_DEVICE_WORDS = ("CUDA error", "CUDA driver error", "CUDA unknown error", "No CUDA GPUs are available",
                 "CUDNN_STATUS_", "CUBLAS_STATUS_")  # fmt: skip


def _end_without_answer(error: Exception) -> NoReturn:
    """The executor says that the worker died, so the segment is tried again, elsewhere if there is an elsewhere. In the
    manner of a crash: the driver may keep whoever closes its context in order waiting for ever."""
    said = str(error).splitlines()[0] if str(error) else ""
    text = "".join(traceback.format_exception(error))[-8000:]
    print(f"{text}\n{type(error).__name__}: {said}", file=sys.stderr, flush=True)  # noqa: T201 - kept as evidence
    os._exit(DEVICE_FAILED_EXIT)


def _no_room(message: str) -> bool:
    """What CUDA and its libraries say outside of torch's allocator, where the context or a workspace does not fit."""
    return "CUDA error: out of memory" in message or "STATUS_ALLOC_FAILED" in message


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1 and os.environ.get("HEYGEMD_PARENT", "1") != "1":
        return  # the parent died before the line above
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C belongs to the daemon, which ends us in order
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # libraries that print must not break the protocol
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads:
        import cv2

        cv2.setNumThreads(int(threads))
    worker = Worker(out)
    heartbeat.listen(worker.alive)
    worker.send(Message("ready"))
    for line in sys.stdin:
        worker.run(Task.from_line(line))


if __name__ == "__main__":
    main()
