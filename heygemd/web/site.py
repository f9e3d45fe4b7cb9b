"""Everything that the routes share, made once from the settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.requests import HTTPConnection

import heygemd
from heygemd.config import Settings
from heygemd.ops import logs
from heygemd.spool.layout import Layout
from heygemd.web.accounts import Accounts
from heygemd.web.board import Board
from heygemd.web.helpers import Estimator, Looker
from heygemd.web.identity import Identity, User
from heygemd.web.mine import MyJobs
from heygemd.web.orders import Orders
from heygemd.web.records import Records
from heygemd.web.refusal import Discretion, Refused
from heygemd.web.secret import Signer, load_key, private_folder
from heygemd.web.texts import COOKIE as LANGUAGE_COOKIE
from heygemd.web.texts import choose
from heygemd.web.uploads import Uploads


@dataclass(frozen=True)
class Site:
    settings: Settings
    layout: Layout
    identity: Identity
    discretion: Discretion
    uploads: Uploads
    records: Records
    board: Board
    jobs: MyJobs
    orders: Orders
    looker: Looker
    estimator: Estimator
    links: Signer
    log: Any

    @staticmethod
    def of(settings: Settings, arguments: Sequence[str] = ()) -> Site:
        """`arguments`: --config, --root, --state as this process got them, for its children. Raises ConfigError."""
        web = settings.web
        layout = Layout(settings.root, settings.state)
        folder = private_folder(settings.state)
        key = load_key(folder)
        accounts = None
        if web.auth == "basic":
            accounts = Accounts(users_file(settings))
            accounts.load()
        uploads = Uploads(layout, web, settings.limits, settings.service.min_free_share_bytes)
        records = Records(folder)
        board = Board(layout)
        package = Path(heygemd.__file__).parent
        discretion = Discretion([settings.root, settings.state, package, package.parent, Path(sys.prefix)])
        return Site(
            settings=settings,
            layout=layout,
            identity=Identity(web, key, accounts),
            discretion=discretion,
            uploads=uploads,
            records=records,
            board=board,
            jobs=MyJobs(layout, board, records, uploads, discretion),
            orders=Orders(
                layout, uploads, records, settings.limits, web.max_user_jobs, settings.inbox.max_manifest_bytes
            ),
            looker=Looker(settings.limits),
            estimator=Estimator((sys.executable, "-m", "heygemd.cli", *arguments), web.estimate_timeout_seconds),
            links=Signer(key, "link"),
            log=logs.get_logger(),
        )


def users_file(settings: Settings) -> Path:
    """Where names and passwords lie."""
    return Path(settings.web.users_file) if settings.web.users_file else settings.state / "web" / "users"


def user_of(request: HTTPConnection) -> User:
    """Who asks, as the guard found out. Raises Refused (401) for a guest who has not opened the page yet."""
    user = request.scope["state"]["user"]
    if not isinstance(user, User):
        raise Refused(401, "no_session")
    return user


def root_of(request: HTTPConnection) -> str:
    """What stands before every path of ours: `web.root_path`."""
    return str(request.scope.get("root_path", ""))


def language_of(request: HTTPConnection) -> str:
    return choose(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", ""))


def site_of(request: Request) -> Site:
    site: Site = request.app.state.site
    return site
