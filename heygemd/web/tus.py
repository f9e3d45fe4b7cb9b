"""Resumable uploads: the server's half of the tus protocol 1.0.0 (https://tus.io/protocols/resumable-upload) with its
extensions creation, expiration and termination.

The offset is the length of the file on disk and nothing else, so no crash can make the two differ. One request writes
to an upload at a time: a client that comes back after its connection broke takes over from the request that still
waits for the lost one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from heygemd.core.settings import WebSettings
from heygemd.files import explained
from heygemd.web.identity import User
from heygemd.web.refusal import Refused
from heygemd.web.uploads import Upload, Uploads

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination"
MEDIA_TYPE = "application/offset+octet-stream"
_WRITE_BYTES = 1 << 20
_SILENCE_SECONDS = 60.0
_TAKEOVER_SECONDS = 5.0
_MAX_METADATA = 4096


class Writers:
    """Which request writes to which upload."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[int]] = {}

    async def run(self, upload_id: str, task: asyncio.Task[int]) -> int:
        """The task's result. Raises Refused (423) when a newer request took over."""
        self._tasks[upload_id] = task
        try:
            return await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
            raise Refused(423, "taken_over") from None
        finally:
            if self._tasks.get(upload_id) is task:
                del self._tasks[upload_id]

    async def stop(self, upload_id: str) -> None:
        """End a request that still writes; what has come so far is on disk then. Raises Refused (423)."""
        task = self._tasks.get(upload_id)
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Refused, ClientDisconnect):
            await asyncio.wait({task}, timeout=_TAKEOVER_SECONDS)
        if not task.done():
            raise Refused(423, "busy")


def tus_router(
    uploads: Uploads,
    settings: WebSettings,
    user_of: Callable[[Request], User],
    on_whole: Callable[[User, Upload], None],
) -> APIRouter:
    """Routes below /api/uploads. `on_whole` is called in the loop when the last byte of a file has come."""
    router = APIRouter(prefix="/api/uploads")
    writers = Writers()

    @router.options("")
    @router.options("/{upload_id}")
    async def options() -> Response:
        return _answer(
            204,
            **{"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Max-Size": str(uploads.max_bytes)},
        )

    @router.post("")
    async def create(request: Request) -> Response:
        _check_version(request)
        user = user_of(request)
        size = _whole_number(request, "upload-length")
        name = _metadata(request.headers.get("upload-metadata", "")).get("filename", "")
        upload = await to_thread.run_sync(uploads.create, user.folder, name, size)
        root = str(request.scope.get("root_path", ""))
        return _answer(
            201, **{"Location": f"{root}/api/uploads/{upload.id}", "Upload-Offset": "0"} | _expires(upload, settings)
        )

    @router.head("/{upload_id}")
    async def head(request: Request, upload_id: str) -> Response:
        _check_version(request)
        upload = await to_thread.run_sync(uploads.get, user_of(request).folder, upload_id)
        await writers.stop(upload.id)
        offset = await to_thread.run_sync(lambda: upload.offset)
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(upload.size)}
        return _answer(200, **headers | _expires(upload, settings))

    @router.patch("/{upload_id}")
    async def patch(request: Request, upload_id: str) -> Response:
        _check_version(request)
        user = user_of(request)
        if request.headers.get("content-type") != MEDIA_TYPE:
            raise Refused(415, "wrong_type")
        start = _whole_number(request, "upload-offset")
        upload = await to_thread.run_sync(uploads.get, user.folder, upload_id)
        await writers.stop(upload.id)
        offset = await to_thread.run_sync(lambda: upload.offset)
        if start != offset or (upload.whole and start == upload.size and await _has_body(request)):
            raise Refused(409, "other_offset")
        if not upload.whole:
            task = asyncio.ensure_future(_receive(request, upload, start))
            try:
                offset = await writers.run(upload.id, task)
            except ClientDisconnect:
                raise Refused(400, "broken_off") from None  # nobody reads it; what has come is kept
            await to_thread.run_sync(uploads.use, upload)
            if offset == upload.size:
                await to_thread.run_sync(uploads.finish, upload)
                on_whole(user, upload)
        return _answer(204, **{"Upload-Offset": str(offset)} | _expires(upload, settings))

    @router.delete("/{upload_id}")
    async def terminate(request: Request, upload_id: str) -> Response:
        upload = await to_thread.run_sync(uploads.get, user_of(request).folder, upload_id)
        await writers.stop(upload.id)
        await to_thread.run_sync(uploads.remove, upload)
        return _answer(204)

    return router


async def _receive(request: Request, upload: Upload, start: int) -> int:
    """Append what the request brings; the new offset. What has come before a break is kept."""
    with explained("the uploads"):
        offset = start
        waiting = bytearray()
        try:
            async for chunk in _chunks(request):
                if offset + len(waiting) + len(chunk) > upload.size:
                    raise Refused(413, "more_than_told")
                waiting += chunk
                if len(waiting) >= _WRITE_BYTES:
                    data, waiting = bytes(waiting), bytearray()
                    begin, offset = offset, offset + len(data)
                    await _write_to_the_end(upload.part, data, begin)
        finally:
            _write(upload.part, bytes(waiting), offset)  # below a MiB; no await here: the task may be ending
        return offset + len(waiting)


async def _write_to_the_end(path: Path, data: bytes, offset: int) -> None:
    """In a thread, and a task that is ended meanwhile waits for it: a thread left alone would still write when the next
    request has been told how much is there."""
    writing = asyncio.ensure_future(to_thread.run_sync(_write, path, data, offset))
    ended = False
    while not writing.done():
        try:
            await asyncio.wait({writing})
        except asyncio.CancelledError:
            ended = True
    writing.result()
    if ended:
        raise asyncio.CancelledError


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body, until it ends or breaks off."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refused(408, "silence") from None
        if chunk:
            yield chunk


def _write(path: Path, data: bytes, offset: int) -> None:
    if not data:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count
    finally:
        os.close(fd)


async def _has_body(request: Request) -> bool:
    async for chunk in request.stream():
        if chunk:
            return True
    return False


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        refusal = Refused(412, "tus_version")
        refusal.headers["Tus-Version"] = VERSION
        raise refusal


def _whole_number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refused(400, "bad_header", header=header)
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """`key base64, key base64`. Raises Refused (400)."""
    found: dict[str, str] = {}
    if len(text) > _MAX_METADATA:
        raise Refused(400, "bad_header", header="upload-metadata")
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Refused(400, "bad_header", header="upload-metadata") from None
    return found


def _expires(upload: Upload, settings: WebSettings) -> dict[str, str]:
    return {"Upload-Expires": formatdate(upload.used_seconds + settings.upload_days * 86400, usegmt=True)}


def _answer(status: int, **headers: str) -> Response:
    return Response(status_code=status, headers={"Tus-Resumable": VERSION, "Cache-Control": "no-store", **headers})
