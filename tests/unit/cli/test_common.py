"""What every command does alike: errors, suggestions, exit codes, pure JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import heygemd
from heygemd.cli import app, hoist, main
from heygemd.cli.common import parse_options, seconds_in_words, speech_of
from heygemd.core.errors import BadInputError, UsageError

from .conftest import Run

COMMANDS = (
    *("serve", "run", "plan", "submit", "status", "why", "retry", "cancel", "pause", "resume", "clean"),
    *("doctor", "check-config", "demo"),
)


def test_every_command_explains_itself() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for name in COMMANDS:
        assert name in shown.output
        own = CliRunner().invoke(app, [name, "--help"])
        assert own.exit_code == 0, name
        assert "Usage" in own.output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, heygemd.cli\n"
        "heygemd.cli.main(['--version'])\n"
        "heavy = {'torch', 'cv2', 'librosa', 'pydantic', 'structlog', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"heygemd {heygemd.__version__}"


def test_global_options_may_stand_anywhere() -> None:
    assert hoist(["serve", "--root", "/a", "--once"]) == ["--root", "/a", "serve", "--once"]
    assert hoist(["status", "--state=/b", "x", "--debug"]) == ["--state=/b", "--debug", "status", "x"]
    assert hoist(["why", "--", "--root"]) == ["why", "--", "--root"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stats"], "Did you mean 'status'?"),
        (["status", "--wacth"], "did you mean --watch?"),
        (["run", "v.mp4", "a.wav", "-o", "o.mp4", "--option", "qualty=3"], "did you mean quality?"),
        (["run", "v.mp4", "a.wav", "-o", "o.mp4", "--engine", "rewrit"], "did you mean rewrite?"),
        (["status", "--root"], "--root needs a value"),
        (["retry"], "missing argument 'JOB'"),
        (["web", "--prot", "1"], "did you mean --port?"),
        (["run", "v.mp4", "a.wav", "-o", "o.mp3"], "Let its name end in .mp4."),
        (["submit", "v.mp4", "a.wav", "--priority", "high"], "--priority: must be a valid integer"),
    ],
)
def test_a_typo_gets_a_suggestion(heygemd: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "v.mp4").touch()
    (tmp_path / "a.wav").touch()
    done = heygemd(*arguments)
    assert done.returncode == 2
    assert words.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert "HG-1013" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--jsn", "--json"],
        ["statu", "--json"],
        ["run", "missing.mp4", "a.wav", "-o", "o.mp4", "--json"],
        ["plan", "missing.mp4", "a.wav", "--json"],
        ["submit", "missing.mp4", "a.wav", "--json"],
        ["status", "--json", "--root", "nowhere"],
        ["why", "x", "--json", "--root", "nowhere"],
        ["clean", "--json", "--root", "nowhere"],
        ["check-config", "--json", "--config", "nowhere.toml"],
    ],
)
def test_errors_are_one_json_document(heygemd: Run, arguments: list[str]) -> None:
    done = heygemd(*arguments)
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == done.returncode
    assert done.returncode in (1, 2, 75)
    assert error["code"].startswith("HG-")
    assert error["message"]
    assert error["remedy"]


def test_an_error_says_what_where_what_to_do_and_its_code(heygemd: Run) -> None:
    done = heygemd("run", "no such.mp4", "a.wav", "-o", "o.mp4")
    assert done.returncode == 2
    assert "Error: VIDEO no such.mp4: there is no such file" in done.stderr
    assert "Do:    Check the name." in done.stderr
    assert "Code:  HG-1000 (docs/troubleshooting.md)" in done.stderr


def test_debug_shows_where_it_comes_from(heygemd: Run) -> None:
    assert "Traceback" in heygemd("run", "no.mp4", "a.wav", "-o", "o.mp4", "--debug").stderr


def test_every_problem_of_the_configuration_is_listed(heygemd: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[inbox]\nscan_second = 1\nsettle_scan = 2\n")
    done = heygemd("check-config", "--config", bad)
    assert done.returncode == 2
    assert "did you mean inbox.scan_seconds?" in done.stderr
    assert "did you mean inbox.settle_scans?" in done.stderr


def test_check_config(heygemd: Run, tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text("[inbox]\nscan_seconds = 2.5\n")
    done = heygemd("check-config", "--config", good)
    assert done.returncode == 0
    assert "inbox.scan_seconds = 2.5" in done.stdout
    document = json.loads(heygemd("check-config", "--json", "--config", good).stdout)
    assert document["ok"] is True
    assert document["settings"]["inbox"]["scan_seconds"] == 2.5
    assert "#scan_seconds = 5.0" in heygemd("check-config", "--defaults").stdout


def test_a_bug_is_a_sentence_and_a_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("heygemd.config.document", broken)
    assert main(["check-config", "--defaults"]) == 1
    told = capsys.readouterr().err
    assert "RuntimeError: boom" in told
    assert "mistake in heygemd" in told
    assert "Traceback" not in told


def test_the_real_command(heygemd_process: Run, tmp_path: Path) -> None:
    done = heygemd_process("status", "--jsn", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "HG-1013"
    assert done.stderr == ""
    done = heygemd_process("stats")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'status'?" in done.stderr
    good = heygemd_process("check-config", "--root", tmp_path, "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["settings"]["root"] == str(tmp_path)


def test_what_libraries_print_does_not_spoil_the_document(tmp_path: Path) -> None:
    code = (
        "import os, sys, heygemd.cli.common as common\n"
        "common.stdout.set_aside()\n"
        "print('chatter'); os.write(1, b'more chatter\\n'); os.system('echo a child')\n"
        "common.print_json({'name': os.fsdecode(b'caf\\xe9'), 'text': '课'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    document = json.loads(done.stdout.decode("utf-8"))
    assert document["text"] == "课"
    assert os.fsencode(document["name"]) == b"caf\xe9"
    for chatter in (b"chatter", b"more chatter", b"a child"):
        assert chatter in done.stderr


def test_file_names_cannot_move_the_cursor(heygemd: Run) -> None:
    done = heygemd("run", "a\x1b[2J\nError: fine.mp4", "a.wav", "-o", "o.mp4")
    assert done.returncode == 2
    assert "\x1b[2J" not in done.stderr
    assert not any(line.startswith("Error: fine") for line in done.stderr.splitlines())


def test_options() -> None:
    options = parse_options(["quality=best", "sync-offset-seconds=0.2", "reference=true", "face=1,2,30,40"], "rewrite")
    assert options.crf == 12
    assert options.sync_offset_seconds == 0.2
    assert options.reference is True
    assert options.face_box == (1, 2, 30, 40)
    assert options.engine == "rewrite"
    with pytest.raises(UsageError, match="must be KEY=VALUE"):
        parse_options(["quality"])
    with pytest.raises(UsageError, match=r"--option quality=99: must be a CRF from 0 to 51"):
        parse_options(["quality=99"])
    with pytest.raises(UsageError, match=r"extend=bounce: must be 'pingpong', 'loop' or 'freeze'"):
        parse_options(["extend=bounce"])


def test_a_recording_or_a_text(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    audio.touch()
    assert speech_of(audio, None) == (audio, None)
    assert speech_of(None, "hello") == (None, "hello")
    for wrong in ((None, None), (audio, "hello"), (None, "  ")):
        with pytest.raises(UsageError):
            speech_of(*wrong)
    with pytest.raises(BadInputError, match="is not a file"):
        speech_of(tmp_path, None)


def test_seconds_in_words() -> None:
    assert [seconds_in_words(s) for s in (None, 0, 59.4, 65, 3600 * 3 + 240)] == [
        "",
        "0 s",
        "59 s",
        "1 min 05 s",
        "3 h 04 min",
    ]


def test_exit_code_of_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("heygemd.config.document", interrupted)
    assert main(["check-config", "--defaults"]) == 130


def test_app_is_a_plain_typer() -> None:
    assert isinstance(app, typer.Typer), "other groups register themselves on it"
