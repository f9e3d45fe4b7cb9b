"""What the page's scripts ask: JSON in, JSON out, bytes of files. Every route sees its user's own things only."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, StreamingResponse

from heygemd.core.errors import HeygemdError, UsageError
from heygemd.core.options import QUALITY_PRESETS
from heygemd.engines.base import engine_names
from heygemd.files import write_atomic
from heygemd.ops.logs import log_event
from heygemd.spool.control import send, wait_answer
from heygemd.web.delivery import HeldFileResponse, open_held, zipped
from heygemd.web.identity import User
from heygemd.web.mine import SUBMITTED, Mine
from heygemd.web.orders import Order, Ready, check_options
from heygemd.web.refusal import Refused
from heygemd.web.site import Site, language_of, root_of, site_of, user_of
from heygemd.web.telling import told
from heygemd.web.uploads import ACCEPTED, Upload

ANSWER_SECONDS = 5.0

Asking = Annotated[User, Depends(user_of)]
Here = Annotated[Site, Depends(site_of)]
Language = Annotated[str, Depends(language_of)]
router = APIRouter(prefix="/api")


# ------------------------------------------------------------------------------------------------ oneself


@router.get("/me")
def me(user: Asking, site: Here) -> dict[str, Any]:
    """Who one is and what may be asked for."""
    web, limits = site.settings.web, site.settings.limits
    return {
        "name": user.name,
        "guest": user.guest,
        "admin": user.admin,
        "kinds": ACCEPTED,
        "engines": ["auto", *engine_names()],
        "qualities": [*QUALITY_PRESETS, "lossless"],
        "estimates": site.estimator.offered,
        "consent_demanded": site.orders.consent_demanded(user),
        "limits": {
            "file_bytes": site.uploads.max_bytes,
            "chunk_bytes": web.chunk_bytes,
            "text_characters": limits.max_text_characters,
            "batch_items": min(limits.max_batch_items, web.max_user_jobs),
            "upload_days": web.upload_days,
        },
    }


# ------------------------------------------------------------------------------------------------ files


def _public_upload(site: Site, upload: Upload, language: str) -> dict[str, Any]:
    look = upload.look()
    if look is not None and not look.get("ok"):
        look = {"ok": False, "error": _told_of(site, upload, look.get("error") or {}, language)}
    return {
        "id": upload.id,
        "name": upload.name,
        "kind": upload.kind,
        "size": upload.size,
        "offset": upload.offset,
        "whole": upload.whole,
        "look": look,
    }


def _told_of(site: Site, upload: Upload | None, error: dict[str, Any], language: str) -> dict[str, str]:
    """An error with a file of the user's, under the user's name for it."""
    message = str(error.get("message") or "")
    name = None if upload is None else upload.name
    if upload is not None:
        message = message.replace(upload.media.name, upload.name)
    words = told(language, error | {"message": message}, {"file": name, "video": name})
    return {key: site.discretion.text(text) for key, text in words.items()}


@router.get("/uploads")
async def list_uploads(user: Asking, site: Here, language: Language) -> list[dict[str, Any]]:
    uploads = await to_thread.run_sync(site.uploads.all_of, user.folder)
    return [await _seen(site, upload, language) for upload in uploads]


@router.get("/uploads/{upload_id}/info")
async def upload_info(upload_id: str, user: Asking, site: Here, language: Language) -> dict[str, Any]:
    return await _seen(site, await to_thread.run_sync(site.uploads.get, user.folder, upload_id), language)


async def _seen(site: Site, upload: Upload, language: str) -> dict[str, Any]:
    """Tell of an upload; where nobody has looked into it yet (a restart came between), somebody does now."""
    public = await to_thread.run_sync(_public_upload, site, upload, language)
    if public["whole"] and public["look"] is None:
        site.looker.look(upload)
    return public


@router.get("/uploads/{upload_id}/content")
def upload_content(upload_id: str, user: Asking, site: Here) -> Response:
    upload = site.uploads.whole(user.folder, upload_id)
    return HeldFileResponse(open_held(upload.folder, upload.media.name), upload.name, download=False)


@router.get("/uploads/{upload_id}/poster")
def upload_poster(upload_id: str, user: Asking, site: Here) -> Response:
    upload = site.uploads.get(user.folder, upload_id)
    return HeldFileResponse(open_held(upload.folder, upload.poster.name), upload.poster.name, download=False)


# ------------------------------------------------------------------------------------------------ jobs


@router.post("/jobs", status_code=201)
def order(wanted: Order, user: Asking, site: Here) -> dict[str, Any]:
    """Start a job, or a batch where there are several pairs."""
    placed = site.orders.place(user, wanted, active_jobs=site.jobs.active(user))
    for record in placed:
        log_event(site.log, "web.submitted", job=record.job, who=user.name or user.folder)
    return {"jobs": [record.job for record in placed], "batch": placed[0].batch}


@router.get("/jobs")
def jobs(request: Request, user: Asking, site: Here, language: Language) -> Response:
    """All of one's jobs; 304 while nothing changed."""
    queue = site.board.queue()
    listed = [site.jobs.public(user, mine, language) for mine in site.jobs.all(user)]
    paused = None if queue["paused"] is None else "paused" if queue["asked_for"] else "trouble"
    body = {"running": queue["running"], "paused": paused, "jobs": listed}
    data = json.dumps(body, ensure_ascii=False).encode()
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/json", headers=headers)


@router.post("/jobs/{job}/cancel")
def cancel(job: str, user: Asking, site: Here) -> dict[str, Any]:
    mine = site.jobs.one(user, job)
    if mine.state == SUBMITTED and site.orders.take_back(user, mine.name):
        return {"pending": False}
    return _ask(site, "cancel", site.jobs.one(user, job))


@router.post("/jobs/{job}/retry")
def retry(job: str, user: Asking, site: Here) -> dict[str, Any]:
    return _ask(site, "retry", site.jobs.one(user, job))


def _ask(site: Site, action: Any, mine: Mine) -> dict[str, Any]:
    """Ask the daemon; `pending`: it has not answered yet and will do it later."""
    if mine.id is None:
        raise Refused(409, "not_noticed")
    try:
        request = send(site.layout.control, action, mine.id)
    except HeygemdError:
        raise Refused(503, "no_daemon") from None
    answer = wait_answer(site.layout.control, request, ANSWER_SECONDS)
    if answer is None:
        return {"pending": True}
    if not answer.ok:
        told = answer.details.get("error")
        raise HeygemdError.from_dict(told) if isinstance(told, dict) else UsageError(answer.message)
    return {"pending": False}


# ------------------------------------------------------------------------------------------------ results


@router.get("/jobs/{job}/video")
def video(job: str, user: Asking, site: Here, download: bool = False) -> Response:
    mine = site.jobs.one(user, job)
    root, path = site.jobs.result(mine.name)
    return HeldFileResponse(open_held(root, path), _file_name(mine, path), download=download)


@router.get("/jobs/{job}/sheet")
def sheet(job: str, user: Asking, site: Here) -> Response:
    mine = site.jobs.one(user, job)
    root, path = site.jobs.result(mine.name, sheet=True)
    return HeldFileResponse(open_held(root, path), _file_name(mine, path), download=False)


@router.get("/batches/{batch}/zip")
def batch_zip(batch: str, user: Asking, site: Here) -> Response:
    found = list(site.jobs.finished(user, batch))
    if not found:
        raise Refused(404, "no_result")
    record = found[0][0].record
    title = (record.batch_title if record else None) or "videos"
    files = [(_file_name(mine, path), root, path) for mine, root, path in found]
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(title + '.zip', safe='')}"}
    return StreamingResponse(zipped(files), media_type="application/zip", headers=headers)


def _file_name(mine: Mine, path: str) -> str:
    """The user's own title: the job's name on the share may have got a counter from another's."""
    return mine.title.replace("/", "_") + Path(path).suffix


@router.post("/jobs/{job}/link")
def link(job: str, request: Request, user: Asking, site: Here) -> dict[str, Any]:
    """A link that shows the result to whoever has it, until it expires."""
    mine = site.jobs.one(user, job)
    site.jobs.result(mine.name)
    receipt = site.jobs.receipt(mine.name) or {}
    expires = int(time.time() + site.settings.web.link_hours * 3600)
    values = {"j": mine.name, "i": receipt.get("job_id"), "t": mine.title[:100], "e": expires}
    return {"path": f"{root_of(request)}/s/{site.links.pack(values)}", "expires_seconds": expires}


# ------------------------------------------------------------------------------------------------ estimates


class Question(BaseModel):
    """What an estimate is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    video: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    audio: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    text: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


@router.post("/estimates", status_code=202)
async def ask_estimate(question: Question, user: Asking, site: Here) -> dict[str, Any]:
    if not site.estimator.offered:
        raise Refused(404, "no_estimates")
    pairs = [{"video": question.video, "audio": question.audio}]
    wanted = Order.model_validate({"pairs": pairs, "text": question.text})
    (ready,) = await to_thread.run_sync(site.orders.check, user, wanted)
    options = check_options(question.options).model_dump(exclude_defaults=True)
    speech = await to_thread.run_sync(_speech_file, ready)
    arguments = [part for key, value in options.items() for part in ("--option", f"{key}={value}")]
    return {"id": site.estimator.ask(user.folder, [*arguments, "--", str(ready.video.media), str(speech)])}


def _speech_file(ready: Ready) -> Path:
    """The recording; a text goes into a file beside the video's upload, and away with it."""
    if ready.audio is not None:
        return ready.audio.media
    text = (ready.text or "").encode()
    path = ready.video.folder / f"speech-{hashlib.sha256(text).hexdigest()[:16]}.txt"
    write_atomic(path, text, durable=False)
    return path


@router.get("/estimates/{key}")
async def estimate(key: str, user: Asking, site: Here, language: Language) -> JSONResponse:
    answer = site.estimator.answer(user.folder, key)
    if answer is None:
        raise Refused(404, "no_estimates")
    if "error" in answer:
        # `plan` was given the upload itself: the folder that it lies in is the upload's id.
        folder = Path(str(answer["error"].get("path") or "")).parent.name
        upload = await to_thread.run_sync(site.uploads.find, user.folder, folder)
        answer |= {"error": _told_of(site, upload, answer["error"], language)}
    return JSONResponse(site.discretion.tree(answer))
