"""`doctor` on a good and on a broken machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from heygemd.cli.checks import Finding, share, tools
from heygemd.config import Settings
from heygemd.spool.layout import Layout

from .conftest import Run


def settings_of(layout: Layout, **more: object) -> Settings:
    return Settings(root=layout.root, state=layout.state, **more)  # type: ignore[arg-type]


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "ok"]


def test_a_good_share(layout: Layout) -> None:
    findings = list(share.check_share(settings_of(layout)))
    assert wrong(findings) == []
    told = " ".join(finding.message for finding in findings)
    for words in ("fsync", "renamed", "never overwritten", "clock agrees", "locked", "GB free"):
        assert words in told
    left = [path for path in layout.root.rglob("*") if path.name.startswith(".heygemd-") and path.suffix == ".part"]
    assert left == [], "the doctor cleans up behind itself"


def test_no_share(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "no", tmp_path)
    (finding,) = wrong(share.check_share(settings_of(layout)))
    assert finding.level == "fail"
    assert "no such folder" in finding.message
    assert finding.remedy


def test_a_share_that_is_not_mounted(layout: Layout) -> None:
    layout.sentinel.unlink()
    assert any("has not been used" in f.message for f in share.check_share(settings_of(layout)))


def test_another_share(layout: Layout) -> None:
    layout.sentinel.write_text('{"share": "other"}')
    (finding,) = wrong(share.check_share(settings_of(layout)))
    assert finding.level == "fail"
    assert "another share than before" in finding.message


def test_little_room(layout: Layout) -> None:
    findings = wrong(share.check_share(settings_of(layout, service={"min_free_share_bytes": 10**18})))
    assert [f.level for f in findings] == ["fail"]
    assert "the queue pauses" in findings[0].message


def test_a_group_folder_without_setgid(layout: Layout) -> None:
    layout.inbox.chmod(0o775)
    (finding,) = wrong(share.check_share(settings_of(layout)))
    assert finding.level == "warn"
    assert "setgid" in finding.message
    layout.inbox.chmod(0o2775)
    assert wrong(share.check_share(settings_of(layout))) == []


def test_state_on_a_network_filesystem(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "fs_type", lambda path: "nfs4" if path == layout.state else "ext4")
    (finding,) = wrong(share.check_share(settings_of(layout)))
    assert finding.level == "fail"
    assert "nfs4" in finding.message


def test_a_filesystem_that_cannot_sync_folders(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112 - a descriptor
            raise OSError(22, "Invalid argument")
        real(fd)

    monkeypatch.setattr(share.os, "fsync", fsync)
    (finding,) = wrong(share.check_share(settings_of(layout)))
    assert finding.level == "warn"
    assert "cannot be made durable" in finding.message


def test_a_clock_that_is_off() -> None:
    assert share._clock(1000.0, 1000.2, 1000.4).level == "ok"
    assert share._clock(1000.0, 1060.0, 1060.1).level == "warn"
    assert share._clock(9000.0, 1000.0, 1000.1).level == "fail"


def test_no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_IMPORTS", {"nosuchmodule": "install it"})
    findings = wrong(tools.check_tools())
    told = {f.message for f in findings}
    assert "ffmpeg is not installed" in told
    assert "espeak-ng is not installed: texts cannot be spoken" in told
    assert any("nosuchmodule cannot be imported" in message for message in told)
    assert all(f.remedy for f in findings)


def test_an_ffmpeg_without_what_we_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ffmpeg", "ffprobe"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\n[ "$1" = -version ] && echo "ffmpeg version 4.4.1"\nexit 0\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    told = [f.message for f in wrong(tools._ffmpeg())]
    assert any("too old" in message for message in told)
    assert any("libx265 is missing" in message for message in told)
    assert any(message.startswith("filters are missing") for message in told)


def test_the_command(heygemd: Run, on: list[str], layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_IMPORTS", {"cv2": "install it"})  # torch alone takes seconds
    done = heygemd("doctor", *on, "--json")
    document = json.loads(done.stdout)
    assert document["ok"] is (done.returncode == 0)
    assert document["counts"]["fail"] == 0, [f for f in document["findings"] if f["level"] == "fail"]
    layout.sentinel.write_text('{"share": "other"}')
    shown = heygemd("doctor", *on)
    assert shown.returncode == 1
    assert "FAIL  share" in shown.stdout
    assert "→" in shown.stdout
