"""`web`: the page for people who will never mount a share."""

from __future__ import annotations

import getpass
import importlib.util
import sys
from typing import Annotated

import typer

from heygemd.cli.common import globals_of, say
from heygemd.core.errors import ConfigError, HeygemdError, UsageError


def register(app: typer.Typer) -> None:
    app.command()(web)


def web(
    context: typer.Context,
    host: Annotated[str | None, typer.Option("--host", help="Listen on this address; default web.host.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Listen on this port; default web.port (7860).")
    ] = None,
    add_user: Annotated[
        str | None,
        typer.Option("--add-user", metavar="NAME", help="Add a user or give a new password, for web.auth = basic."),
    ] = None,
) -> int:
    """Serve the web page, until Ctrl-C. The daemon (`heygemd serve`) does the work; it may run elsewhere."""
    options = globals_of(context)
    _require_gradio()
    settings = options.as_service()
    if add_user is not None:
        from heygemd.web.accounts import add_user as add
        from heygemd.web.secret import private_folder
        from heygemd.web.site import users_file

        private_folder(settings.state)
        new = add(users_file(settings), add_user, _password())
        say(f"{add_user}: {'added' if new else 'has a new password'}")
        return 0
    from heygemd.ops import logs
    from heygemd.web.serve import serve

    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"web": settings.web.model_copy(update=given)})
    logs.configure(settings.log.model_copy(update={"file": ""}))  # the file is the daemon's: two must not rotate it
    try:
        return serve(settings, options.arguments())
    except HeygemdError as error:
        if not sys.stderr.isatty():  # under the service manager the last line is JSON too
            logs.log_event(logs.get_logger(), "web.failed", error=error)
            return error.exit_code
        raise


def _require_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError(
            "the web page needs the extra `web`, which is not installed",
            remedy=f"Run: {sys.executable} -m pip install 'heygemd[web]'; for the service: ./install.sh --with-web",
        )


def _password() -> str:
    """From the terminal, twice; or one line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        raise UsageError("the two passwords differ", remedy="Try again.")
    return first
