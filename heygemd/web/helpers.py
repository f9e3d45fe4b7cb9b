"""Child processes of the page: a look at each upload, and estimates by `heygemd plan`. Few at a time, none for long."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anyio import to_thread

from heygemd.core.errors import CannotFitError, HeygemdError, UnreadableMediaError
from heygemd.core.settings import LimitSettings
from heygemd.files import write_json
from heygemd.web.uploads import DOCUMENT, LOOK, Upload

_LOOKS_AT_ONCE = 2
_LOOK_SECONDS = 180.0
_MAX_OUTPUT_BYTES = 4_000_000
_ESTIMATES_KEPT = 200


async def run_child(argv: Sequence[str], timeout_seconds: float) -> bytes | None:
    """Its standard output, whatever its exit code; None when it took too long. It and all that it started end then."""
    with tempfile.TemporaryFile() as output:  # a pipe would keep a transport open when the task is cancelled
        child = await asyncio.create_subprocess_exec(
            "nice",
            "-n",
            "10",
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_seconds):
                await child.wait()
        except TimeoutError:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await asyncio.shield(child.wait())
        output.seek(0)
        return output.read(_MAX_OUTPUT_BYTES)


class Looker:
    """Looks at uploads that are complete, each once. Lives in the loop."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits.model_dump_json()
        self._slots = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def look(self, upload: Upload) -> None:
        """Begin, unless it has begun. A document is for people: nobody here opens it."""
        if upload.id not in self._tasks:
            task = asyncio.create_task(self._look(upload), name=f"look {upload.id}")
            self._tasks[upload.id] = task
            task.add_done_callback(lambda _done: self._tasks.pop(upload.id, None))

    async def _look(self, upload: Upload) -> None:
        if upload.kind == DOCUMENT:
            await to_thread.run_sync(_conclude, upload, {"ok": True})
            return
        argv = [sys.executable, "-m", "heygemd.web.look", upload.kind, str(upload.media), str(upload.folder)]
        async with self._slots:
            await run_child([*argv, self._limits], _LOOK_SECONDS)
        # Where the process died or hung on the file, say so: nobody shall wait for it, or try it again and again.
        error = UnreadableMediaError(f"{upload.name} could not be read", path=upload.media.name)
        await to_thread.run_sync(_conclude, upload, {"ok": False, "error": error.to_dict()})

    async def close(self) -> None:
        await _end(list(self._tasks.values()))


def _conclude(upload: Upload, look: dict[str, Any]) -> None:
    """Tell what is in it, where nobody has."""
    if upload.folder.is_dir() and upload.look() is None:
        with contextlib.suppress(OSError):
            write_json(upload.folder / LOOK, look, durable=False)


@dataclass
class _Estimate:
    task: asyncio.Task[dict[str, Any]]
    user: str


class Estimator:
    """`heygemd plan`, one at a time. Each user has one question open; a new one takes the place of the last."""

    def __init__(self, command: Sequence[str], timeout_seconds: float) -> None:
        self._command = tuple(command)
        self._timeout = timeout_seconds
        self._slot = asyncio.Semaphore(1)
        self._open: OrderedDict[str, _Estimate] = OrderedDict()
        self._running: set[asyncio.Task[dict[str, Any]]] = set()  # those that nobody waits for any more, too

    @property
    def offered(self) -> bool:
        return self._timeout > 0

    def ask(self, user: str, arguments: Sequence[str]) -> str:
        """Begin to find out; the question's key. The same question again gets the same answer."""
        key = hashlib.sha256(json.dumps([user, *arguments]).encode()).hexdigest()[:32]
        if key in self._open:
            return key
        for other, estimate in list(self._open.items()):
            if estimate.user == user and not estimate.task.done():
                estimate.task.cancel()
                del self._open[other]
        while len(self._open) >= _ESTIMATES_KEPT:
            _, oldest = self._open.popitem(last=False)
            oldest.task.cancel()
        task = asyncio.create_task(self._plan(arguments))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self._open[key] = _Estimate(task, user)
        return key

    def answer(self, user: str, key: str) -> dict[str, Any] | None:
        """`state` working or done; None for a question that is not (or no longer) open."""
        estimate = self._open.get(key)
        if estimate is None or estimate.user != user:
            return None
        if not estimate.task.done():
            return {"state": "working"}
        return {"state": "done", **({} if estimate.task.cancelled() else estimate.task.result())}

    async def _plan(self, arguments: Sequence[str]) -> dict[str, Any]:
        async with self._slot:
            output = await run_child([*self._command, "plan", "--json", *arguments], self._timeout)
        if output is None:
            return {"unknown": True}
        try:
            found = json.loads(output)
        except ValueError:
            return {"unknown": True}
        if "error" in found:
            return {"error": found["error"]}
        if found.get("refused"):
            error = CannotFitError(str(found.get("reason", "")), remedy=found.get("remedy"), **found.get("details", {}))
            return {"error": error.to_dict()}
        wanted = (
            "engine",
            "frames",
            "speech_seconds",
            "estimate_seconds",
            "estimate_basis",
            "device_kind",
            "predicted_mib",
        )
        return {key: found[key] for key in wanted if key in found} | {"segments": len(found.get("segments", ()))}

    async def close(self) -> None:
        await _end(list(self._running))


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        if not task.cancelling():  # one that is ending is left to end its child
            task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, HeygemdError):
            raise result
