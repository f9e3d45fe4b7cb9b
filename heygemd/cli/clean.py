"""`clean`: retention now, by the rules of the configuration. Plans first; `--dry-run` shows the plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import JsonOption, globals_of, plain_table, print_json, safe, say
from heygemd.cli.common import console as new_console

if TYPE_CHECKING:
    from heygemd.config import Settings
    from heygemd.ops.retention import JobFolder, Kind, Plan
    from heygemd.spool.layout import Layout


def register(app: typer.Typer) -> None:
    app.command()(clean)


def clean(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Show what would go; remove nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Remove what retention no longer keeps: archived inputs, failed jobs, results. Exits 1 when something stays."""
    from heygemd.ops.retention import execute

    options = globals_of(context)
    settings, layout = options.settings, options.layout
    layout.check_share()
    todo = _plan(settings, layout)
    reasons = {removal.folder: removal.reason for removal in todo.removals}
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "removals": [_row(f, why) for f, why in reasons.items()]})
        else:
            _show(reasons, "would be removed")
        return 0
    outcome = execute(todo, _roots(layout))
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


def _roots(layout: Layout) -> dict[Kind, Any]:
    return {"archive": layout.archive, "failed": layout.failed, "outbox": layout.outbox}


def _plan(settings: Settings, layout: Layout) -> Plan:
    from heygemd.core.job import JobState
    from heygemd.ops.retention import free_bytes, plan, survey
    from heygemd.spool.journal import Journal

    busy: frozenset[str] = frozenset()
    unfinished = [state for state in JobState if not state.final]
    # What a job that is tried again still needs lies in failed/: without the journal it could not be told.
    if layout.journal.exists():
        with Journal(layout.journal, readonly=True) as journal:
            busy = frozenset(job.id for job in journal.jobs(unfinished))
    folders = [folder for kind, root in _roots(layout).items() for folder in survey(root, kind)]
    return plan(folders, settings.retention, now_seconds=time.time(), free_bytes=free_bytes(layout.root), busy=busy)


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
