"""`demo`: the whole path on a sample made on the spot, by the real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heygemd.cli.common import Globals, JsonOption, globals_of, note, print_json, say, seconds_in_words
from heygemd.cli.foreground import progress_bar
from heygemd.core.errors import HeygemdError, RenderError

if TYPE_CHECKING:
    from heygemd.spool.layout import Layout

NAME = "astronaut"
SENTENCE = "Hello from orbit. Drop a picture and a recording on the share, and I will say whatever you want."
_STOP_SECONDS = 20.0

# The sample is written whole before the daemon starts: no need to watch it being quiet.
_HURRY = {"HEYGEMD_INBOX__SETTLE_SECONDS": "0.2", "HEYGEMD_INBOX__SCAN_SECONDS": "1"}


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    context: typer.Context,
    text: Annotated[str, typer.Option("--text", help="What the picture shall say.")] = SENTENCE,
    as_json: JsonOption = False,
) -> None:
    """Make a sample, let the daemon render it, and say where the result lies. Without --root: in ./demo."""
    options = globals_of(context)
    options = Globals(options.config, options.root or Path("demo"), options.state, options.debug)
    layout = options.layout
    started = time.monotonic()
    layout.ensure()
    job = make_sample(layout, text)
    if not as_json:
        note(f"{layout.inbox / job}.png and .txt dropped; the daemon starts")
    with daemon(options, layout) as process, progress_bar(show=not as_json) as bar:
        view = _watch(layout, job, process, bar)
    seconds = time.monotonic() - started
    found = _results(layout, job, view)
    if as_json:
        print_json({"job": job, **{key: str(path) for key, path in found.items()}, "seconds": round(seconds, 1)})
        return
    say(f"The astronaut speaks. It took {seconds_in_words(seconds)}.")
    for label, path in (("video", found["video"]), ("sheet", found["contact_sheet"]), ("receipt", found["receipt"])):
        say(f"  {label:<8} {path}")


def make_sample(layout: Layout, text: str) -> str:
    """Drop a pair into the inbox: NASA's portrait of Eileen Collins (public domain) and a text; the job's name."""
    from skimage.data import astronaut

    from heygemd.files import write_atomic
    from heygemd.spool.names import unique_name
    from heygemd.spool.submission import taken_names

    job = unique_name(NAME, taken_names(layout, layout.inbox) | _dropped(layout))
    write_atomic(layout.inbox / f"{job}.png", _png(astronaut()))  # type: ignore[no-untyped-call] # it ships no types
    write_atomic(layout.inbox / f"{job}.txt", (text.strip() + "\n").encode())
    return job


def _dropped(layout: Layout) -> set[str]:
    """Stems in the inbox: an earlier demo that was interrupted left its pair there."""
    from heygemd.spool.names import fold

    return {fold(path.stem) for path in layout.inbox.iterdir()}


def _png(image: Any) -> bytes:
    """A PNG of an (h, w, 3) uint8 RGB image."""
    import io

    from PIL import Image  # scikit-image depends on it

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


@contextmanager
def daemon(options: Globals, layout: Layout) -> Iterator[subprocess.Popen[bytes]]:
    """The real daemon on this share, for one round. Its log goes to STATE/demo.log. Ended on the way out."""
    log = layout.state / "demo.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "heygemd.cli", *options.arguments(), "serve", "--once"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_HURRY | os.environ,
        )
    try:
        yield process
    finally:
        try:
            process.wait(_STOP_SECONDS if process.poll() is None and sys.exc_info()[0] is None else 0)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(layout: Layout, job: str, process: subprocess.Popen[bytes], bar: Any) -> dict[str, Any]:
    from heygemd.cli.follow import follow, raise_unless_done

    try:
        view = follow(layout, job, bar, alive=lambda: process.poll() is None)
    except HeygemdError as error:
        raise _last_words(layout.state / "demo.log") or error from None
    raise_unless_done(view)
    return view


def _last_words(log: Path) -> HeygemdError | None:
    """The last error in the daemon's log, or its last line where even the log broke."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if lines and not lines[-1].startswith("{"):
        return HeygemdError(f"the daemon ended: {lines[-1].strip()}", remedy=f"Its log is {log}.")
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            event = {}
        if isinstance(event, dict) and event.get("log.level") == "error":
            message = str(event.get("error.message") or event.get("message"))
            return HeygemdError(
                f"the daemon ended: {message}", remedy=event.get("heygemd.error.remedy") or f"Its log is {log}."
            )
    return None


def _results(layout: Layout, job: str, view: dict[str, Any]) -> dict[str, Path]:
    folder = layout.root / str(view.get("where") or f"outbox/{job}/")
    found = {"video": folder / f"{job}.mp4", "contact_sheet": folder / f"{job}.jpg", "receipt": folder / f"{job}.json"}
    for path in found.values():
        if not path.is_file():
            raise RenderError(f"{path} is missing although {job} is done", path=str(path))
    return found
