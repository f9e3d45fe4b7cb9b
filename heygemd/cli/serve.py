"""`serve` and `check-config`."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import Globals, JsonOption, globals_of, print_json, say
from heygemd.core.errors import ConfigError, HeygemdError

if TYPE_CHECKING:
    from heygemd.config import Settings


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command("check-config")(check_config)


def serve(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Work off what lies in the inbox and exit: 0, or 1 when a job failed.")
    ] = False,
) -> int:
    """Watch the inbox and render what is dropped there."""
    options = globals_of(context)
    try:
        return _serve(options, once)
    except Exception as error:  # the process's edge: under the service manager the last line must be JSON too
        if sys.stderr.isatty():
            raise
        from heygemd.ops import logs

        logs.log_event(logs.get_logger(), "daemon.failed", error=error)
        return error.exit_code if isinstance(error, HeygemdError) else HeygemdError.exit_code


def _serve(options: Globals, once: bool) -> int:
    options.as_service()  # before the first log file
    settings = _read(options)
    from heygemd.service.pool import share_holds_threads
    from heygemd.service.serve import serve as run_daemon

    code = run_daemon(settings, once=once, reload=partial(_read, options))
    if share_holds_threads():
        os._exit(code)  # everything is closed and said; the kernel ends what a dead share holds
    return code


def _read(options: Globals) -> Settings:
    """The settings as they are now, with the log set up by them: at the start and at every reload."""
    from heygemd.ops import logs

    settings = options.read_settings()
    try:
        logs.configure(settings.log)
    except OSError as error:
        raise ConfigError(f"log.file {settings.log.file}: {error.strerror}", path=settings.log.file) from None
    return settings


def check_config(
    context: typer.Context,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Print the documented file with every default instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether the configuration is right, and what it changes."""
    from heygemd.config import config_file, document

    options = globals_of(context)
    if defaults:
        sys.stdout.write(document())
        return
    settings = options.settings
    file = config_file(options.config)
    values = settings.model_dump(mode="json")
    if as_json:
        print_json({"ok": True, "file": str(file) if file else None, "settings": values})
        return
    say(f"{file or 'no configuration file; defaults'}: good")
    for key, value in changed(values):
        say(f"  {key} = {value}")


def changed(values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Keys that differ from the default, dotted."""
    from heygemd.config import DEFAULT_ROOT, Settings

    plain = Settings(root=DEFAULT_ROOT).model_dump(mode="json")
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += [(f"{name}.{key}", v) for key, v in value.items() if v != plain[name][key]]
        elif value != plain[name]:
            found.append((name, value))
    return found
