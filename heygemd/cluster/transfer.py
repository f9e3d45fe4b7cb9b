"""Files between this machine and the nodes: over the share where a node has it mounted, else in pieces over Ray.

What goes over the share is copied once into a hidden folder there, under its SHA-256, and every node copies it from
there to its own disk; so the daemon's machine sends a clip once, however many nodes render it. Over Ray at most
`_WINDOW` pieces of one file are on the way at once. Whoever writes a final file has computed its SHA-256 from what it
wrote, and compared.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from heygemd.cluster.cargo import Blob, Cargo, receive, temp_for
from heygemd.core.errors import HeygemdError, NodeLostError
from heygemd.files import copy_hashed, explain, publish_file, temp_name

if TYPE_CHECKING:
    from heygemd.cluster.nodes import Node

EXCHANGE = ".heygemd-exchange"
"""Folder of the share. All in it is ours, and may be removed while nothing renders."""
_WINDOW = 4
_KEEP_SECONDS = 3600.0

OnEvent = Callable[[str, dict[str, Any]], None]


class Transfer:
    """See the module. From one event loop."""

    def __init__(self, chunk_bytes: int, share: Path | None, share_on_nodes: str) -> None:
        self._chunk_bytes = chunk_bytes
        self._here = None if share is None else share / EXCHANGE
        self._there = None if share is None else Path(share_on_nodes or share) / EXCHANGE
        self._publishing: dict[str, asyncio.Lock] = {}
        if self._here is not None:
            _sweep(self._here, 0.0)  # nothing renders yet

    async def bring(self, cargo: Cargo, node: Node, on_event: OnEvent) -> str:
        """All files of the item to the node; by which way, "" where all were there. Raises NodeLostError, OSError."""
        lacking: list[str] = await node.agent.missing.remote([asdict(blob) for blob in cargo.blobs])
        way = ""
        for blob in {b.sha256: b for b in cargo.blobs if b.sha256 in lacking}.values():
            source = Path(cargo.sources[blob.sha256])
            way = "ray"
            if node.sees_share and await self._over_share(blob, source, node, on_event):
                way = "share"
            else:
                await self._over_ray(blob, source, node)
        return way

    async def fetch(self, file: dict[str, Any], node: Node, target: Path, on_event: OnEvent) -> str:
        """A finished segment to its final name here; by which way. Raises NodeLostError, OSError."""
        temp = await asyncio.to_thread(temp_for, target)
        way = "ray"
        try:
            if node.sees_share and await self._from_share(file, node, temp, on_event):
                way = "share"
            else:
                await self._from_ray(file, node, temp)
            await asyncio.to_thread(publish_file, temp, target, replace=True)
        finally:
            await asyncio.to_thread(temp.unlink, missing_ok=True)
            node.agent.drop.remote(file["name"])
        return way

    # ---- over the share ----

    async def _over_share(self, blob: Blob, source: Path, node: Node, on_event: OnEvent) -> bool:
        assert self._here is not None and self._there is not None  # noqa: S101 - the node has seen the share
        try:
            async with self._publishing.setdefault(blob.sha256, asyncio.Lock()):
                await asyncio.to_thread(_offer, source, self._here / blob.sha256, blob)
            await node.agent.take.remote(asdict(blob), str(self._there / blob.sha256))
        except (OSError, HeygemdError, ray.exceptions.RayTaskError) as error:
            _lose_share(node, error, on_event)
            return False
        return True

    async def _from_share(self, file: dict[str, Any], node: Node, temp: Path, on_event: OnEvent) -> bool:
        assert self._here is not None and self._there is not None  # noqa: S101 - the node has seen the share
        passing = self._here / file["name"]
        try:
            await node.agent.leave.remote(file["name"], str(self._there / file["name"]))
            digest = await asyncio.to_thread(_copy, passing, temp)
            receive(temp, digest, file["sha256"])
        except (OSError, HeygemdError, ray.exceptions.RayTaskError) as error:
            await asyncio.to_thread(temp.unlink, missing_ok=True)
            _lose_share(node, error, on_event)
            return False
        finally:
            await asyncio.to_thread(_forget, passing)
        return True

    # ---- over Ray ----

    async def _over_ray(self, blob: Blob, source: Path, node: Node) -> None:
        transfer = f"{blob.sha256}-{os.urandom(4).hex()}"
        on_way: set[asyncio.Future[Any]] = set()
        for offset in range(0, blob.size_bytes, self._chunk_bytes):
            piece = await asyncio.to_thread(_piece, source, offset, self._chunk_bytes)
            on_way.add(asyncio.ensure_future(_value(node.agent.write.remote(transfer, offset, piece))))
            while len(on_way) >= _WINDOW:
                on_way = await _some(on_way)
        while on_way:
            on_way = await _some(on_way)
        await node.agent.written.remote(transfer, asdict(blob))

    async def _from_ray(self, file: dict[str, Any], node: Node, temp: Path) -> None:
        digest = hashlib.sha256()
        offsets = range(0, file["size_bytes"], self._chunk_bytes)
        asked: list[Any] = []
        with temp.open("xb") as out:
            for number in range(len(offsets)):
                while len(asked) < min(number + _WINDOW, len(offsets)):
                    asked.append(node.agent.read.remote(file["name"], offsets[len(asked)], self._chunk_bytes))
                data = await asked[number]
                asked[number] = None  # the object store keeps a piece as long as somebody holds its reference
                digest.update(data)
                await asyncio.to_thread(out.write, data)
        receive(temp, digest.hexdigest(), file["sha256"])


def _lose_share(node: Node, error: Exception, on_event: OnEvent) -> None:
    node.sees_share = False  # until the next probe finds it again
    cause = getattr(error, "cause", None) or error
    text = explain(cause, "the share").message if isinstance(cause, OSError) else str(cause)
    on_event("daemon.degraded", {"reason": f"node {node.name}: files go over Ray for now: {text}"})


def _offer(source: Path, target: Path, blob: Blob) -> None:
    """The file in the exchange, whole. Raises OSError, and NodeLostError where the file here is another one now."""
    if target.exists() and target.stat().st_size == blob.size_bytes:
        os.utime(target)
        return
    _sweep(target.parent, _KEEP_SECONDS)
    temp = temp_name(target)
    digest = _copy(source, temp)
    if digest != blob.sha256:
        temp.unlink()
        raise NodeLostError(f"{blob.name} changed while it was sent")
    publish_file(temp, target, replace=True)


def _sweep(folder: Path, keep_seconds: float) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and time.time() - path.stat().st_mtime >= keep_seconds:
            path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> str:
    with source.open("rb") as file:
        return copy_hashed(file, target)


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the share has gone; the next start sweeps


def _piece(source: Path, offset: int, count: int) -> bytes:
    with source.open("rb") as file:
        file.seek(offset)
        return file.read(count)


async def _value(reference: Any) -> Any:
    return await reference


async def _some(on_way: set[asyncio.Future[Any]]) -> set[asyncio.Future[Any]]:
    done, rest = await asyncio.wait(on_way, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest
