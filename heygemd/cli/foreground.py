"""`run` and `plan`: one job without a daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from heygemd.cli.common import (
    EngineOption,
    JsonOption,
    OptionOption,
    cards_of,
    console,
    existing_file,
    globals_of,
    note,
    parse_options,
    print_json,
    safe,
    say,
    seconds_in_words,
    speech_of,
)
from heygemd.core.errors import CannotFitError, UsageError

if TYPE_CHECKING:
    from heygemd.service.foreground import Progress as Step

VideoArgument = Annotated[Path, typer.Argument(metavar="VIDEO", help="A video, or a still image with a face.")]
AudioArgument = Annotated[
    Path | None, typer.Argument(metavar="AUDIO", help="A recording, or a .txt to be spoken.", show_default=False)
]
TextOption = Annotated[str | None, typer.Option("--text", help="Text to be spoken, in place of AUDIO.")]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", metavar="FILE", help="The model file, for engines that need one.")
]


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("plan")(plan)


def run(
    context: typer.Context,
    video: VideoArgument,
    audio: AudioArgument = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT.mp4", help="The result.")] = None,
    text: TextOption = None,
    engine: EngineOption = None,
    checkpoint: CheckpointOption = None,
    option: OptionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Render one job here and now, with a progress bar."""
    if output is None:
        raise UsageError("-o is missing: where shall the result go?", remedy="Add `-o OUT.mp4`.")
    if output.suffix.lower() != ".mp4":
        raise UsageError(f"-o {output}: the result is an MP4", remedy="Let its name end in .mp4.")
    existing_file(video, "VIDEO")
    audio, text = speech_of(audio, text)
    options = parse_options(option, engine)
    if checkpoint is not None:
        existing_file(checkpoint, "--checkpoint")
    settings = globals_of(context).settings
    _quiet_log(globals_of(context).debug)
    from heygemd.service.foreground import render_one

    started = time.monotonic()
    with progress_bar(show=not as_json) as bar:
        receipt = render_one(
            settings,
            video=video,
            audio=audio,
            text=text,
            output=output,
            options=options,
            checkpoint=checkpoint,
            on_progress=bar.update,
        )
    if as_json:
        print_json(receipt)
    else:
        say(f"{safe(output)}: done in {seconds_in_words(time.monotonic() - started)}{_facts(receipt)}")


def plan(
    context: typer.Context,
    video: VideoArgument,
    audio: AudioArgument = None,
    text: TextOption = None,
    engine: EngineOption = None,
    checkpoint: CheckpointOption = None,
    option: OptionOption = None,
    gpu_mib: Annotated[
        str | None,
        typer.Option(
            "--gpu-mib",
            metavar="N[,N…]",
            help="Plan for GPUs of this size, instead of what is here; 8192x4: four alike.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Say what a render would take, without rendering: segments, batch, memory, time. Exits 75 when it cannot fit."""
    existing_file(video, "VIDEO")
    audio, text = speech_of(audio, text)
    options = parse_options(option, engine)
    settings = globals_of(context).settings
    _quiet_log(globals_of(context).debug)
    from heygemd.service.foreground import plan_one

    found = plan_one(
        settings,
        video=video,
        audio=audio,
        text=text,
        options=options,
        gpu_mib=None if gpu_mib is None else cards_of(gpu_mib),
        checkpoint=checkpoint,
    )
    if as_json:
        print_json(found)
    elif found.get("refused"):
        say(Text("This cannot be rendered:", style="bold red"), safe(found.get("reason", "")))
        if found.get("remedy"):
            say(safe(found["remedy"]))
    else:
        _print_plan(found)
    return CannotFitError.exit_code if found.get("refused") else 0


def _print_plan(found: dict[str, Any]) -> None:
    segments = found.get("segments")
    count = len(segments) if isinstance(segments, list) else segments
    rows = [
        ("engine", found.get("engine")),
        ("device", _device_words(found)),
        ("segments", count),
        ("batch", found.get("batch")),
        ("precision", found.get("precision")),
        ("memory", _memory_words(found)),
        ("calibrated", _calibration_words(found)),
        ("estimate", _estimate_words(found)),
    ]
    for name, value in rows:
        if value is not None:
            say(f"{name:<10} {safe(value)}")


def _device_words(found: dict[str, Any]) -> str | None:
    """cuda; or: cpu (engines.cpu_only keeps rewrite there)."""
    kind, reason = found.get("device_kind"), found.get("device_reason")
    return f"{kind} ({reason})" if kind and reason else kind


def _memory_words(found: dict[str, Any]) -> str | None:
    """531 MiB predicted, 560 MiB reserved (measured, 12 times)."""
    if found.get("predicted_mib") is None:
        return None
    words = f"{found['predicted_mib']} MiB predicted"
    wanted = (found.get("device_kind"), found.get("precision"), found.get("batch"))
    for way in found.get("memory", ()):
        if (way["device_kind"], way["precision"], way["batch"]) == wanted:
            times = f", {way['measurements']} times" if way["measurements"] else ""
            words += f", {way['reserved_mib']} MiB reserved ({way['source']}{times}; formula {way['formula_mib']} MiB"
            words += f", calibration {way['calibrated_mib']} MiB)" if way["calibrated_mib"] is not None else ")"
            if way["host_mib"]:
                words += f"; {way['host_mib']} MiB of RAM beside"
    return words


def _calibration_words(found: dict[str, Any]) -> str | None:
    """412 MiB + 3.1 MiB a frame on cpu, from batches 1, 2, 8 at 1920x1080, face 1152x648."""
    if found.get("predicted_mib") is None:
        return None
    words = [
        f"{row['fixed_mib']:.0f} MiB + {row['per_frame_mib']:.1f} MiB a frame on {row['model']}, from batches "
        f"{', '.join(str(point['batch']) for point in row['points'])} at {row['shape']}"
        for row in found.get("calibration", ())
    ]
    return "; ".join(words) or "no pass was made here: `heygemd calibrate` makes one"


def _estimate_words(found: dict[str, Any]) -> str | None:
    """14 s (from 12 segments measured here)."""
    words = seconds_in_words(found.get("estimate_seconds"))
    if not words:
        return None
    if found.get("estimate_basis") == "measured":
        return f"{words} (from {found['estimate_measurements']} segments of this size measured here)"
    if found.get("estimate_basis") == "other sizes":
        return f"{words} (from renders of other sizes here)"
    return f"{words} (a guess: the first of its kind here; renders make it better)"


def _facts(receipt: dict[str, Any]) -> str:
    engine = receipt.get("engine")
    name = engine.get("name") if isinstance(engine, dict) else engine
    return f" (engine {safe(name)})" if name else ""


def _quiet_log(debug: bool) -> None:
    """In the foreground the bar tells the story; the log tells only what is wrong."""
    from heygemd.core.settings import LogSettings
    from heygemd.ops import logs

    logs.configure(LogSettings(level="debug" if debug else "warning"))


class Bar:
    """A rich progress bar with the pipeline's own ETA; a line now and then where nobody can see a bar."""

    def __init__(self, progress: Progress | None, quiet: bool) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=1.0, eta="") if progress else None
        self._quiet = quiet
        self._told: tuple[str, int] = ("", -1)

    def show(self, stage: str, fraction: float, eta_seconds: float | None, detail: str = "") -> None:
        if self._progress is not None and self._task is not None:
            eta = f"{seconds_in_words(eta_seconds)} left" if eta_seconds is not None else ""
            words = f"{stage} {detail}".strip()
            self._progress.update(self._task, completed=fraction, description=safe(words), eta=eta)
        elif not self._quiet:
            tenth = int(fraction * 10)
            if self._told != (stage, tenth):
                self._told = (stage, tenth)
                eta = f", {seconds_in_words(eta_seconds)} left" if eta_seconds is not None else ""
                note(f"{fraction:4.0%} {safe(stage)}{eta}")

    def update(self, step: Step) -> None:
        self.show(step.stage, step.fraction, step.eta_seconds, step.detail)


@contextmanager
def progress_bar(*, show: bool) -> Iterator[Bar]:
    """A bar on stderr when that is a terminal; plain lines when it is not; nothing when `show` is off."""
    if not show or not sys.stderr.isatty():
        yield Bar(None, quiet=not show)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}", markup=False),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield Bar(progress, quiet=False)
