"""`checkpoints list|verify|fetch|import`: the operator's model files, known by hash and shape, never by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import JsonOption, console, globals_of, note, plain_table, print_json, safe, say
from heygemd.core.errors import UsageError

if TYPE_CHECKING:
    from heygemd.work.checkpoints import KnownFile, Verification

group = typer.Typer(help="The operator's model files: what is known, what is there, get one.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="checkpoints")


@group.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """Every known file, which of them are here, and what `auto` would take."""
    from heygemd.work.checkpoints import best_checkpoint, list_checkpoints

    folder = globals_of(context).settings.checkpoint_dir
    lines, best = list_checkpoints(folder), best_checkpoint(folder)
    if as_json:
        rows = [{"known": _known(line.known), "found": [_row(v) for v in line.found]} for line in lines]
        chosen = {"path": str(best.path) if best.path else None, "reason": best.reason}
        print_json({"folder": str(folder), "files": rows, "auto": chosen})
        return
    table = plain_table("Name", "Network", "Here", "What it is")
    for line in lines:
        here = ", ".join(safe(v.path.name) if v.ok else f"{safe(v.path.name)}: {safe(v.reason)}" for v in line.found)
        if line.known is not None:
            table.add_row(line.known.name, line.known.variant, here or "no", line.known.title)
        else:
            table.add_row(here, line.found[0].variant, "yes" if line.found[0].ok else "no", safe(line.found[0].reason))
    console().print(table)
    say(f"Folder: {safe(folder)}")
    say(f"auto: {safe(best.reason)}")


@group.command()
def verify(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="One file; default: the checkpoint folder.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Hash and recognise files anew. Exits 1 when one is not fit for use."""
    from heygemd.work.checkpoints import verify as verify_one
    from heygemd.work.checkpoints import verify_folder

    folder = globals_of(context).settings.checkpoint_dir
    found = [verify_one(file)] if file is not None else verify_folder(folder, afresh=True)
    if as_json:
        print_json({"files": [_row(v) for v in found]})
    else:
        for v in found:
            say(f"{'good' if v.ok else 'BAD '}  {safe(v.path.name)}: {safe(v.reason)}")
        if not found:
            say(f"no checkpoint lies in {safe(folder)}")
    return 0 if all(v.ok for v in found) else 1


@group.command()
def fetch(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `checkpoints list` shows it.")],
    url: Annotated[str | None, typer.Option("--url", help="Another address of the same file.")] = None,
    accept: Annotated[bool, typer.Option("--accept-license", help="Accept the file's licence without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Download a known file, going on where an earlier attempt broke off, and verify it."""
    from heygemd.work.checkpoints import load_registry
    from heygemd.work.download import fetch as download

    folder = globals_of(context).settings.checkpoint_dir
    entry = load_registry().named(name)

    def asked(known: KnownFile) -> bool:
        note(f"{known.name}: {known.licence}")
        return accept or (not as_json and typer.confirm("Do you accept this licence?", default=False, err=True))

    with _bytes_bar(f"fetching {entry.name}", show=not as_json) as progress:
        # The question comes before the first byte, so before the bar shows anything.
        path = download(entry, folder, accept_licence=asked, url=url, progress=progress)
    _told(path, as_json)


@group.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint that you have.")],
    as_json: JsonOption = False,
) -> None:
    """Recognise a file that is here already and copy it into the checkpoint folder."""
    from heygemd.work.checkpoints import import_file

    if not file.is_file():
        raise UsageError(f"{file} is not a file", remedy="Check the spelling.", path=str(file))
    with _bytes_bar(f"importing {file.name}", show=not as_json) as progress:
        found = import_file(file, globals_of(context).settings.checkpoint_dir, progress=progress)
    if as_json:
        print_json(_row(found))
    else:
        say(f"{safe(found.path)}: {safe(found.reason)}")


def _told(path: Path, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(path)})
    else:
        say(f"{safe(path)}: complete and verified")


@contextmanager
def _bytes_bar(what: str, *, show: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar in bytes; called with (done, total or None)."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console(stderr=True), disable=not show)
    task = bar.add_task(what, total=None)

    def progress(done: int, total: int | None) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield progress
    finally:
        bar.stop()


def _known(known: KnownFile | None) -> dict[str, Any] | None:
    if known is None:
        return None
    keys = ("name", "kind", "variant", "title", "sha256", "licence", "source", "num_bytes", "url")
    return {key: getattr(known, key) for key in keys}


def _row(found: Verification) -> dict[str, Any]:
    return {
        "path": str(found.path),
        "ok": found.ok,
        "reason": found.reason,
        "kind": found.kind,
        "variant": found.variant,
        "sha256": found.sha256,
        "known": found.known.name if found.known else None,
    }
