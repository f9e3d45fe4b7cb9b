"""Who asks: a guest with a session of its own, a user with a password, or whom the proxy names."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from heygemd.core.settings import WebSettings
from heygemd.web.accounts import Accounts, TooManyTriesError
from heygemd.web.refusal import Refused
from heygemd.web.secret import Signer

COOKIE = "heygemd_session"


@dataclass(frozen=True)
class User:
    """`folder`: the one path component that keeps this user's files and jobs apart from all others'."""

    name: str
    folder: str
    admin: bool = False
    guest: bool = False


class Identity:
    """Tells who sends a request. `accounts`: for basic only."""

    def __init__(self, settings: WebSettings, key: bytes, accounts: Accounts | None) -> None:
        self._settings = settings
        self._accounts = accounts
        self._sessions = Signer(key, "session")

    async def who(self, request: HTTPConnection) -> User | None:
        """None for a guest without a session yet. Raises Refused (401, 403, 429)."""
        if self._settings.auth == "basic":
            return await self._basic(request)
        if self._settings.auth == "proxy":
            return self._proxied(request)
        value = self._sessions.check(request.cookies.get(COOKIE, ""))
        return None if value is None else _guest(value)

    def new_session(self) -> tuple[str, User]:
        """The cookie's value and whom it names."""
        value = secrets.token_urlsafe(18)
        return self._sessions.sign(value), _guest(value)

    def believed(self, request: HTTPConnection) -> bool:
        """Whether the other side is one of our proxies, whose X-Forwarded-* headers hold."""
        return request.client is not None and request.client.host in self._settings.proxies

    async def _basic(self, request: HTTPConnection) -> User:
        if self._accounts is None:
            raise RuntimeError("basic needs accounts")
        scheme, _, data = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, colon, password = base64.b64decode(data, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                name = colon = password = ""
            if colon:
                peer = request.client.host if request.client else ""
                try:
                    if await run_in_threadpool(self._accounts.right, name, password, peer):
                        return self._named(name)
                except TooManyTriesError:
                    raise Refused(429, "too_many_tries") from None
        refusal = Refused(401, "login")
        refusal.headers["WWW-Authenticate"] = 'Basic realm="heygemd", charset="UTF-8"'
        raise refusal

    def _proxied(self, request: HTTPConnection) -> User:
        names = request.headers.getlist(self._settings.user_header)
        if not self.believed(request) or len(names) != 1 or not names[0].strip():
            raise Refused(403, "no_proxy")
        return self._named(names[0].strip())

    def _named(self, name: str) -> User:
        slug = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")[:40] or "user"
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
        return User(name, f"{slug}-{digest}", admin=name in self._settings.admins)


def _guest(session: str) -> User:
    digest = hashlib.sha256(session.encode()).hexdigest()
    return User("", f"guest-{digest[:16]}", guest=True)
