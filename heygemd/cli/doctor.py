"""`doctor`: whether this machine and this share can do the work, and what to do where they cannot."""

from __future__ import annotations

import itertools
import os
import stat
from typing import Annotated

import typer
from rich.text import Text

from heygemd.cli.common import JsonOption, console, globals_of, print_json, safe

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    context: typer.Context,
    as_json: JsonOption = False,
    without_unit: Annotated[
        bool, typer.Option("--without-unit", help="Leave out the service and its ports, as the installer does.")
    ] = False,
) -> int:
    """Test the share, the programs, the machine and the service. Exits 1 when something would make jobs fail."""
    from heygemd.cli.checks.machine import check_machine
    from heygemd.cli.checks.member import check_member, drop_as_member
    from heygemd.cli.checks.share import check_share
    from heygemd.cli.checks.signing import check_signing
    from heygemd.cli.checks.tools import check_tools
    from heygemd.cli.checks.unit import check_ports, check_units

    options = globals_of(context)
    inbox = options.settings.root / "inbox"
    tried = os.geteuid() == 0 and inbox.is_dir()
    dropped = drop_as_member(inbox) if tried and inbox.stat().st_mode & stat.S_IWGRP else None
    settings = options.as_service()
    parts = [
        check_share(settings),
        check_member(inbox, dropped, tried=tried),
        check_tools(),
        check_machine(settings),
        check_signing(settings.provenance),
    ]
    if not without_unit:
        parts += [check_units(), check_ports(settings)]
    counts = {"ok": 0, "warn": 0, "fail": 0}
    told = []
    out = console()
    for finding in itertools.chain.from_iterable(parts):
        counts[finding.level] += 1
        told.append(finding.to_dict())
        if not as_json:
            out.print(Text.assemble(_MARKS[finding.level], f"  {finding.area:<8} ", safe(finding.message)))
            if finding.remedy:
                out.print(Text(f"{'':15} → {safe(finding.remedy)}", style="dim"))
    if as_json:
        print_json({"ok": counts["fail"] == 0, "counts": counts, "findings": told})
    else:
        out.print(f"{counts['ok']} good, {counts['warn']} to look at, {counts['fail']} wrong")
    return 1 if counts["fail"] else 0
