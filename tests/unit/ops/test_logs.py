"""The log as a contract: every event, its line, and that no name or length can break one."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heygemd.core.errors import DiskFullError, HeygemdError, RenderError
from heygemd.core.settings import LogSettings
from heygemd.ops import events, logs, outlets
from heygemd.ops.events import COMMON, EVENTS, FIELDS

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(LogSettings(level="debug", format="json"), stream)
    yield stream
    logs.configure(LogSettings())


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def example(field: str) -> Any:
    if field == "error":
        return DiskFullError("the disk of /srv is full")
    if field.endswith(("_bytes", "_seconds")) or field in ("segment", "frames", "files", "segments", "worker"):
        return 7
    return f"<{field}>"


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_every_event_makes_one_whole_line(out: io.StringIO, name: str) -> None:
    event = EVENTS[name]
    fields = {field: example(field) for field in (*event.needs, *event.may)}
    logs.log_event(logs.get_logger(), name, **fields)
    (line,) = lines(out)
    assert line["event.action"] == name
    assert line["log.level"] == event.level
    assert line.get("event.outcome") == event.outcome
    assert line["service.name"] == "heygemd"
    assert {"@timestamp", "ecs.version", "message", "process.pid"} <= set(line)
    assert "?" not in line["message"], "a placeholder of the sentence is no field"
    for field in fields:
        key = FIELDS[field].key
        assert any(k.startswith("error.") for k in line) if key == "error.*" else key in line


def test_the_table_is_sound() -> None:
    for event in EVENTS.values():
        assert not set(event.needs) & set(event.may), event.name
        for field in (*event.needs, *event.may, *COMMON):
            assert field in FIELDS, f"{event.name}: {field} has no entry in FIELDS"
    keys = [field.key for field in FIELDS.values()]
    assert len(keys) == len(set(keys))


def test_the_page_is_in_step() -> None:
    assert (REPO / "docs" / "events.md").read_text(encoding="utf-8") == events.document()


def test_what_is_not_in_the_table_is_refused() -> None:
    log = logs.get_logger()
    with pytest.raises(logs.UnknownEventError, match=r"no event 'job\.clamed'"):
        logs.log_event(log, "job.clamed", job="a")
    with pytest.raises(logs.UnknownEventError, match="has no field pth"):
        logs.log_event(log, "job.claimed", job="a", path="b", pth="c")
    with pytest.raises(logs.UnknownEventError, match="lacks path"):
        logs.log_event(log, "job.claimed", job="a")


def test_bound_fields_count(out: io.StringIO) -> None:
    log = logs.get_logger(job="课程", job_id="7")
    logs.log_event(log, "segment.finished", segment=3, duration_seconds=1.5, device="cuda:0")
    (line,) = lines(out)
    assert line["heygemd.job.name"] == "课程"
    assert line["heygemd.job.id"] == "7"
    assert line["heygemd.segment.number"] == 3
    assert line["heygemd.device"] == "cuda:0"
    assert line["event.duration"] == 1_500_000_000
    assert line["message"] == "job 课程: segment 3 done"


def test_an_error_is_told_in_full(out: io.StringIO) -> None:
    try:
        raise RenderError("a.mp4: ffmpeg ended with 1")
    except RenderError as error:
        logs.log_event(logs.get_logger(), "job.failed", job="a", error=error)
    logs.log_event(logs.get_logger(), "job.failed", job="a", error=DiskFullError("no room").to_dict())
    try:
        raise ValueError("odd")
    except ValueError as error:
        logs.log_event(logs.get_logger(), "daemon.failed", error=error)
    first, second, third = lines(out)
    assert (first["error.type"], first["error.code"]) == ("RenderError", "HG-3000")
    assert first["error.message"] == "a.mp4: ffmpeg ended with 1"
    assert second["error.code"] == "HG-2001"
    assert third["error.type"] == "ValueError"
    assert "test_an_error_is_told_in_full" in third["error.stack_trace"]


@given(st.text(st.characters(codec=None), max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_name_breaks_a_line(name: str) -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(level="debug", format="json"), stream)
    logs.log_event(logs.get_logger(), "input.ignored", path=name, reason="x")
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text[:-1].splitlines()) == 1, "splitlines knows every line end there is"
    assert text.isprintable() or all(c.isprintable() or c in " \n" or ord(c) > 0x7F for c in text)
    assert json.loads(text)["file.path"] == name
    line = json.loads(text)
    assert len(line["message"].splitlines()) == 1 and "\x1b" not in line["message"], "as `jq -r .message` prints it"
    assert len(logs.for_people(line, colour=False).splitlines()) == 1
    logs.configure(LogSettings())


def test_surrogates_of_undecodable_names(out: io.StringIO) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    logs.log_event(logs.get_logger(), "input.ignored", path=name, reason="x")
    assert out.getvalue().encode("utf-8")
    assert os.fsencode(lines(out)[0]["file.path"]) == b"caf\xe9.mp4"


@pytest.mark.parametrize("where", ["reason", "trace", "many"])
def test_long_lines_are_cut_and_stay_json(out: io.StringIO, where: str) -> None:
    log = logs.get_logger()
    long = "长" * 200_000
    if where == "reason":
        logs.log_event(log, "input.ignored", path="a", reason=long)
    elif where == "trace":
        error = HeygemdError("x", traceback=f"first\n{long}\nlast words").to_dict()
        logs.log_event(log, "job.failed", job="a", error=error)
    else:
        log.warning("odd", **{f"f{i}": "y" * 150 for i in range(1000)})
    data = out.getvalue().encode()
    assert len(data) < 48 * 1024
    (line,) = lines(out)
    if where == "trace":
        assert line["error.stack_trace"].endswith("last words")
        assert "characters cut" in line["error.stack_trace"]
        assert line["message"] == "job a failed: x"


def test_levels_and_reload() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(level="info", format="json"), stream)
    log = logs.get_logger()
    logs.log_event(log, "scan.finished", files=3)
    assert stream.getvalue() == ""
    logs.configure(LogSettings(level="debug", format="json"), stream)
    logs.log_event(log, "scan.finished", files=3)
    assert len(lines(stream)) == 1, "a logger that was handed out before follows the reload"
    logs.configure(LogSettings())


def test_a_readable_line() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="console"), stream)
    logs.log_event(logs.get_logger(), "job.failed", job="a\nb", error=DiskFullError("no room"), duration_seconds=2)
    text = stream.getvalue()
    assert "job a\\nb failed: no room (2.0 s) [HG-2001]" in text
    assert "Free space" in text, "what to do belongs to it"
    assert "{" not in text
    logs.configure(LogSettings())


def test_a_file_beside(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "heygemd.log"
    logs.configure(LogSettings(format="console", file=str(path)), io.StringIO())
    logs.log_event(logs.get_logger(), "queue.resumed")
    logs.configure(LogSettings(), io.StringIO())
    assert json.loads(path.read_text())["event.action"] == "queue.resumed"


def test_the_file_is_rotated_between_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "FILE_BYTES", 2000)
    monkeypatch.setattr(outlets, "FILES_KEPT", 2)
    path = tmp_path / "heygemd.log"
    logs.configure(LogSettings(file=str(path)), io.StringIO())
    for number in range(50):
        logs.log_event(logs.get_logger(), "input.waiting", path=f"{number}.mp4", reason="课程" * 20)
    logs.configure(LogSettings(), io.StringIO())
    kept = [path.with_name("heygemd.log.2"), path.with_name("heygemd.log.1"), path]
    assert sorted(tmp_path.iterdir()) == sorted(kept), "more is kept than was asked for"
    written = [json.loads(line)["file.path"] for file in kept for line in file.read_text().splitlines()]
    assert written == [f"{number}.mp4" for number in range(50 - len(written), 50)], "whole lines, the newest, in order"
    assert all(file.stat().st_size < 3000 for file in kept), "far beyond the limit"


def test_a_full_disk_under_the_file_stops_nothing() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json", file="/dev/full"), stream)
    logs.log_event(logs.get_logger(), "queue.resumed")
    logs.configure(LogSettings(), io.StringIO())
    assert [line["event.action"] for line in lines(stream)] == ["queue.resumed"], "once, and no traceback"


def test_a_closed_stream_stops_nothing() -> None:
    stream = io.StringIO()
    logs.configure(LogSettings(format="json"), stream)
    stream.close()
    logs.log_event(logs.get_logger(), "queue.resumed")
    logs.configure(LogSettings())


def test_what_libraries_say_is_json_too(out: io.StringIO) -> None:
    logging.getLogger("some.library").warning("watch %s", "out\nnow")
    logging.getLogger("some.library").info("chatter")
    (line,) = lines(out)
    assert line["event.action"] == "library.message"
    assert line["event.reason"] == "some.library: watch out\nnow"


def test_python_warnings_are_json_too() -> None:
    code = "import warnings\nfrom heygemd.ops import logs\nlogs.configure(logs.LogSettings())\nwarnings.warn('old')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert "UserWarning: old" in json.loads(done.stderr)["event.reason"]


_CHILD = """
from heygemd.core.settings import LogSettings
from heygemd.ops import logs
logs.configure(LogSettings())
logs.log_event(logs.get_logger(), "daemon.degraded", reason="课 é 😀")
"""


def _run_child(**environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, check=True, env=os.environ | environment)


def test_no_prefix_when_stderr_is_not_the_journal() -> None:
    line = json.loads(_run_child(JOURNAL_STREAM="1:2").stderr)
    assert line["message"] == "degraded: 课 é 😀"


def test_the_priority_prefix_when_stderr_is_the_journal() -> None:
    read, write = os.pipe()
    status = os.fstat(write)
    stream = f"{status.st_dev}:{status.st_ino}"
    subprocess.run(
        [sys.executable, "-c", _CHILD], stderr=write, check=True, env=os.environ | {"JOURNAL_STREAM": stream}
    )
    os.close(write)
    with os.fdopen(read, "rb") as file:
        data = file.read()
    assert data.startswith(b"<4>{"), "warning is syslog's 4"
    assert json.loads(data[3:])["log.level"] == "warning"


def test_lines_are_utf8_whatever_the_locale() -> None:
    data = _run_child(PYTHONIOENCODING="latin-1").stderr
    assert json.loads(data.decode("utf-8"))["message"] == "degraded: 课 é 😀"


def test_the_log_never_loads_torch() -> None:
    code = "import sys, heygemd.ops.logs, heygemd.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _logged() -> Iterator[tuple[str, str, set[str], bool]]:
    """Every literal call of log, _log, log_event, on_event in the package: where, event, fields, whether **more."""
    for path in sorted((REPO / "heygemd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in ("log", "_log", "log_event", "_event", "_on_event"):
                continue
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if not texts or "." not in texts[0]:
                continue
            fields = {k.arg for k in node.keywords if k.arg}
            more = any(k.arg is None for k in node.keywords) or any(not isinstance(a, ast.Constant) for a in node.args)
            for argument in node.args:
                if isinstance(argument, ast.Dict):
                    fields |= {k.value for k in argument.keys if isinstance(k, ast.Constant)}
            yield f"{path.relative_to(REPO)}:{node.lineno}", texts[0], fields, more


def test_the_code_logs_only_what_the_table_knows() -> None:
    calls = list(_logged())
    assert len(calls) > 20, "the search itself must find something"
    for where, name, fields, more in calls:
        assert name in EVENTS, f"{where}: no event {name}"
        event = EVENTS[name]
        assert fields <= {*event.needs, *event.may, *COMMON}, f"{where}: {name} has no field {fields}"
        if not more:
            missing = set(event.needs) - fields - set(COMMON)
            assert not missing, f"{where}: {name} lacks {missing}"


def test_every_warning_has_an_entry_in_troubleshooting() -> None:
    page = (REPO / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))
    assert told == {event.name for event in EVENTS.values() if event.level in ("warning", "error")}
