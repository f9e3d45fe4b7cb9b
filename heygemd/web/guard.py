"""Around every request: who asks, whether another site sent it, and the headers that keep browsers careful."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heygemd.web.identity import Identity
from heygemd.web.refusal import Refused

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
GRADIO_POLICY = (  # its page has scripts and styles in line, and builds functions from text; all of it from here
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
GRADIO_PATH = "/operators"

# Gradio's doors to files and to other hosts. The operators' page uses none of them.
_GRADIO_SHUT = ("upload", "file", "proxy", "stream", "custom_component", "component_server", "deep_link", "vibe")


class Guard:
    """ASGI middleware. Puts the `User` (or None) at `scope["state"]["user"]`, or answers by `refuse`.

    `root_path`: where a proxy shows us; it may leave that in the addresses or take it away. `open_paths`: beginnings
    of paths that need nobody's name.
    """

    def __init__(
        self,
        app: ASGIApp,
        identity: Identity,
        root_path: str,
        open_paths: Iterable[str],
        refuse: Callable[[HTTPConnection, Refused], Response],
    ) -> None:
        self._app = app
        self._identity = identity
        self._root = root_path
        self._open = tuple(open_paths)
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # the page has none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = self._below_root(str(scope["path"]))
        scope = {**scope, "root_path": self._root, "path": self._root + path}
        request = HTTPConnection(scope)
        gradio = path == GRADIO_PATH or path.startswith(GRADIO_PATH + "/")
        state = scope.setdefault("state", {})
        state["user"] = None
        answer = self._app
        try:
            if scope["method"] not in _SAFE_METHODS:
                self._same_origin(request)
            if gradio and _shut(path):
                raise Refused(404, "nothing_here")
            if not path.startswith(self._open):
                user = state["user"] = await self._identity.who(request)
                if gradio and (user is None or not user.admin):
                    raise Refused(403, "operators_only")
        except Refused as refusal:
            answer = self._refuse(request, refusal)

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                _careful(MutableHeaders(scope=message), GRADIO_POLICY if gradio else PAGE_POLICY)
            await send(message)

        await answer(scope, receive, careful)

    def _below_root(self, path: str) -> str:
        root = self._root
        return path[len(root) :] or "/" if root and (path == root or path.startswith(root + "/")) else path

    def _same_origin(self, request: HTTPConnection) -> None:
        """Refuse what a page of another site made the browser send. Programs send neither header, and no cookie."""
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            raise Refused(403, "other_site")
        origin = request.headers.get("origin")
        if origin is None or site == "same-origin":
            return
        hosts = {request.headers.get("host", "").lower()}
        if self._identity.believed(request):
            hosts |= {host.strip().lower() for host in request.headers.get("x-forwarded-host", "").split(",")}
        if urlsplit(origin).netloc.lower() not in hosts - {""}:
            raise Refused(403, "other_site")


def local_path(scope: Scope) -> str:
    """The path below root_path, of a scope that has been through the guard."""
    return str(scope["path"])[len(str(scope["root_path"])) :]


def _shut(path: str) -> bool:
    _, found, rest = path.partition("/gradio_api/")
    return bool(found) and rest.startswith(_GRADIO_SHUT)


def _careful(headers: MutableHeaders, policy: str) -> None:
    headers.setdefault("Content-Security-Policy", policy)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(self)"
    headers.setdefault("Cache-Control", "no-store")
