"""`run` and `plan` around what renders, and `serve`'s edge."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heygemd.cli import foreground
from heygemd.cli.foreground import Bar, progress_bar
from heygemd.config import Settings
from heygemd.core.errors import CannotFitError, ConfigError, NoFaceError, ShareAwayError
from heygemd.core.settings import LogSettings
from heygemd.ops import logs
from heygemd.service.foreground import Progress

from .conftest import Run

PLAN = {"segments": [{"number": 0}], "batch": 8, "precision": "float32", "predicted_mib": 408, "estimate_seconds": 65.0}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    video, audio = tmp_path / "v.mp4", tmp_path / "a.wav"
    video.touch()
    audio.touch()
    return video, audio


def pretend(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> list[dict[str, Any]]:
    """Put `answer` (or raise it) in place of the service's function; what it was called with."""
    calls: list[dict[str, Any]] = []

    def fake(_settings: Any, **given: Any) -> Any:
        calls.append(given)
        if "on_progress" in given:
            given["on_progress"](Progress("rendering", 0.5, 3.0, ""))
        os.write(1, b"chatter of a library\n")
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(f"heygemd.service.foreground.{name}", fake)
    return calls


def test_run_hands_everything_over(
    heygemd: Run, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = pretend(monkeypatch, "render_one", {"job": "v", "engine": "rewrite"})
    done = heygemd("run", *pair, "-o", "o.mp4", "--engine", "rewrite", "-O", "quality=lossless")
    assert done.returncode == 0, done.stderr
    assert "o.mp4: done in" in done.stdout
    assert "engine rewrite" in done.stdout
    assert "50% rendering, 3 s left" in done.stderr
    (given,) = calls
    assert given["options"].lossless
    assert given["options"].engine == "rewrite"
    assert (given["video"], given["audio"], given["text"]) == (*pair, None)
    assert given["output"] == Path("o.mp4")


def test_run_as_json(heygemd: Run, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "render_one", {"job": "v"})
    done = heygemd("run", *pair, "-o", "o.mp4", "--json")
    assert json.loads(done.stdout) == {"job": "v"}
    pretend(monkeypatch, "render_one", NoFaceError("v.mp4: no face", path="v.mp4"))
    done = heygemd("run", *pair, "-o", "o.mp4", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["type"] == "NoFaceError"


@pytest.mark.parametrize(
    "wrong", [["v.mp4", "a.wav"], ["v.mp4", "-o", "o.mp4"], ["v.mp4", "a.wav", "-o", "o.mp4", "--text", "x"]]
)
def test_run_lacks_something(heygemd: Run, pair: tuple[Path, Path], wrong: list[str]) -> None:
    done = heygemd("run", *wrong)
    assert done.returncode == 2
    assert "Do: " in done.stderr


def test_plan(heygemd: Run, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pretend(monkeypatch, "plan_one", PLAN)
    done = heygemd("plan", *pair, "--gpu-mib", "8192,4096")
    assert done.returncode == 0, done.stderr
    assert calls[0]["gpu_mib"] == [8192, 4096]
    assert "408 MiB" in done.stdout
    assert "1 min 05 s" in done.stdout
    assert json.loads(heygemd("plan", *pair, "--json").stdout) == PLAN
    heygemd("plan", *pair, "--gpu-mib", "8192x2,4096")
    assert calls[-1]["gpu_mib"] == [8192, 8192, 4096], "as simulate spells them"


def test_plan_says_which_kind_of_device_and_why_not_a_gpu(
    heygemd: Run, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "plan_one", PLAN | {"device_kind": "cuda", "device_reason": None})
    assert "device     cuda\n" in heygemd("plan", *pair).stdout
    pretend(monkeypatch, "plan_one", PLAN | {"device_kind": "cpu", "device_reason": "engine rewrite uses no GPU"})
    assert "device     cpu (engine rewrite uses no GPU)\n" in heygemd("plan", *pair).stdout


def test_plan_that_cannot_fit_exits_75(heygemd: Run, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"refused": True, "reason": "needs 9000 MiB", "remedy": "Give it a larger device."}
    pretend(monkeypatch, "plan_one", refused)
    done = heygemd("plan", *pair, "--json")
    assert done.returncode == CannotFitError.exit_code == 75
    assert json.loads(done.stdout) == refused
    shown = heygemd("plan", *pair)
    assert shown.returncode == 75
    assert "needs 9000 MiB" in shown.stdout and "Give it a larger device." in shown.stdout


@pytest.mark.parametrize("sizes", ["", "big", "0", "8192,-1"])
def test_sizes_of_cards(heygemd: Run, pair: tuple[Path, Path], sizes: str) -> None:
    done = heygemd("plan", *pair, "--gpu-mib", sizes)
    assert done.returncode == 2
    assert "whole numbers of MiB" in done.stderr


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(None, quiet=False)
    for percent in range(101):
        bar.show("rendering", percent / 100, None)
    assert len(capsys.readouterr().err.splitlines()) == 11
    with progress_bar(show=False) as quiet:
        quiet.show("rendering", 0.5, None)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(foreground.sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar(show=True) as bar:
        bar.show("rendering", 0.5, 65)
    assert "rendering" in terminal.getvalue()
    assert "1 min 05 s left" in terminal.getvalue()


def test_serve_gives_the_daemons_exit_code(heygemd: Run, on: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def fake(settings: Any, *, once: bool, **_: Any) -> int:
        calls.append(once)
        return 1

    monkeypatch.setattr("heygemd.service.serve.serve", fake)
    assert heygemd("serve", "--once", *on).returncode == 1
    assert calls == [True]
    logs.configure(LogSettings())


def test_a_reload_reads_the_file_again_and_refuses_a_bad_one(
    heygemd: Run, on: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("[inbox]\nscan_seconds = 3\n")

    def fake(settings: Settings, *, once: bool, reload: Callable[[], Settings]) -> int:
        assert settings.inbox.scan_seconds == 3
        config.write_text("[inbox]\nscan_seconds = 4\n[log]\nlevel = 'debug'\n")
        new = reload()
        assert new.inbox.scan_seconds == 4
        assert (new.root, new.state) == (settings.root, settings.state), "the command line still counts"
        assert logs._output.threshold == 10, "the log follows the reload"
        config.write_text("[inbox]\nscan_second = 4\n")
        with pytest.raises(ConfigError, match="did you mean"):
            reload()
        return 0

    monkeypatch.setattr("heygemd.service.serve.serve", fake)
    assert heygemd("serve", *on, "--config", config).returncode == 0
    logs.configure(LogSettings())


@pytest.mark.parametrize("error", [ShareAwayError("the share is away"), RuntimeError("boom")])
def test_the_last_line_of_a_service_is_json_too(
    heygemd: Run, on: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fake(*_: Any, **__: Any) -> int:
        raise error

    monkeypatch.setattr("heygemd.service.serve.serve", fake)
    done = heygemd("serve", *on)
    assert done.returncode == getattr(error, "exit_code", 1)
    line = json.loads(done.stderr)
    assert line["event.action"] == "daemon.failed"
    assert line["error.message"] == str(error)
    logs.configure(LogSettings())


def test_serve_with_a_log_file_that_cannot_be(heygemd: Run, on: list[str], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f"[log]\nfile = '{tmp_path / 'empty.toml'}/x.log'\n")
    done = heygemd("serve", *on, "--config", config)
    assert done.returncode == ConfigError.exit_code
    assert "log.file" in json.loads(done.stderr)["error.message"]
