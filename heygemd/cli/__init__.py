"""The command line. One module a group of commands; each adds itself to `app`, heavy imports wait for their command.

Exit codes: 0 done, 1 failed, 2 bad input or usage, 75 try again later, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from heygemd import __version__
from heygemd.cli import (
    calibrate,
    checkpoints,
    clean,
    demo,
    doctor,
    foreground,
    inbox,
    node,
    queue,
    serve,
    simulate,
    web,
    why,
)
from heygemd.cli.common import Globals, print_error, stdout
from heygemd.core.errors import HeygemdError, UsageError

_GLOBAL_VALUES = ("--config", "--root", "--state")
_GLOBAL_FLAGS = ("--debug",)

app = typer.Typer(
    name="heygemd",
    help="Drop a video and a recording, get the person speaking it.",
    epilog="--config, --root, --state and --debug may stand anywhere. Every error has a code, explained in "
    "docs/troubleshooting.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _group in (serve, foreground, inbox, queue, why, simulate, calibrate, node, clean, checkpoints, doctor, demo, web):
    _group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"heygemd {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Configuration; default /etc/heygemd/heygemd.toml.")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The share.")] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="Journal and work files, on a local disk.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the code an error comes from.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    context.obj = Globals(config, root, state, debug)


def hoist(arguments: list[str]) -> list[str]:
    """The global options moved to the front, so that `heygemd serve --root DIR` means what people mean by it.

    Raises UsageError where one of them lacks its value.
    """
    front: list[str] = []
    rest: list[str] = []
    todo = list(arguments)
    while todo:
        word = todo.pop(0)
        if word == "--":
            rest += [word, *todo]
            break
        if word in _GLOBAL_FLAGS or word.startswith(tuple(name + "=" for name in _GLOBAL_VALUES)):
            front.append(word)
        elif word in _GLOBAL_VALUES:
            if not todo:
                raise UsageError(f"{word} needs a value", remedy="See `heygemd --help`.")
            front += [word, todo.pop(0)]
        else:
            rest.append(word)
    return front + rest


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    before_dashes = given[: given.index("--")] if "--" in given else given
    as_json, debug = "--json" in before_dashes, "--debug" in before_dashes
    if not as_json:
        return _main(given, as_json, debug)
    stdout.set_aside()
    try:
        return _main(given, as_json, debug)
    finally:
        stdout.put_back()


def _main(given: list[str], as_json: bool, debug: bool) -> int:
    try:
        result: Any = app(args=hoist(given), prog_name="heygemd", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except HeygemdError as error:
        return print_error(error, as_json=as_json, debug=debug)
    except TyperException as error:
        return print_error(_usage(error), as_json=as_json, debug=debug)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # Whoever read our output has gone (`heygemd status | head`). Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        from heygemd.files import explain

        return print_error(explain(error, str(error.filename or "the system")), as_json=as_json, debug=debug)
    except Exception as error:  # noqa: BLE001 - the outermost edge: people get a sentence, and the traceback on demand
        bug = HeygemdError(
            f"{type(error).__name__}: {error}",
            remedy="This is a mistake in heygemd. Run it again with --debug and send what it prints.",
        )
        bug.__cause__ = error
        return print_error(bug, as_json=as_json, debug=debug)


def _usage(error: TyperException) -> HeygemdError:
    """typer's complaint as one of ours, with a suggestion where something is alike."""
    message = error.message.rstrip(".") or error.format_message().rstrip(".")
    near = getattr(error, "possibilities", None)
    if near:
        message += f"; did you mean {near[0]}?"  # the first is the nearest
    param = getattr(error, "param", None)
    if error.message and param is not None:  # a value that cannot be: whose?
        message = message.replace("Input should be", "must be").partition(", unable to parse")[0]
        message = f"{param.opts[-1] if param.opts[-1].startswith('-') else param.human_readable_name}: {message}"
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "heygemd")
    if not message:
        return UsageError("the command line is incomplete", remedy=f"See `{path} --help`.")
    return UsageError(message[0].lower() + message[1:], remedy=f"See `{path} --help`.")


def _interrupted() -> int:
    with contextlib.suppress(OSError):
        sys.stderr.write("interrupted\n")
    return 128 + signal.SIGINT


def run() -> None:
    """`python -m heygemd.cli`."""
    sys.exit(main())
