"""`heygemd web`: the page in this process until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections.abc import Sequence

import uvicorn

from heygemd.config import Settings
from heygemd.core.errors import ConfigError, ShareAwayError
from heygemd.ops import systemd
from heygemd.ops.logs import log_event
from heygemd.web.app import create_app
from heygemd.web.operators import mount_operators
from heygemd.web.site import Site

_STOP_SECONDS = 10


class _Server(uvicorn.Server):
    """Tells the service manager and the log where the page is, once it answers."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        address = sockets[0].getsockname() if sockets else ("?", 0)
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = f"http://{host}:{address[1]}{self._site.settings.web.root_path}/"
        log_event(self._site.log, "web.started", url=url)
        systemd.ready(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        systemd.stopping()
        await super().shutdown(sockets)
        log_event(self._site.log, "web.stopped")


def serve(settings: Settings, arguments: Sequence[str] = ()) -> int:
    """Answer until SIGTERM or SIGINT; the exit code.

    Raises ConfigError where the address cannot be had, ShareAwayError where there is no such share: a folder with its
    name, made here, would take what belongs on it.
    """
    with contextlib.suppress(OSError):  # one that cannot be reached comes back, and the page says so meanwhile
        if not settings.root.exists():
            raise ShareAwayError(
                f"{settings.root}: there is no such folder",
                remedy="Is the share mounted, and has a daemon run there? --root DIR names another.",
                path=str(settings.root),
            )
    site = Site.of(settings, arguments)
    web = settings.web
    listening = _listen(web.host, web.port)
    app = create_app(site)
    mount_operators(app, site)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the guard believes web.proxies and nobody else
        timeout_graceful_shutdown=_STOP_SECONDS,
        lifespan="on",
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # uvicorn stops by it, then sends it once more to whoever had it before: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    with listening:
        _Server(config, site).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"web.host {host}, web.port {port}: {error.strerror or error}",
            remedy="Is another program there already? `--port` gives another one.",
        ) from None
    return sock
