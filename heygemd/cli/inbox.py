"""`submit`: a job put into the inbox as it should be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
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
from heygemd.core.errors import BadInputError, HeygemdError, ShareAwayError

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
    folder: Annotated[str, typer.Option("--folder", metavar="DIR", help="Folder within the inbox.")] = "",
    priority: Annotated[int, typer.Option("--priority", min=-100, max=100, help="Higher goes first.")] = 0,
    engine: EngineOption = None,
    option: OptionOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result, and exit by it.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="With --wait: no longer than this.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a job into the inbox: whole files, checksums, the manifest last."""
    existing_file(video, "VIDEO")
    audio, text = speech_of(audio, text)
    options = parse_options(option, engine).model_dump(exclude_defaults=True)
    layout = globals_of(context).layout
    with progress_bar(show=not as_json) as bar:
        job, files = put(
            layout,
            video=video,
            audio=audio,
            text=text,
            name=name or (audio or video).stem,
            folder=folder,
            priority=priority,
            options=options,
            on_fraction=lambda fraction: bar.show("copying", fraction, None),
        )
        if not as_json:
            note(f"{safe(job)} is in the inbox")
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


def put(
    layout: Layout,
    *,
    video: Path,
    audio: Path | None,
    text: str | None,
    name: str,
    folder: str = "",
    priority: int = 0,
    options: dict[str, Any] | None = None,
    on_fraction: Callable[[float], None] = lambda _fraction: None,
) -> tuple[str, list[Path]]:
    """Copy a job into the inbox so that no scan can see half of it; its name and the files.

    The two files get stems that do not pair (`x.video.mp4`, `x.audio.wav`): before the manifest says what they are,
    they are nobody's job. Raises HeygemdError.
    """
    from heygemd.core.manifest import check_relative
    from heygemd.files import copy_hashed, explained, open_regular, publish_file, temp_name, write_json
    from heygemd.spool.names import cut_bytes, safe_name, unique_name

    try:
        target = layout.inbox / check_relative(folder) if folder else layout.inbox
    except ValueError as error:
        raise BadInputError(f"--folder {folder}: {error}", remedy="Name a folder within the inbox.") from None
    if not layout.inbox.is_dir():
        raise ShareAwayError(
            f"{layout.inbox}: there is no such folder",
            remedy="Is the share mounted, and has a daemon run there? --root DIR names another.",
            path=str(layout.inbox),
        )
    job = unique_name(cut_bytes(safe_name(name), 80), taken_names(layout, target))
    sources = {"video": video} | ({"audio": audio} if audio is not None else {})
    total = max(1, sum(source.stat().st_size for source in sources.values()))
    manifest: dict[str, Any] = {"version": 1}
    temps: dict[Path, Path] = {}
    done = 0
    with explained(f"inbox {target}"):
        try:
            target.mkdir(parents=True, exist_ok=True)
            sums: dict[str, str] = {}
            for role, source in sources.items():
                final = target / f"{job}.{role}{source.suffix.lower()}"
                temps[final] = temp_name(final)
                with open_regular(source.resolve()) as file:
                    report = partial(_report, on_fraction, done, total)
                    sums[final.name] = copy_hashed(file, temps[final], on_bytes=report)
                done += source.stat().st_size
                manifest[role] = final.name
            if text is not None:
                manifest["text"] = text
            for final, temp in temps.items():
                publish_file(temp, final)
        except FileExistsError as error:
            raise BadInputError(
                f"{error.filename}: something of that name is there already", remedy="Give another --name."
            ) from None
        finally:
            for temp in temps.values():
                temp.unlink(missing_ok=True)
        manifest |= {"priority": priority, "options": options or {}, "sha256": sums}
        path = target / f"{job}.job.json"
        write_json(path, manifest)
    return job, [*temps, path]


def _report(on_fraction: Callable[[float], None], before: int, total: int, count: int) -> None:
    on_fraction((before + count) / total)


def taken_names(layout: Layout, target: Path) -> set[str]:
    """Names that a new job should not have, so that its status and result are found under the name it asked for."""
    from heygemd.spool.documents import manifest_stem
    from heygemd.spool.journal import Journal
    from heygemd.spool.names import fold

    names: set[str] = set()
    for parent in (layout.outbox, layout.failed, layout.status, target):
        with contextlib.suppress(FileNotFoundError):
            for entry in (path.name for path in parent.iterdir()):
                if parent == layout.status:
                    names.add(fold(entry.removesuffix(".json")))
                elif parent != target:
                    names.add(fold(entry))
                elif stem := manifest_stem(entry):
                    names.add(fold(stem))
    with contextlib.suppress(HeygemdError, OSError), Journal(layout.journal, readonly=True) as journal:
        names |= journal.names()  # not every user may read it; then the daemon adds a counter
    return names
