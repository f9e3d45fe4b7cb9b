"""`calibrate`: measure what renders take here, before there are any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from heygemd.cli.common import EngineOption, JsonOption, existing_file, globals_of, note, print_json, safe, say
from heygemd.core.errors import UsageError


def register(app: typer.Typer) -> None:
    app.command("calibrate")(calibrate)


def calibrate(
    context: typer.Context,
    engine: EngineOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="The model file, for engines that need one.")
    ] = None,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Of the picture.")] = "1920x1080",
    face: Annotated[
        str, typer.Option("--face", metavar="WxH", help="Of the face's region; default: 60 % of the picture.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure how much memory renders take here, on a clip that is made up, at several batch sizes. The daemon does it
    by itself at the first use of an engine on a card; run it before that, or for the CPU."""
    width, height = _pixels(size, "--size")
    region = _pixels(face, "--face") if face else (width * 6 // 10, height * 6 // 10)
    if region[0] > width or region[1] > height:
        raise UsageError(f"--face {face} is larger than --size {size}", remedy="A face lies inside of its picture.")
    if checkpoint is not None:
        existing_file(checkpoint, "--checkpoint")
    from heygemd.cli.foreground import progress_bar
    from heygemd.service.measure import Wanted, calibrate_here

    wanted = Wanted(engine or "auto", checkpoint, width, height, region)
    with progress_bar(show=not as_json) as bar:
        found = calibrate_here(
            globals_of(context).as_service(), wanted, on_progress=lambda what, done: bar.show(what, done, None)
        )
    if as_json:
        print_json(found)
        return
    for row in found["passes"]:
        _print_pass(row)
    note(f"kept in {safe(found['path'])}; `heygemd plan` uses it from now on")


def _pixels(text: str, name: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text.strip())
    width, height = (int(part) for part in match.groups()) if match else (0, 0)
    if not (64 <= width <= 16384 and 64 <= height <= 16384):
        raise UsageError(f"{name} {text}: must be WIDTHxHEIGHT in pixels, 64 to 16384 each", remedy=f"{name} 1280x720")
    return width, height


def _print_pass(row: dict[str, Any]) -> None:
    say(f"{safe(row['device'])} ({safe(row['model'])}): {safe(row['words'])}")
    say("batch   measured    formula" + ("   allocator   whole card" if row["device_kind"] != "cpu" else ""))
    for point in row["points"]:
        line = f"{point['batch']:>5} {point['peak_mib']:>6.0f} MiB {point['formula_mib']:>6.0f} MiB"
        if row["device_kind"] != "cpu":
            line += f" {point['cached_mib']:>7.0f} MiB {point['device_mib']:>8.0f} MiB"
        say(line)
    if row["stopped_at_batch"]:
        say(f"batch {row['stopped_at_batch']} did not fit")
