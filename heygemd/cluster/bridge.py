"""The process between the daemon and Ray: JSON lines on stdin and stdout, Ray on the other side.

Ray ends a driver whose raylet or head is gone for good, with `_exit`: that is why the driver is no part of the daemon.
When this process ends, for whatever reason, the daemon answers what ran and starts another one.

stdin:  {"op": "start", "task", "device"}, {"op": "cancel", "task_id"}, {"op": "evict", "device"},
        {"op": "expect", "waiting"}; the end of stdin ends everything, in order.
stdout: {"type": "ready"}, {"type": "refused", "reason"}, {"type": "message", "message"}, {"type": "nodes", "nodes"},
        {"type": "event", "name", "fields"}, {"type": "pids", "pids"}
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import ray
from ray.autoscaler.sdk import request_resources

from heygemd.cluster.cargo import Cargo, Sums, cargo_of
from heygemd.cluster.nodes import Node, Nodes
from heygemd.cluster.resources import bundles, demand
from heygemd.cluster.transfer import Transfer
from heygemd.cluster.workers import Worker, Workers
from heygemd.core.capacity import Device
from heygemd.core.errors import CancelledError, HeygemdError, NodeLostError, WorkerDiedError
from heygemd.core.settings import RaySettings, SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.files import explain
from heygemd.work.item import ItemFolder

_SURVEY_SECONDS = 2.0
_TIDY_SECONDS = 0.2
_EXPECT_SECONDS = 5.0
_SILENT_SECONDS = 60.0
_END_SECONDS = 10.0


class Bridge:
    """One event loop. Everything that may block runs in threads or in Ray."""

    def __init__(self, config: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say
        settings = RaySettings.model_validate(config["ray"])
        scheduler = SchedulerSettings.model_validate(config["scheduler"])
        share = Path(config["share"]) if config["share"] and settings.share == "auto" else None
        self.nodes = Nodes(settings, scheduler, share, self._event)
        self.workers = Workers(
            config["worker"], settings.start_seconds, config["idle_seconds"], self._event, self._tell_pids
        )
        self._transfer = Transfer(settings.chunk_mib * 2**20, share, settings.share_on_nodes)
        self._sums = Sums()
        self._hashing = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._at_work: dict[str, Worker] = {}
        self._cancelled: set[str] = set()
        self._waiting: list[dict[str, int]] = []
        self._expected: list[dict[str, float]] | None = None

    async def serve(self, lines: asyncio.Queue[str | None]) -> None:
        """Until stdin ends."""
        await self.nodes.survey()
        self._say({"type": "ready"})
        self._tell_nodes()
        loops = [
            asyncio.create_task(self._every(_SURVEY_SECONDS, self._survey)),
            asyncio.create_task(self._every(_TIDY_SECONDS, self._tidy)),
            asyncio.create_task(self._every(_EXPECT_SECONDS, self._expect)),
        ]
        try:
            while (line := await _next(lines, loops)) is not None:
                self._do(json.loads(line))
        finally:
            for loop in loops:
                loop.cancel()
            await self._end()

    def _do(self, order: dict[str, Any]) -> None:
        if order["op"] == "start":
            task = Task(**order["task"])
            self._tasks[task.id] = asyncio.create_task(self._run(task, Device(**order["device"])))
        elif order["op"] == "cancel":
            self._cancel(order["task_id"])
        elif order["op"] == "evict":
            self.workers.evict(order["device"])
        else:
            self._waiting = order["waiting"]

    def _cancel(self, task_id: str) -> None:
        running = self._tasks.get(task_id)
        if running is None:
            return
        self._cancelled.add(task_id)
        worker = self._at_work.get(task_id)
        if worker is None:
            running.cancel()  # it is still on its way to a worker
        else:
            worker.cancel(task_id)

    # ---- one task ----

    async def _run(self, task: Task, device: Device) -> None:
        try:
            answer = await self._work(task, device)
        except asyncio.CancelledError:
            answer = _failed(task, CancelledError("cancelled before it ran"))
        except ray.exceptions.RayError as error:  # first: Ray makes errors that are of both kinds
            answer = _failed(task, _explained(error, device))
        except HeygemdError as error:
            answer = _failed(task, error)
        except OSError as error:
            answer = _failed(task, explain(error, "the work folder"))
        finally:
            self._tasks.pop(task.id, None)
            self._at_work.pop(task.id, None)
        if task.id in self._cancelled:
            self._cancelled.discard(task.id)
            if answer.type == "failed":
                answer = _failed(task, CancelledError("cancelled while it ran"))
        self._say({"type": "message", "message": vars(answer)})

    async def _work(self, task: Task, device: Device) -> Message:
        node = self.nodes.for_device(device, demand(device.kind, task.reserved_bytes))
        async with self._hashing:  # of one item's files once, however many segments start at once
            cargo = await asyncio.to_thread(cargo_of, task, self._sums)
        there, folder, parts = task, task.folder, None
        if cargo is not None:
            place, parts = await self._bring(cargo, node), node.parts
            folder = place["folder"]
            there = replace(task, folder=folder, values=_moved(task.values, place))
        worker = await self.workers.take(node, device, task, folder)
        self._at_work[task.id] = worker
        try:
            if task.id in self._cancelled:
                raise CancelledError("cancelled before it ran")
            answer = await self._listen(worker, there, device, parts)
        except BaseException:
            self.workers.discard(worker)  # what it does now is unknown: it must not go on
            raise
        died = answer.values.get("type") == WorkerDiedError.__name__
        self.workers.give_back(worker, alive=not died)
        if cargo is not None:
            await self._settle(answer, task, node)
        return answer

    async def _bring(self, cargo: Cargo, node: Node) -> dict[str, Any]:
        async with node.bringing:  # the same files are not sent twice to one node at once
            way = await self._transfer.bring(cargo, node, self._event)
            place: dict[str, Any] = await node.agent.unpack.remote(cargo.to_dict())
        node.brought_by = way or node.brought_by
        return place

    async def _listen(self, worker: Worker, task: Task, device: Device, parts: str | None) -> Message:
        """Pass on what the worker says until its answer. Raises NodeLostError when nothing is heard any more."""
        stream = worker.actor.run.options(num_returns="streaming").remote(task.to_line(), vars(device), parts)
        spoken = stream.__aiter__()
        while True:
            try:
                said = json.loads(await asyncio.wait_for(_item(spoken), _SILENT_SECONDS))
            except TimeoutError:
                raise NodeLostError(f"node {worker.node} has said nothing for {_SILENT_SECONDS:.0f} s") from None
            except StopAsyncIteration:
                raise NodeLostError(f"the worker on node {worker.node} was ended") from None
            if "event" in said:
                self.workers.heard(worker, *said["event"])
            elif "message" in said:
                message = Message(**said["message"])
                if message.type in ("done", "failed"):
                    return message
                self._say({"type": "message", "message": vars(message)})

    async def _settle(self, answer: Message, task: Task, node: Node) -> None:
        """The segment comes here under its final name, the log of a failure to the item's log."""
        if answer.type == "failed":
            text = answer.values.pop("log", "")
            if text:
                await asyncio.to_thread(_append, ItemFolder(Path(task.folder)).log, f"[node {node.name}]\n{text}")
            return
        file = answer.values.pop("file", None)
        if file is None:
            return
        here, number = ItemFolder(Path(task.folder)), task.values["segment"]["number"]
        target = here.segment(number)
        if file["stats"] is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(here.save_segment_stats, number, file["stats"])
        way = await self._transfer.fetch(file, node, target, self._event)
        answer.values.update(node=node.name, inputs_by=node.brought_by, segment_by=way)

    # ---- the loops ----

    async def _every(self, seconds: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await step()

    async def _survey(self) -> None:
        await self.nodes.survey()
        self._tell_nodes()

    async def _tidy(self) -> None:
        self.workers.end_idle(time.monotonic())

    async def _expect(self) -> None:
        held = [demand(w.kind, w.held_mib * 2**20) for w in self.workers.busy()]
        wanted = bundles(self._waiting, held, self.nodes.offers())
        if wanted != self._expected and (wanted or self._expected):
            self._expected = wanted
            await asyncio.to_thread(request_resources, bundles=wanted)

    async def _end(self) -> None:
        for running in list(self._tasks.values()):
            running.cancel()
        ends = [*self.workers.end_all(), *self.nodes.end_all()]
        if ends:
            await asyncio.wait([asyncio.ensure_future(_quiet(end)) for end in ends], timeout=_END_SECONDS / 2)
        if self._expected:
            await asyncio.to_thread(request_resources, bundles=[])

    def _event(self, name: str, fields: dict[str, Any]) -> None:
        self._say({"type": "event", "name": name, "fields": fields})

    def _tell_nodes(self) -> None:
        self._say({"type": "nodes", "nodes": self.nodes.report(self.workers.pids_by_node())})

    def _tell_pids(self) -> None:
        self._say({"type": "pids", "pids": self.workers.pids_here(self.nodes.here())})


async def _next(lines: asyncio.Queue[str | None], loops: list[asyncio.Task[None]]) -> str | None:
    """The next line. A loop that has ended ends the bridge with its error: the daemon starts a fresh one."""
    getting = asyncio.create_task(lines.get())
    done, _ = await asyncio.wait([getting, *loops], return_when=asyncio.FIRST_COMPLETED)
    for loop in loops:
        if loop in done:
            getting.cancel()
            loop.result()
    return getting.result()


async def _item(stream: Any) -> str:
    text: str = await (await stream.__anext__())
    return text


async def _quiet(end: Any) -> None:
    """Wait for an end that may have come already."""
    try:
        await end
    except ray.exceptions.RayError:
        return  # it died on the way: ended as well


def _moved(values: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """A task's values with the paths of the node: a calibration pass names its checkpoint."""
    shape = values.get("shape")
    if not shape or not shape.get("checkpoint"):
        return values
    return {**values, "shape": {**shape, "checkpoint": place["checkpoint"]}}


def _append(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(text)


def _explained(error: Exception, device: Device) -> HeygemdError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, HeygemdError):
        return cause
    if isinstance(cause, OSError):
        return NodeLostError(f"node {device.node or '?'}: {cause.strerror or cause}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return NodeLostError(f"node {device.node or '?'} was lost: {lines[-1 if cause else 0]}")


def _failed(task: Task, error: HeygemdError) -> Message:
    return Message("failed", task.id, error.to_dict())


def _read(stdin: TextIO, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None]) -> None:
    for line in stdin:
        loop.call_soon_threadsafe(lines.put_nowait, line)
    loop.call_soon_threadsafe(lines.put_nowait, None)
    time.sleep(_END_SECONDS)
    os._exit(1)  # Ray hangs; what it started notices that we are gone


async def _main(config: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read, args=(sys.stdin, loop, lines), name="stdin", daemon=True).start()
    await Bridge(config, say).serve(lines)


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # Ray prints what it thinks; the protocol is ours
    guard = threading.Lock()

    def say(values: dict[str, Any]) -> None:
        with guard:
            out.write(json.dumps(values) + "\n")
            out.flush()

    config = json.loads(sys.stdin.readline())
    address = config["ray"]["address"]
    try:
        ray.init(address=address, namespace="heygemd", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        say({"type": "refused", "reason": lines[0]})
        return
    try:
        asyncio.run(_main(config, say))
    except BrokenPipeError:
        pass  # the daemon is gone
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
