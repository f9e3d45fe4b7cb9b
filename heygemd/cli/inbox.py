"""`submit`: a job put into the inbox as it should be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import (
    EngineOption,
    JsonOption,
    OptionOption,
    existing_file,
    globals_of,
    note,
    parse_options,
    print_json,
    safe,
    say,
    speech_of,
)
from heygemd.cli.foreground import AudioArgument, TextOption, VideoArgument, progress_bar

if TYPE_CHECKING:
    from heygemd.spool.layout import Layout


def register(app: typer.Typer) -> None:
    app.command()(submit)


def submit(
    context: typer.Context,
    video: VideoArgument,
    audio: AudioArgument = None,
    text: TextOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the job; default: the speech's file name.")
    ] = None,
    consent: Annotated[
        Path | None, typer.Option("--consent", metavar="FILE", help="Shows that the person in the video agreed.")
    ] = None,
    folder: Annotated[str, typer.Option("--folder", metavar="DIR", help="Folder within the inbox.")] = "",
    priority: Annotated[int | None, typer.Option("--priority", min=-100, max=100, help="Higher goes first.")] = None,
    engine: EngineOption = None,
    option: OptionOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result, and exit by it.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="With --wait: no longer than this.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a job into the inbox: whole files, checksums, the manifest last."""
    from heygemd.spool.layout import Layout
    from heygemd.spool.submission import put

    existing_file(video, "VIDEO")
    audio, text = speech_of(audio, text)
    options = parse_options(option, engine).model_dump(exclude_defaults=True)
    if consent is not None:
        existing_file(consent, "--consent")
    # Not as the service's user yet: the files may be such that only this one may read them.
    settings = globals_of(context).settings
    layout = Layout(settings.root, settings.state)
    with progress_bar(show=not as_json) as bar:
        job, files = put(
            layout,
            video=video,
            audio=audio,
            text=text,
            consent=consent,
            name=name or (audio or video).stem,
            folder=folder,
            priority=priority,
            options=options,
            on_fraction=lambda fraction: bar.show("copying", fraction, None),
        )
        if not as_json:
            note(f"{safe(job)} is in the inbox")
        globals_of(context).as_service()
        view = _wait(layout, job, bar, timeout) if wait else None
    if as_json:
        result = {"job": job, "files": [str(file) for file in files]}
        print_json(result if view is None else {**result, "status": view})
    elif view is None:
        say(f"{safe(job)}: submitted; `heygemd status {safe(job)}` tells how far it is")
    else:
        say(f"{safe(job)}: done, in {safe(layout.root / str(view.get('where', 'outbox')))}")


def _wait(layout: Layout, job: str, bar: Any, timeout: float | None) -> dict[str, Any]:
    from heygemd.cli.follow import follow, raise_unless_done

    view = follow(layout, job, bar, timeout_seconds=timeout)
    raise_unless_done(view)
    return view
