"""`clean`: retention now, by the rules of the configuration. Plans first; `--dry-run` shows the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import JsonOption, globals_of, plain_table, print_json, safe, say
from heygemd.cli.common import console as new_console

if TYPE_CHECKING:
    from heygemd.ops.retention import JobFolder


def register(app: typer.Typer) -> None:
    app.command()(clean)


def clean(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would go; remove nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Remove what retention no longer keeps: archived inputs, failed jobs, results. Exits 1 when something stays."""
    from heygemd.service.cleaning import clean_now, plan_now

    options = globals_of(context)
    settings, layout = options.settings, options.layout
    todo = plan_now(settings, layout)
    reasons = {removal.folder: removal.reason for removal in todo.removals}
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "removals": [_row(f, why) for f, why in reasons.items()]})
        else:
            _show(reasons, "would be removed")
        return 0
    outcome = clean_now(todo, layout)
    if as_json:
        print_json(
            {
                "dry_run": False,
                "removed": [_row(folder, reasons[folder]) for folder in outcome.removed],
                "remained": [_row(folder, why) for folder, why in outcome.remained],
            }
        )
    else:
        _show({folder: reasons[folder] for folder in outcome.removed}, "removed")
        for folder, why in outcome.remained:
            say(f"{folder.kind}/{safe(folder.relative)} stays: {safe(why)}")
    return 1 if outcome.remained else 0


def _row(folder: JobFolder, reason: str) -> dict[str, Any]:
    return {
        "kind": folder.kind,
        "folder": folder.relative,
        "job": folder.job,
        "bytes": folder.size_bytes,
        "reason": reason,
    }


def _show(reasons: dict[JobFolder, str], what: str) -> None:
    if reasons:
        table = plain_table("Folder", "MB", "Why")
        for folder, why in reasons.items():
            table.add_row(f"{folder.kind}/{safe(folder.relative)}", f"{folder.size_bytes / 1e6:.1f}", safe(why))
        new_console().print(table)
    total = sum(folder.size_bytes for folder in reasons)
    say(f"{len(reasons)} folders, {total / 1e6:.1f} MB {what}")
