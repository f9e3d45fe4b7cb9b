"""`node`: this machine renders for a cluster."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from heygemd.cli.common import globals_of, say


def register(app: typer.Typer) -> None:
    app.command("node")(node)


def node(
    context: typer.Context,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="Of the cluster's head.", show_default=False)
    ] = None,
    head: Annotated[bool, typer.Option("--head", help="Be the head instead. It renders nothing itself.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Only print the command.")] = False,
) -> None:
    """Join a Ray cluster with this machine's GPUs, or its RAM, and stay in the foreground."""
    from heygemd.cluster.node import become, start_command

    command = start_command(globals_of(context).settings.scheduler, address=address, head=head)
    if show:
        say(shlex.join(command))
        return
    become(command)
