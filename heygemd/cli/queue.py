"""`status`, `retry`, `cancel`, `pause`, `resume`: what there is to do, and who may go first."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from heygemd.cli import figures
from heygemd.cli.common import (
    JsonOption,
    console,
    globals_of,
    plain_table,
    print_json,
    safe,
    say,
    seconds_in_words,
    stdout,
)
from heygemd.core.errors import HeygemdError, UsageError

if TYPE_CHECKING:
    from heygemd.spool.control import Action
    from heygemd.spool.layout import Layout

ANSWER_SECONDS = 10.0
_WATCH_SECONDS = 1.0
_FINISHED_SHOWN = 15
_STYLES = {"done": "green", "failed": "red", "cancelled": "yellow", "rendering": "cyan", "queued": "dim"}

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Name or id of a job.")]


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(retry)
    app.command()(cancel)
    app.command()(pause)
    app.command()(resume)


def status(
    context: typer.Context,
    job: Annotated[
        str | None, typer.Argument(metavar="JOB", help="Only this one, in full.", show_default=False)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and keep it up to date.")] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Every finished job too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the daemon is well: exit code 0, or 1.")] = (
        False
    ),
    as_json: JsonOption = False,
) -> int:
    """Show jobs, progress, queue, and what the daemon measures. With --watch --json: one document a line."""
    layout = globals_of(context).layout
    if check:
        return _check(layout, as_json)
    if watch:
        # Ctrl-C is the way out, not a failure; so is SIGTERM, or the cursor would stay hidden.
        with contextlib.suppress(KeyboardInterrupt), _ended_politely():
            _watch(layout, job, every, as_json)
    elif as_json:
        print_json(_document(layout, job))
    else:
        console().print(_screen(layout, job, every))
    return 0


def _watch(layout: Layout, job: str | None, every: bool, as_json: bool) -> None:
    out = console()
    if as_json:
        while True:
            stdout.write(json.dumps(_document(layout, job), ensure_ascii=False, default=str) + "\n")
            time.sleep(_WATCH_SECONDS)
    elif out.is_terminal:
        with Live(_screen(layout, job, every), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(_WATCH_SECONDS)
                live.update(_screen(layout, job, every), refresh=True)
    else:  # into a file or a pipe: a picture whenever there is something new
        before = ""
        while True:
            with out.capture() as captured:
                out.print(_screen(layout, job, every))
            if captured.get() != before:
                before = captured.get()
                stdout.write(before + "\n")
            time.sleep(_WATCH_SECONDS)


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(layout: Layout, as_json: bool) -> int:
    """For health checks of containers and monitors: a daemon runs, and its loop and its workers advance."""
    from heygemd.spool.viewing import daemon_state

    told = figures.read(layout)
    problem = None
    if daemon_state(layout)["running"] is False:
        problem = "no daemon runs with this state folder"
    elif told is None:
        problem = f"{layout.figures}: no figures yet"
    elif not told.fresh:
        problem = (
            f"the daemon told its figures {seconds_in_words(told.age_seconds)} ago: it hangs, or the share is away"
        )
    elif not told.get("heygemd_ready"):
        problem = "the daemon is not ready yet"
    elif time.time() - (told.get("heygemd_watchdog_ping_timestamp_seconds") or 0.0) > figures.FRESH_SECONDS:
        problem = "no worker answers"
    if as_json:
        print_json({"ok": problem is None, "problem": problem})
    else:
        say("well" if problem is None else safe(problem))
    return 0 if problem is None else 1


def _document(layout: Layout, job: str | None) -> dict[str, Any]:
    from heygemd.cli.follow import find_view

    return find_view(layout, job) if job else overview(layout)


def overview(layout: Layout) -> dict[str, Any]:
    """Everything that `status` shows, as values."""
    from heygemd.spool.viewing import all_views, daemon_state, paused

    views = all_views(layout)
    counts: dict[str, int] = {}
    for view in views:
        counts[view["state"]] = counts.get(view["state"], 0) + 1
    return {
        "daemon": daemon_state(layout),
        "paused": paused(layout),
        "counts": counts,
        "figures": figures.document(figures.read(layout)),
        "jobs": views,
    }


def _screen(layout: Layout, job: str | None, every: bool) -> Group | Table:
    if job is not None:
        return _one(layout, job)
    found = overview(layout)
    running = found["daemon"]["running"]
    words = {True: f"running (process {found['daemon']['pid']})", False: "not running", None: "unknown"}[running]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(found["counts"].items())) or "none"
    head = Text.assemble("daemon ", (words, "" if running else "yellow"), "   jobs ", counts)
    if found["paused"]:
        head.append(f"   paused: {found['paused']}", style="yellow")
    parts: list[Text | Table] = [head]
    told = figures.read(layout)
    if told is not None and told.fresh and running is not False:
        parts += [*figures.lines(told), Text()]
    elif running:
        parts.append(Text("the daemon has told no figures for a minute", style="yellow"))
    return Group(*parts, _table(found["jobs"], every)) if found["jobs"] else Group(*parts)


def _table(views: list[dict[str, Any]], every: bool) -> Table:
    table = plain_table("Job", "State", "%", "Left", "Pos", "Device", "")
    ended = 0
    for view in views:
        if view["state"] in ("done", "failed", "cancelled"):
            ended += 1
            if ended > _FINISHED_SHOWN and not every:
                continue
        state = str(view["state"])
        percent = view.get("percent")
        table.add_row(
            safe(view["job"]),
            Text(state, style=_STYLES.get(state, "")),
            "" if percent is None else f"{percent:.0f}",
            seconds_in_words(view.get("eta_seconds")),
            str(view.get("position") or ""),
            ", ".join(view.get("devices") or []),
            safe(view.get("where") if state == "done" else view.get("reason") or ""),
        )
    if ended > _FINISHED_SHOWN and not every:
        table.add_row(Text(f"… and {ended - _FINISHED_SHOWN} more that ended (--all)", style="dim"))
    return table


def _one(layout: Layout, job: str) -> Table:
    from heygemd.cli.follow import find_view

    view = find_view(layout, job)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    eta = seconds_in_words(view.get("eta_seconds"))
    rows: list[tuple[str, Any]] = [
        ("job", view["job"]),
        ("state", view["state"]),
        ("done", None if view.get("percent") is None else f"{view['percent']} %"),
        ("left", eta or None),
        ("position", view.get("position")),
        ("device", ", ".join(view.get("devices") or []) or None),
        ("reason", view.get("reason")),
        ("where", view.get("where")),
        ("what to do", view.get("next_action")),
        ("error", (view.get("error") or {}).get("code")),
        ("remedy", (view.get("error") or {}).get("remedy")),
        ("dropped", view.get("created")),
        ("updated", view.get("updated")),
    ]
    for name, value in rows:
        if value not in (None, ""):
            table.add_row(name, safe(value))
    return table


def retry(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """Start a failed or cancelled job again; nothing needs to be copied again."""
    _ask_about(context, "retry", job, as_json)


def cancel(context: typer.Context, job: JobArgument, as_json: JsonOption = False) -> None:
    """End a job; its inputs go to failed/, from where it can be retried."""
    _ask_about(context, "cancel", job, as_json)


def pause(context: typer.Context, as_json: JsonOption = False) -> None:
    """Start nothing new. What is being rendered goes on."""
    ask(globals_of(context).layout, "pause", None, as_json)


def resume(context: typer.Context, as_json: JsonOption = False) -> None:
    """Go on after `pause`."""
    layout = globals_of(context).layout
    ask(layout, "resume", None, as_json)
    if layout.pause_file.exists() and not as_json:
        say(f"{safe(layout.pause_file)} still holds the queue; remove that file too")


def _ask_about(context: typer.Context, action: Action, job: str, as_json: bool) -> None:
    from heygemd.cli.follow import find_view

    layout = globals_of(context).layout
    view = find_view(layout, job)
    ask(layout, action, str(view.get("job_id") or view["job"]), as_json)


def ask(layout: Layout, action: Action, job: str | None, as_json: bool, **arguments: Any) -> None:
    """Ask the daemon and tell its answer. Raises the error that it answers with."""
    from heygemd.spool.control import send, wait_answer
    from heygemd.spool.viewing import daemon_state

    if not layout.control.is_dir():
        raise UsageError(
            f"{layout.control}: no daemon has run with this state folder yet",
            remedy="Check --root, --state and --config; `heygemd check-config` tells what is read.",
            path=str(layout.control),
        )
    try:
        request = send(layout.control, action, job, **arguments)
    except HeygemdError as error:
        if action == "pause":
            error.remedy = f"Only the operator may ask the daemon; anybody may make a file {layout.pause_file}."
        raise
    if daemon_state(layout)["running"] is False:
        document = {"ok": True, "pending": True, "message": "no daemon runs; it happens when one starts"}
        print_json(document) if as_json else say(f"{action}: {document['message']}")
        return
    answer = wait_answer(layout.control, request, ANSWER_SECONDS)
    if answer is None:
        message = f"the daemon has not answered within {ANSWER_SECONDS:.0f} s; the request stays"
        print_json({"ok": True, "pending": True, "message": message}) if as_json else say(f"{action}: {message}")
        return
    if not answer.ok:
        told = answer.details.get("error")
        raise (
            HeygemdError.from_dict(told)
            if isinstance(told, dict)
            else UsageError(answer.message, remedy="`heygemd status` shows where the job stands.")
        )
    if as_json:
        print_json({"ok": True, "pending": False, "message": answer.message, "details": answer.details})
    else:
        say(safe(answer.message))
