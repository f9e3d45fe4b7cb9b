"""What all commands share: global options, one way to print results and errors, `--option key=value`.

Errors reach people here: what is wrong, the file, what to do, the code. With `--json` standard output gets exactly one
JSON document, for errors too; whatever else writes to it (a library, a child process) ends up on stderr.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from heygemd.core.errors import BadInputError, HeygemdError, UsageError

if TYPE_CHECKING:  # pydantic takes a third of a second; `heygemd --help` does without
    from heygemd.config import Settings
    from heygemd.core.options import Options
    from heygemd.spool.layout import Layout

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
OptionOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-O", metavar="KEY=VALUE", help="An option of the job; may be given several times."),
]
EngineOption = Annotated[str | None, typer.Option("--engine", metavar="NAME", help="auto, or the name of an engine.")]
_MOST_CARDS = 10_000


@dataclass
class Globals:
    """The options that stand before or behind any command."""

    config: Path | None = None
    root: Path | None = None
    state: Path | None = None
    debug: bool = False
    _settings: Settings | None = field(default=None, repr=False)

    @property
    def settings(self) -> Settings:
        """Read on first use. Raises ConfigError."""
        if self._settings is None:
            self._settings = self.read_settings()
        return self._settings

    def read_settings(self) -> Settings:
        """Read now, from all four layers. Raises ConfigError."""
        from heygemd.config import load_settings

        return load_settings(self.config, {"root": self.root, "state": self.state})

    def as_service(self) -> Settings:
        """The settings, after root has become the service's user (cli.identity): for whatever touches the state."""
        from heygemd.cli.identity import become_service_user

        become_service_user(self.settings.state)
        return self.settings

    @property
    def layout(self) -> Layout:
        """Of share and state, to work on: as the service's user."""
        from heygemd.spool.layout import Layout

        self.as_service()
        return Layout(self.settings.root, self.settings.state)

    def arguments(self) -> list[str]:
        """The same options for a child process of ours."""
        pairs = (("--config", self.config), ("--root", self.root), ("--state", self.state))
        return [part for name, value in pairs if value is not None for part in (name, str(value.absolute()))]


def globals_of(context: typer.Context) -> Globals:
    found = context.find_object(Globals)
    return found if found is not None else context.ensure_object(Globals)


# ------------------------------------------------------------------------------------------------ output


class _Stdout:
    """Where documents go: sys.stdout, or the real one that `main` set aside for `--json`."""

    def __init__(self) -> None:
        self.saved: int | None = None

    def set_aside(self) -> None:
        """From here on only `print_json` reaches standard output."""
        if self.saved is None:
            sys.stdout.flush()
            self.saved = os.dup(1)
            os.dup2(2, 1)

    def put_back(self) -> None:
        if self.saved is not None:
            sys.stdout.flush()
            os.dup2(self.saved, 1)
            os.close(self.saved)
            self.saved = None

    def write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")  # \udcXX of undecodable names is valid JSON as it stands
        if self.saved is not None:
            with os.fdopen(os.dup(self.saved), "wb") as file:
                file.write(data)
        else:
            sys.stdout.flush()
            buffer = getattr(sys.stdout, "buffer", None)
            if buffer is None:
                sys.stdout.write(text)
            else:
                buffer.write(data)
            sys.stdout.flush()


stdout = _Stdout()


def print_json(document: Any) -> None:
    """The one document of a `--json` command."""
    stdout.write(json.dumps(document, ensure_ascii=False, indent=2, default=str) + "\n")


def console(*, stderr: bool = False) -> Console:
    """A new console on what sys.stdout or sys.stderr is now. Nothing in a text is taken for markup."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def say(*parts: str | Text) -> None:
    """A line of ordinary output."""
    console().print(*parts)


def note(text: str) -> None:
    """A line beside the output: on stderr, so that it never mixes with a result."""
    console(stderr=True).print(Text(text, style="dim"))


def plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def seconds_in_words(seconds: float | None) -> str:
    """5 s, 2 min 05 s, 3 h 04 min."""
    if seconds is None:
        return ""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def safe(text: object) -> str:
    """For people: nothing that moves the cursor or breaks the line, whatever a file is called."""
    from heygemd.spool.names import shown

    return shown(str(text))


def print_error(error: HeygemdError, *, as_json: bool, debug: bool) -> int:
    """Tell what went wrong; returns the exit code."""
    if as_json:
        print_json({"error": error.to_dict() | {"exit_code": error.exit_code}})
    else:
        err = console(stderr=True)
        message, *more = error.message.split("\n")
        err.print(Text.assemble(("Error: ", "bold red"), safe(message)))
        for line in [*more, *error.details.get("problems", [])[1:]]:
            err.print(f"       {safe(line)}")
        if error.path and safe(error.path) not in safe(error.message):
            err.print(Text.assemble(("File:  ", "bold"), safe(error.path)))
        err.print(Text.assemble(("Do:    ", "bold"), safe(error.remedy)))
        err.print(Text.assemble(("Code:  ", "bold"), f"{error.code} (docs/troubleshooting.md)"))
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    return error.exit_code


# ------------------------------------------------------------------------------------------------ input


def did_you_mean(word: str, known: list[str]) -> str:
    """ "; did you mean X?" or what there is."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def parse_options(pairs: list[str] | None, engine: str | None = None) -> Options:
    """`--option key=value …` as Options. Raises UsageError that names the wrong key or value."""
    from pydantic import ValidationError

    from heygemd.core.options import Options

    known = list(Options.model_fields)
    values: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--option {pair}: must be KEY=VALUE", remedy="For example: --option quality=best")
        if key not in known:
            raise UsageError(
                f"--option {pair}: there is no option {key}{did_you_mean(key, known)}",
                remedy="docs/manual.md lists every option.",
            )
        values[key] = value.strip()
    if engine is not None:
        values["engine"] = engine
    check_engine(values.get("engine"))
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        raise UsageError(
            f"--option {first['loc'][0]}={first['input']}: {message}", remedy="docs/manual.md lists every option."
        ) from None


def check_engine(name: str | None) -> None:
    """Raises UsageError where no engine has that name."""
    from heygemd.engines.base import engine_names

    known = ["auto", *engine_names()]
    if name is not None and name not in known:
        raise UsageError(f"there is no engine {name}{did_you_mean(name, known)}")


def existing_file(path: Path, what: str) -> Path:
    """`path` when it is a file that can be read. Raises BadInputError."""
    if not path.exists():
        raise BadInputError(f"{what} {path}: there is no such file", path=str(path), remedy="Check the name.")
    if not path.is_file():
        raise BadInputError(f"{what} {path}: is not a file", path=str(path), remedy="Name a file.")
    if not os.access(path, os.R_OK):
        raise BadInputError(f"{what} {path}: you may not read it", path=str(path), remedy="Ask for read permission.")
    return path


def speech_of(audio: Path | None, text: str | None) -> tuple[Path | None, str | None]:
    """Exactly one of a recording (or .txt) and a text."""
    if (audio is None) == (text is None):
        raise UsageError(
            "give a recording or a text to be spoken" + (", not both" if audio else ""),
            remedy="Name AUDIO (a recording, or a .txt), or use --text.",
        )
    if text is not None and not text.strip():
        raise UsageError("--text is empty", remedy="Give at least a word.")
    return (existing_file(audio, "AUDIO") if audio is not None else None), text


def cards_of(text: str) -> list[int]:
    """ "24576,8192x2" → [24576, 8192, 8192]. Raises UsageError."""
    found: list[int] = []
    try:
        for part in text.split(","):
            size, _, count = part.strip().lower().partition("x")
            found += [int(size)] * min(int(count or 1), _MOST_CARDS + 1)
    except ValueError:
        found = []
    if not 0 < len(found) <= _MOST_CARDS or any(size <= 0 for size in found):
        raise UsageError(
            f"--gpu-mib {text}: must be whole numbers of MiB, for 1 to {_MOST_CARDS} cards",
            remedy="For example: --gpu-mib 24576x2,8192",
        )
    return found
