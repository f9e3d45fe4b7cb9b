"""What runs on the nodes: one agent for each node, and one actor for each worker process. Neither decides anything.

The worker process is the same as on one machine, under the same LocalExecutor: heartbeats, the end of whole process
groups, last words and CUDA_VISIBLE_DEVICES are its business. Plain classes; the bridge makes Ray actors of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import heygemd
from heygemd.cluster.cargo import Blob, NodeStore
from heygemd.core.capacity import Device
from heygemd.core.settings import SchedulerSettings
from heygemd.core.task import Message, Task
from heygemd.files import copy_hashed, remove_tree, sha256_of
from heygemd.gpu.devices import cards, devices, memory_now, render_cards
from heygemd.work.item import ItemFolder
from heygemd.work.local import LocalExecutor

_POLL_SECONDS = 0.1
_ALIVE_SECONDS = 5.0
_PROGRESS_SECONDS = 1.0
_LOG_TAIL_BYTES = 64_000


def boot_id() -> str:
    """The same for all processes of one machine since its start."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def local_devices(settings: SchedulerSettings) -> list[Device]:
    """The devices of this machine that the daemon's configuration names; names that are not here are passed by."""
    if settings.simulated_gpus_mib or settings.devices == ("auto",):
        return devices(settings)
    found = render_cards()
    here = {f"cuda:{card.index}" for card in found if card.problem is None} | {"cpu"}
    names = tuple(name for name in settings.devices if name in here)
    return devices(settings.model_copy(update={"devices": names}), found) if names else []


class NodeAgent:
    """Knows one node: its devices now, its view of the share, its store of files."""

    def __init__(self, node: str, folder: str, cache_mib: int, settings: dict[str, Any]) -> None:
        self._settings = SchedulerSettings.model_validate(settings)
        parent = Path(folder)
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(parent / f"{node}.lock")
        _sweep(parent)
        self._store = NodeStore(parent / node, cache_mib * 2**20)

    def look(self) -> dict[str, Any]:
        """This node's own snapshot: NVML's cards or the RAM, as they are now."""
        ram = memory_now()
        now = {card.uuid: card for card in cards()}
        found = []
        for device in local_devices(self._settings):
            card = now.get(device.uuid) if device.uuid else None
            free = ram.free_bytes if card is None else card.free_bytes
            processes = {} if card is None else dict(card.processes)
            if device.name.startswith("sim:"):
                free = device.total_bytes
            found.append({"device": asdict(device), "free_bytes": free, "processes": processes})
        return {
            "devices": found,
            "heygemd": heygemd.__version__,
            "boot_id": boot_id(),
            "host": platform.node(),
            "fixed_cpu": bool(self._settings.cpu_memory_mib),
        }

    def probe(self, folder: str, nonce: str, answer: str) -> bool:
        """Whether this node sees the daemon's share and may write there: it reads one nonce and leaves another."""
        try:
            same = (Path(folder) / f"probe-{nonce}").read_text() == nonce
            if same:
                (Path(folder) / f"answer-{answer}").write_text(answer)
        except OSError:
            return False
        return same

    def missing(self, blobs: Sequence[dict[str, Any]]) -> list[str]:
        """SHA-256 of those that are to be brought."""
        return [blob.sha256 for blob in self._store.missing([Blob(**blob) for blob in blobs])]

    def take(self, blob: dict[str, Any], source: str) -> None:
        self._store.take(Blob(**blob), Path(source))

    def write(self, transfer: str, offset: int, data: bytes) -> None:
        self._store.write(transfer, offset, data)

    def written(self, transfer: str, blob: dict[str, Any]) -> None:
        self._store.close(transfer, Blob(**blob))

    def unpack(self, cargo: dict[str, Any]) -> dict[str, str | None]:
        """Where the item's folder and its checkpoint are here."""
        blobs = [Blob(**blob) for blob in cargo["blobs"]]
        folder = self._store.unpack(cargo["key"], cargo["prepared"], blobs)
        return {"folder": folder, "checkpoint": self._store.where("checkpoint", blobs)}

    def read(self, name: str, offset: int, count: int) -> bytes:
        """One piece of a finished segment."""
        with self._store.part_named(name).open("rb") as file:
            file.seek(offset)
            return file.read(count)

    def leave(self, name: str, target: str) -> str:
        """Copy a finished segment to the share; the SHA-256 of what was copied."""
        with self._store.part_named(name).open("rb") as file:
            return copy_hashed(file, Path(target))

    def drop(self, name: str) -> None:
        self._store.part_named(name).unlink(missing_ok=True)

    def parts(self) -> str:
        """The folder that finished segments are moved to."""
        return str(self._store.folder / "parts")

    def end(self) -> None:
        """Nothing is needed here any more."""
        self._store.remove()
        os.close(self._lock)


class SegmentWorker:
    """One worker process on a node. `run` by one thread, `cancel` and `end` by another."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._executor = LocalExecutor(
            on_event=lambda name, fields: self._events.append((name, dict(fields))),
            idle_seconds=1e9,  # the bridge says when
            **options,
        )
        self._guard = threading.Lock()  # the executor is for one thread at a time
        self._closed = False

    def ready(self) -> bool:
        return True

    def run(self, line: str, device: dict[str, Any], parts: str | None) -> Iterator[str]:
        """Do the task. Yields JSON: {"event": [name, fields]}, {"alive": true} and, as the last, {"message": …}.

        `parts`: a finished segment is moved there, under a name of its own, and `values` tells name, size and SHA-256.
        """
        task = Task.from_line(line)
        with self._guard:
            self._executor.start(task, Device(**device))
        spoken, reported = time.monotonic(), 0.0
        while not self._closed:
            with self._guard:
                messages = [] if self._closed else self._executor.poll(_POLL_SECONDS)
                events, self._events = self._events, []
            for name, fields in events:
                yield json.dumps({"event": [name, fields]})
            for message in messages:
                if message.type in ("done", "failed"):
                    yield _line(_finished(message, task, parts))
                    return
                if time.monotonic() - reported >= _PROGRESS_SECONDS:  # thousands of workers speak to one bridge
                    reported = time.monotonic()
                    yield _line(message)
            if messages or events:
                spoken = time.monotonic()
            elif time.monotonic() - spoken > _ALIVE_SECONDS:
                spoken = time.monotonic()
                yield json.dumps({"alive": True})
            time.sleep(0.005)  # let `cancel` have the lock

    def cancel(self, task_id: str) -> None:
        with self._guard:
            self._executor.cancel(task_id)

    def end(self) -> None:
        """The process and all that it started are gone when this returns."""
        with self._guard:
            self._closed = True
            self._executor.close()


def _line(message: Message) -> str:
    return json.dumps({"message": asdict(message)})


def _finished(message: Message, task: Task, parts: str | None) -> Message:
    if parts is None:
        return message
    folder = ItemFolder(Path(task.folder))
    if message.type == "failed":
        # Evidence for whoever reads error.json there.
        with contextlib.suppress(FileNotFoundError), folder.log.open("rb") as log:
            log.seek(max(0, folder.log.stat().st_size - _LOG_TAIL_BYTES))
            message.values["log"] = log.read().decode(errors="replace")
        return message
    if task.kind != "render":
        return message
    number = task.values["segment"]["number"]
    stats = folder.load_segment_stats(number)
    made = folder.segment(number)
    name = f"segment-{os.urandom(8).hex()}.mp4"
    target = made.rename(Path(parts) / name)
    message.values["file"] = {"name": name, "size_bytes": target.stat().st_size, "sha256": sha256_of(target)}
    message.values["file"]["stats"] = stats
    return message


def _locked(path: Path) -> int:
    """Hold this node's name as long as the agent lives; another agent of the same node waits for its end."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        os.close(fd)  # swept away by another agent while this one waited: a lock on it would keep nobody out


def _sweep(parent: Path) -> None:
    """Remove what agents that were killed have left: nobody holds its lock."""
    for lock in parent.glob("*.lock"):
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(lock.with_suffix(""))
            lock.unlink()
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
