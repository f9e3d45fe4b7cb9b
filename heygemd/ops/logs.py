"""Log lines: a pipeline of plain functions from an event of the table to one JSON object on one line.

On a terminal the same event becomes a line for people. `configure` may be called again (a reload); loggers that were
handed out before follow. No function here raises because a line could not be written: a full disk or a closed pipe
must not stop the work that is being logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

import structlog

from heygemd import __version__
from heygemd.core.errors import HeygemdError
from heygemd.core.settings import LogSettings
from heygemd.ops.events import COMMON, EVENTS, FIELDS
from heygemd.ops.outlets import is_journal, open_file, write_line

LINE_BYTES = 47 * 1024
"""The journal cuts lines at 48 KiB (LineMax=), and a cut line is no JSON."""

ECS_VERSION = "8.17"

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}  # syslog's, as journald reads them

# Control characters, and those that end a line or turn its direction for some readers: a file name must not be able
# to forge a log line. JSON escapes the ones below U+0020 by itself.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

EventDict = MutableMapping[str, Any]
Logger = Any
"""A structlog logger; its methods are made at run time."""

Listener = Callable[[str, Mapping[str, Any]], None]
"""Gets an event's name and all its fields, bound ones included."""


class UnknownEventError(ValueError):
    """The code logs something that the table does not know: a mistake of ours, for a test to find."""


def get_logger(**bound: Any) -> Logger:
    """A logger with fields bound to it: `get_logger(**job.log_context())`."""
    return structlog.get_logger().bind(**bound)


def log_event(log: Logger, name: str, **fields: Any) -> None:
    """Log one event of the table. `duration_seconds` in seconds; `error` is an exception or HeygemdError.to_dict().

    Raises UnknownEventError for a name that is not in the table, a field that it does not have, or one that is missing
    (what is bound to `log` counts).
    """
    event = EVENTS.get(name)
    if event is None:
        raise UnknownEventError(f"there is no event {name!r} in heygemd.ops.events")
    allowed = {*event.needs, *event.may, *COMMON}
    if unknown := sorted(set(fields) - allowed):
        raise UnknownEventError(f"event {name} has no field {', '.join(unknown)}")
    have = structlog.contextvars.get_contextvars() | structlog.get_context(log.bind()) | fields
    if missing := [field for field in event.needs if have.get(field) is None]:
        raise UnknownEventError(f"event {name} lacks {', '.join(missing)}")
    for listener in _listeners:
        listener(name, have)
    getattr(log, event.level)(name, **fields)


_listeners: tuple[Listener, ...] = ()


@contextlib.contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell `listener` every event, whatever the log's level is, until left. It is called in the thread that logs."""
    global _listeners
    _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        _listeners = tuple(kept for kept in _listeners if kept is not listener)


# ------------------------------------------------------------------------------------------------ the pipeline


def drop_unimportant(_logger: Any, method: str, event: EventDict) -> EventDict:
    if _LEVELS.get(method, 20) < _output.threshold:
        raise structlog.DropEvent
    return event


def add_sentence(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """`event` holds the name of the event; the sentence is made from the fields.

    It is one harmless line in itself: people print it with `jq -r .message`, which undoes what JSON escapes.
    """
    known = EVENTS.get(event["event"])
    if known is None:
        return {**event, "message": harmless(event["event"])}
    shown = _Shown({name: _in_words(value) for name, value in event.items()})
    return {**event, "message": harmless(known.sentence.format_map(shown)), "outcome": known.outcome}


class _Shown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def to_ecs(_logger: Any, method: str, event: EventDict) -> EventDict:
    """Fields under their public names, what everybody reads first."""
    line: dict[str, Any] = {
        "@timestamp": _timestamp(time.time_ns()),
        "log.level": method,
        "message": event.pop("message"),
        "ecs.version": ECS_VERSION,
        "event.action": event.pop("event"),
        "service.name": "heygemd",
        "service.version": __version__,
        "process.pid": os.getpid(),
    }
    if (outcome := event.pop("outcome", None)) is not None:
        line["event.outcome"] = outcome
    if (seconds := event.pop("duration_seconds", None)) is not None:
        line["event.duration"] = round(float(seconds) * 1e9)
    if (error := event.pop("error", None)) is not None:
        line |= _error_fields(error)
    for name, value in event.items():
        if value is not None:
            line[FIELDS[name].key if name in FIELDS else f"heygemd.{name}"] = _plain(value)
    return line


def keep_short(_logger: Any, _method: str, line: EventDict) -> EventDict:
    """Cut the longest texts until the line fits: first the traceback, then whatever is longest."""
    while len(encode(line)) > LINE_BYTES:
        sizes = {key: len(_as_text(value)) for key, value in line.items()}
        trace = "error.stack_trace"
        longest = trace if sizes.get(trace, 0) > 2000 else max(sizes, key=sizes.__getitem__)
        text = _as_text(line[longest])
        if len(text) < 200:  # many small fields: nothing that we log, but a line must never be invalid
            line = {key: line[key] for key in ("@timestamp", "log.level", "message", "event.action", "service.name")}
            line["message"] = _as_text(line["message"])[:1000]
            return line
        half = len(text) // 4
        # A traceback says what happened in its last lines.
        line[longest] = f"{text[:half]} … [{len(text) - 2 * half} characters cut] … {text[len(text) - half :]}"
    return line


def write(_logger: Any, _method: str, line: EventDict) -> EventDict:
    _output.write(line)
    raise structlog.DropEvent  # it is out; structlog's own logger has nothing to do


PIPELINE: list[Callable[[Any, str, EventDict], EventDict]] = [
    drop_unimportant,
    structlog.contextvars.merge_contextvars,
    add_sentence,
    to_ecs,
    keep_short,
    write,
]


# ------------------------------------------------------------------------------------------------ lines


def encode(line: EventDict) -> bytes:
    """One JSON object without a line break in it, readable in any script."""
    text = json.dumps(line, ensure_ascii=False, default=str)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", text).encode()


def for_people(line: EventDict, *, colour: bool) -> str:
    """A line for a terminal: time, level, sentence, what else helps, and a traceback below."""
    level = str(line["log.level"])
    paint = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}.get(level, "")
    clock = time.strftime("%H:%M:%S", time.localtime())
    text = str(line["message"])
    extra = ""
    if (nanoseconds := line.get("event.duration")) is not None:
        extra += f" ({nanoseconds / 1e9:.1f} s)"
    if (code := line.get("error.code")) is not None:
        extra += f" [{code}]"
    if remedy := line.get("heygemd.error.remedy"):
        extra += f"\n{' ' * 17}{harmless(str(remedy))}"
    if stack := line.get("error.stack_trace"):
        extra += "\n" + "\n".join(harmless(part) for part in str(stack).splitlines())
    if colour:
        return f"\x1b[2m{clock}\x1b[0m {paint}{level:<7}\x1b[0m {text}\x1b[2m{extra}\x1b[0m"
    return f"{clock} {level:<7} {text}{extra}"


def harmless(text: str) -> str:
    """`text` without anything that moves a terminal's cursor or breaks a line; the rest as it is."""
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _timestamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest // 10**6:03d}Z"


def _error_fields(error: Any) -> dict[str, Any]:
    if isinstance(error, HeygemdError):
        error = error.to_dict()
    if isinstance(error, dict):  # HeygemdError.to_dict(): a worker's, or just made
        fields = {
            "error.type": error.get("type"),
            "error.code": error.get("code"),
            "error.message": error.get("message"),
            "error.stack_trace": (error.get("details") or {}).get("traceback"),
            "heygemd.error.remedy": error.get("remedy"),
        }
        return {key: value for key, value in fields.items() if value}
    if isinstance(error, BaseException):
        stack = "".join(traceback.format_exception(error)) if error.__traceback__ else None
        fields = {"error.type": type(error).__name__, "error.message": str(error), "error.stack_trace": stack}
        return {key: value for key, value in fields.items() if value is not None}
    return {"error.message": str(error)}


def _in_words(value: Any) -> str:
    if isinstance(value, dict) and "message" in value:
        return str(value["message"])
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(part) for part in value)
    return str(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return str(value)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# ------------------------------------------------------------------------------------------------ where they go


class _Output:
    """Where lines go now. One lock: a line is written whole or not at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: TextIO | None = None
        self._file: RotatingFileHandler | None = None
        self._readable = False
        self._colour = False
        self._prefix = False
        self.threshold = _LEVELS["info"]

    def set(self, settings: LogSettings, stream: TextIO | None) -> None:
        target = stream or sys.stderr
        terminal = target.isatty()
        file = open_file(Path(settings.file)) if settings.file else None
        with self._lock:
            old, self._file = self._file, file
            self._stream = stream  # None follows sys.stderr, whatever that is when a line is written
            self._readable = settings.format == "console" or (settings.format == "auto" and terminal)
            self._colour = terminal and "NO_COLOR" not in os.environ
            self._prefix = is_journal(target)
            self.threshold = _LEVELS[settings.level]
        if old is not None:
            with contextlib.suppress(OSError):  # a full disk has not taken its last lines; that is no reason to stop
                old.close()

    def write(self, line: EventDict) -> None:
        data = encode(line)
        with self._lock:
            if self._readable:
                text = for_people(line, colour=self._colour)
            else:
                text = (f"<{_PRIORITIES[str(line['log.level'])]}>" if self._prefix else "") + data.decode()
            # Nobody reads any more (EPIPE), the disk is full, or the stream is closed: the work goes on without.
            with contextlib.suppress(OSError, ValueError):
                write_line(self._stream or sys.stderr, text)
            if self._file is not None:
                self._file.emit(logging.LogRecord("", 0, "", 0, data.decode(), None, None))


class _LibraryHandler(logging.Handler):
    """What libraries log with the standard library becomes an event, so that every line is JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        error = record.exc_info[1] if record.exc_info else None
        getattr(structlog.get_logger(), level)(
            "library.message", reason=f"{record.name}: {record.getMessage()}", **({"error": error} if error else {})
        )


_output = _Output()
structlog.configure(
    processors=PIPELINE,
    wrapper_class=structlog.make_filtering_bound_logger(0),  # drop_unimportant does it: a reload can change the level
    cache_logger_on_first_use=False,
)


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set where lines go and which. Without `stream`: stderr. Raises OSError when `settings.file` cannot be opened."""
    _output.set(settings, stream)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler(logging.WARNING))
    logging.captureWarnings(True)
