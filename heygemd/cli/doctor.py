"""`doctor`: whether this machine and this share can do the work, and what to do where they cannot."""

from __future__ import annotations

import typer
from rich.text import Text

from heygemd.cli.common import JsonOption, console, globals_of, print_json, safe

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(context: typer.Context, as_json: JsonOption = False) -> int:
    """Test the share, the programs and the machine. Exits 1 when something would make jobs fail."""
    from heygemd.cli.checks.machine import check_machine
    from heygemd.cli.checks.share import check_share
    from heygemd.cli.checks.tools import check_tools

    settings = globals_of(context).as_service()
    counts = {"ok": 0, "warn": 0, "fail": 0}
    told = []
    out = console()
    for finding in (f for part in (check_share(settings), check_tools(), check_machine(settings)) for f in part):
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
