"""A command line that reads nothing of this machine's configuration, and a small share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heygemd.cli import main
from heygemd.spool.layout import Layout

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("HEYGEMD_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    monkeypatch.setenv("HEYGEMD_CONFIG", str(empty))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "share", tmp_path / "state")
    made.ensure()
    return made


@pytest.fixture
def heygemd(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process, all the way: what it leaves on both descriptors and its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        told = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, told.out, told.err)

    return run


@pytest.fixture
def heygemd_process(tmp_path: Path) -> Run:
    """Run the real command in a child process, as a user does."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "heygemd.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def on(layout: Layout) -> list[str]:
    """The global options that point to the share."""
    return ["--root", str(layout.root), "--state", str(layout.state)]


def write_status(layout: Layout, job: str, state: str, **more: Any) -> dict[str, Any]:
    """A status file as the daemon writes it."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    view = {"version": 1, "job": job, "job_id": f"id-{job}", "state": state, "created": now, "updated": now, **more}
    (layout.status / f"{job}.json").write_text(json.dumps(view))
    return view
