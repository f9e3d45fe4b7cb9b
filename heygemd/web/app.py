"""The ASGI application: routes, what stands around them, and the clean-up of old uploads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from heygemd.core.errors import HeygemdError
from heygemd.ops.logs import log_event
from heygemd.web import api, pages
from heygemd.web.guard import Guard
from heygemd.web.identity import User
from heygemd.web.refusal import Refused, status_of
from heygemd.web.site import Site, language_of, user_of
from heygemd.web.telling import told
from heygemd.web.tus import tus_router
from heygemd.web.uploads import Upload

_SWEEP_SECONDS = 1800.0
_STATIC = Path(__file__).parent / "static"
_OPEN = ("/healthz", "/static/", "/s/", "/language/")
"""Needs nobody's name: nothing of anybody is there, or the address itself is the key."""


class _Static(StaticFiles):
    def file_response(self, *arguments: object, **more: object) -> Response:
        response = super().file_response(*arguments, **more)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"  # asked for again each time, answered by 304
        return response


def create_app(site: Site) -> FastAPI:
    """People's page. Its middleware sees every request first, also those to what is mounted later (operators.py)."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(site))
        try:
            yield
        finally:
            sweeper.cancel()
            await asyncio.gather(sweeper, return_exceptions=True)
            await site.looker.close()
            await site.estimator.close()

    app = FastAPI(
        title="heygemd",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.site = site

    def on_whole(user: User, upload: Upload) -> None:
        log_event(site.log, "web.uploaded", path=upload.name, num_bytes=upload.size, who=user.name or user.folder)
        site.looker.look(upload)

    app.include_router(tus_router(site.uploads, site.settings.web, user_of, on_whole))
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", _Static(directory=_STATIC))
    _answer_errors(app, site)
    app.add_middleware(
        Guard,
        identity=site.identity,
        root_path=site.settings.web.root_path,
        open_paths=_OPEN,
        refuse=pages.refuse,
    )
    return app


def _answer_errors(app: FastAPI, site: Site) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refused)  # noqa: S101 - FastAPI's signature is wider than its behaviour
        return pages.refuse(request, refusal)

    @app.exception_handler(HeygemdError)
    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, HeygemdError)  # noqa: S101 - as above
        log_event(site.log, "web.refused", reason=error.message, who=_who(request), path=request.url.path)
        words = told(language_of(request), error.to_dict(), {})
        return JSONResponse({"error": site.discretion.tree(words)}, status_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, _error: Exception) -> Response:
        return pages.refuse(request, Refused(422, "bad_request"))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - as above
        key = {404: "nothing_here", 405: "wrong_method"}.get(error.status_code, "bad_request")
        return pages.refuse(request, Refused(error.status_code, key))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        log_event(site.log, "web.failed", error=error, path=request.url.path)
        return pages.refuse(request, Refused(500, "our_fault"))


def _who(request: HTTPConnection) -> str:
    user = request.scope.get("state", {}).get("user")
    return (user.name or user.folder) if isinstance(user, User) else "nobody"


async def _sweep(site: Site) -> None:
    while True:
        try:
            removed = await to_thread.run_sync(_sweep_once, site)
        except HeygemdError as error:
            log_event(site.log, "web.sweep_failed", error=error)
        else:
            if removed:
                log_event(site.log, "web.swept", count=removed)
        await asyncio.sleep(_SWEEP_SECONDS)


def _sweep_once(site: Site) -> int:
    """Old uploads, and what the page remembers of jobs that are gone."""
    count = site.uploads.sweep(time.time())
    for folder in site.records.users():
        known = {record.job for record in site.records.all_of(folder)}  # before: a job that comes meanwhile is not gone
        found = {mine.record.job for mine in site.jobs.all(User("", folder)) if mine.record}
        for job in known - found:
            site.records.remove(folder, job)
    return count
