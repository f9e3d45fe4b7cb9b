"""The HTML: the page itself, results behind a link, and refusals that a person reads."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse

import heygemd
from heygemd.web.delivery import HeldFileResponse, open_held
from heygemd.web.guard import local_path
from heygemd.web.identity import COOKIE, User
from heygemd.web.refusal import Refused
from heygemd.web.site import Site, language_of, root_of, site_of
from heygemd.web.telling import all_in_words
from heygemd.web.texts import COOKIE as LANGUAGE_COOKIE
from heygemd.web.texts import LANGUAGES, say, texts

_YEAR_SECONDS = 365 * 86400
_SAID_HERE = ("error.", "todo.", "operators.")
"""Beginnings of sentences that no script of people's page says."""

router = APIRouter()


@cache
def _templates() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)


def render(request: HTTPConnection, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page in the reader's language. `root` stands before every address in it."""
    language = language_of(request)
    sentences = {key: text for key, text in texts(language).items() if not key.startswith(_SAID_HERE)}
    body = (
        _templates()
        .get_template(template)
        .render(
            language=language,
            other_language=next(tag for tag in LANGUAGES if tag != language),
            root=root_of(request),
            version=heygemd.__version__,
            t=lambda key, **more: say(language, key, **more),
            # In a script element of type JSON: nothing in it may end the element.
            texts_json=Markup(json.dumps(sentences, ensure_ascii=False).replace("<", "\\u003c")),  # noqa: S704
            **values,
        )
    )
    return HTMLResponse(body, status, headers={"Content-Language": language, "Vary": "Accept-Language, Cookie"})


@router.get("/")
def home(request: Request) -> Response:
    """The page. A guest's session begins here."""
    site = site_of(request)
    user = request.scope["state"]["user"]
    cookie = None
    if not isinstance(user, User):
        cookie, user = site.identity.new_session()
    response = render(request, "page.html", user=user)
    if cookie is not None:
        _set_cookie(site, request, response, COOKIE, cookie, http_only=True)
    return response


@router.get("/language/{language}")
def language(request: Request, language: str) -> Response:
    """Set the language, then back to the page."""
    response = RedirectResponse(f"{root_of(request)}/", 303)
    if language in LANGUAGES:
        _set_cookie(site_of(request), request, response, LANGUAGE_COOKIE, language, http_only=False)
    return response


def _set_cookie(
    site: Site, request: HTTPConnection, response: Response, name: str, value: str, *, http_only: bool
) -> None:
    scheme = request.url.scheme
    if site.identity.believed(request):
        scheme = request.headers.get("x-forwarded-proto", scheme)
    response.set_cookie(
        name,
        value,
        max_age=_YEAR_SECONDS,
        path=root_of(request) or "/",
        secure=scheme == "https",
        httponly=http_only,
        samesite="lax",
    )


@router.get("/healthz")
def health() -> dict[str, str]:
    """For a proxy or a monitor: the page answers."""
    return {"status": "ok"}


# ------------------------------------------------------------------------------------------------ links


def _linked(site: Site, token: str) -> dict[str, Any]:
    """What a link is for. Raises Refused (404, 410)."""
    values = site.links.unpack(token)
    if values is None:
        raise Refused(404, "no_link")
    if values["e"] < time.time():
        raise Refused(410, "link_over")
    receipt = site.jobs.receipt(values["j"])
    if receipt is None or receipt.get("job_id") != values["i"]:
        raise Refused(410, "link_over")
    return values


@router.get("/s/{token}")
def shared(request: Request, token: str) -> Response:
    values = _linked(site_of(request), token)
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(values["e"]))
    return render(request, "shared.html", title=values["t"], token=token, until=until)


@router.get("/s/{token}/video")
def shared_video(request: Request, token: str, download: bool = False) -> Response:
    site = site_of(request)
    values = _linked(site, token)
    root, path = site.jobs.result(values["j"])
    name = values["t"].replace("/", "_") + Path(path).suffix
    return HeldFileResponse(open_held(root, path), name, download=download)


# ------------------------------------------------------------------------------------------------ refusals


def refuse(request: HTTPConnection, refusal: Refused) -> Response:
    """A refusal as JSON for scripts, as a page for people who followed an address."""
    language = language_of(request)
    message = say(language, f"refused.{refusal.key}", **all_in_words(language, refusal.values))
    if request.scope["method"] == "GET" and "text/html" in request.headers.get("accept", ""):
        response: Response = render(request, "message.html", refusal.status, message=message)
    else:
        error = {"code": refusal.key, "message": message, "values": refusal.values}
        response = JSONResponse({"error": error}, refusal.status)
    if local_path(request.scope).startswith("/api/uploads"):
        response.headers["Tus-Resumable"] = "1.0.0"
    response.headers.update(refusal.headers)
    return response
