"""`doctor` on a good and on a broken machine."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from heygemd.cli.checks import Finding, gpu, machine, member, share, signing, tools, unit
from heygemd.config import Settings
from heygemd.core.settings import EngineSettings, ProvenanceSettings
from heygemd.gpu.devices import CardSnapshot
from heygemd.spool.layout import Layout
from tests.certificates import make_chain
from tests.landmarks import seeded_weights
from tests.ports import free_port

from .conftest import Run


def settings_of(layout: Layout, **more: object) -> Settings:
    return Settings(root=layout.root, state=layout.state, **more)  # type: ignore[arg-type]


def wrong(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level != "ok"]


def test_a_good_share(layout: Layout) -> None:
    findings = list(share.check_share(settings_of(layout)))
    assert wrong(findings) == []
    told = " ".join(finding.message for finding in findings)
    for words in ("fsync", "renamed", "never overwritten", "clock agrees", "can be locked", "GB free"):
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


# ------------------------------------------------------------------------------------------------ a member's files


@pytest.fixture
def inbox() -> Iterator[Path]:
    """An inbox of a group, where another user can reach it."""
    place = Path(tempfile.mkdtemp(prefix="heygemd-doctor-"))
    try:
        place.chmod(0o755)
        made = place / "inbox"
        made.mkdir()
        os.chown(made, -1, 65534)
        made.chmod(0o2770)
        yield made
    finally:
        shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, who becomes a member of the group")
def test_a_member_of_the_group_drops_a_file(inbox: Path) -> None:
    dropped = member.drop_as_member(inbox)
    assert dropped is not None
    assert dropped.stat().st_uid == 65534
    assert dropped.stat().st_mode & 0o777 == 0o600, "the umask was not narrow"
    (finding,) = member.check_member(inbox, dropped, tried=True)
    assert finding.level == "ok"  # root reads everything; the boot test asks as the service's user
    assert list(inbox.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, who becomes a member of the group")
def test_a_member_who_cannot_pass_the_folders_above(inbox: Path) -> None:
    inbox.parent.chmod(0o700)
    dropped = member.drop_as_member(inbox)
    assert dropped is None
    (finding,) = member.check_member(inbox, dropped, tried=True)
    assert finding.level == "fail"
    assert "cannot drop a file" in finding.message


def test_a_file_that_the_service_cannot_use(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    (finding,) = member.check_member(tmp_path, tmp_path / "gone.part", tried=True)
    assert finding.level == "fail"
    assert "setfacl" in finding.remedy


def test_without_root_the_acl_is_looked_at(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    (finding,) = member.check_member(tmp_path, None, tried=False)
    assert finding.level == "warn"
    assert "no default ACL" in finding.message
    tmp_path.chmod(0o700)
    (finding,) = member.check_member(tmp_path, None, tried=False)
    assert finding.level == "ok"


# ------------------------------------------------------------------------------------------------ cards


def card(problem: str | None = None) -> CardSnapshot:
    return CardSnapshot(0, "H100", "GPU-1", 80 * 2**30, 70 * 2**30, "580.1", {}, problem)


def torch_says(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def run(*_args: object, **_more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, words, "")

    monkeypatch.setattr(gpu.subprocess, "run", run)


@pytest.mark.parametrize(
    ("torch", "level", "words"),
    [
        ("2.13.0+cu130 13.0 True", "ok", "uses it (CUDA 13.0)"),
        ("2.13.0+cpu - False", "warn", "build for the CPU"),
        ("2.13.0+cu130 13.0 False", "fail", "cannot use the card"),
        ("", "fail", "cannot be imported"),
    ],
)
def test_a_card_and_the_torch_that_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, torch: str, level: str, words: str
) -> None:
    monkeypatch.setattr(gpu, "cards", lambda: [card()])
    torch_says(monkeypatch, torch)
    first, second = gpu.check_gpus(tmp_path)
    assert first.level == "ok"
    assert "70.0 of 80.0 GiB free, driver 580.1" in first.message
    assert (second.level, bool(second.remedy)) == (level, level != "ok")
    assert words in second.message


def test_a_card_that_the_driver_has_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "cards", lambda: [card("GPU is lost")])
    (finding,) = gpu.check_gpus(tmp_path)
    assert finding.level == "fail"
    assert "GPU is lost" in finding.message


def test_a_card_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "cards", list)
    for name, vendor, kind in (("0000:00:1f.0", "0x8086", "0x060100"), ("0000:01:00.0", "0x10de", "0x030200")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (finding,) = gpu.check_gpus(tmp_path)
    assert finding.level == "warn"
    assert "its driver does not answer" in finding.message
    shutil.rmtree(tmp_path / "0000:01:00.0")
    (finding,) = gpu.check_gpus(tmp_path)
    assert finding.level == "ok"


def test_a_damaged_checkpoint_is_named(layout: Layout) -> None:
    folder = layout.state / "checkpoints"
    folder.mkdir()
    (folder / "wav2lip.pth").write_bytes(b"cut off")
    told = [f for f in machine.check_machine(settings_of(layout)) if f.area == "models"]
    assert [f.level for f in told] == ["warn"]
    assert "wav2lip.pth" in told[0].message


def test_what_the_network_computes_in_is_told(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    from heygemd.engines.wav2lip.seeded import save_seeded
    from heygemd.engines.wav2lip.variants import COMPRESSED96

    def told(precision: str) -> tuple[str, str, str]:
        settings = settings_of(layout, engines=EngineSettings.model_validate({"precision": precision}))
        (found,) = [f for f in machine.check_machine(settings) if "computes in" in f.message]
        return found.level, found.message, found.remedy

    monkeypatch.setattr("heygemd.engines.wav2lip.precision._cpu_flags", lambda: frozenset({"avx512_vnni"}))
    (layout.state / "checkpoints").mkdir()
    save_seeded(COMPRESSED96, layout.state / "checkpoints" / "small.pth")
    assert told("auto") == ("ok", "wav2lip computes in float32 on cpu", "")
    assert told("bfloat16") == ("ok", "wav2lip computes in bfloat16 on cpu", "")
    level, message, remedy = told("int8")
    assert level == "warn" and message == "wav2lip computes in float32 on cpu, though engines.precision is int8"
    assert "engines.precision" in remedy


LANDMARKS_TOLD = ("landmarks from", "no landmarks", "rewrite's jobs will fail")


def test_whether_landmarks_are_in_use_is_told(layout: Layout) -> None:
    def told(**engines: str) -> tuple[str, str, str]:
        settings = settings_of(layout, engines=EngineSettings.model_validate(engines))
        (found,) = [f for f in machine.check_machine(settings) if f.message.startswith(LANDMARKS_TOLD)]
        return found.level, found.message, found.remedy

    assert told()[0] == "ok" and "no weights" in told()[1] and "colours and flow" in told()[1]
    assert "engines.landmarks is off" in told(landmarks="off")[1]
    (layout.state / "checkpoints").mkdir()
    path = layout.state / "checkpoints" / "2DFAN4-11f355bf06.pth.tar"
    path.write_bytes(b"cut off")
    level, message, remedy = told()
    assert level == "fail" and path.name in message and "engines.landmarks = 'off'" in remedy
    path.unlink()
    pytest.importorskip("torch")
    seeded_weights(path)
    assert told()[:2] == ("ok", f"landmarks from {path.name}: rewrite measures mouths with them")


def test_an_engine_that_is_none_is_named(layout: Layout) -> None:
    told = list(machine.check_machine(settings_of(layout, engines=EngineSettings(cpu_only=("rewrit",)))))
    (finding,) = [f for f in told if "cpu_only" in f.message]
    assert (finding.level, finding.area) == ("warn", "engine")
    assert "'rewrit'" in finding.message and "rewrite" in (finding.remedy or "")
    assert not any("cpu_only" in f.message for f in machine.check_machine(settings_of(layout)))


# ------------------------------------------------------------------------------------------------ service and ports


@pytest.mark.parametrize(
    ("state", "levels", "words"),
    [
        ({"ActiveState": "active", "StatusText": "2 jobs"}, ["ok"], "runs: 2 jobs"),
        ({"ActiveState": "failed", "Result": "watchdog"}, ["fail"], "has failed (watchdog)"),
        ({"ActiveState": "inactive"}, ["warn"], "does not run"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, ["warn"], "auto-restart"),
        ({"ActiveState": "active", "NRestarts": "3"}, ["ok", "warn"], "restarted 3 times"),
        ({"ActiveState": "active", "UnitFileState": "disabled"}, ["ok", "warn"], "does not start at boot"),
        ({}, ["warn"], "does not answer"),
    ],
)
def test_what_systemd_says(state: dict[str, str], levels: list[str], words: str) -> None:
    findings = list(unit.judge("heygemd.service", state))
    assert [finding.level for finding in findings] == levels
    assert words in findings[-1].message
    assert all(finding.remedy for finding in findings if finding.level != "ok")


class _Page(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_arguments: object) -> None: ...


@pytest.mark.parametrize(("body", "level"), [(b"heygemd_jobs 3", "ok"), (b"another exporter", "fail")])
def test_a_port_that_is_taken(body: bytes, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "_ANSWER_SECONDS", 120.0)  # the server is a thread of this process
    page = type("Page", (_Page,), {"body": body})
    with http.server.HTTPServer(("127.0.0.1", 0), page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            finding = unit.check_port("metrics", "metrics.port", "127.0.0.1", server.server_port, "/metrics")
        finally:
            server.shutdown()
            thread.join()
    assert finding.level == level, finding
    if level == "fail":
        assert "it is not heygemd's metrics" in finding.message
        assert "ss -ltnp" in finding.remedy


def test_a_port_that_is_free(layout: Layout) -> None:
    port = free_port()
    found = list(unit.check_ports(settings_of(layout, metrics={"port": port}, web={"port": 0})))
    assert [(f.level, f.message) for f in found] == [("ok", f"metrics.port {port} is free")]


# ------------------------------------------------------------------------------------------------ signing


def signed_by(folder: Path, **more: object) -> ProvenanceSettings:
    chain = make_chain(folder, **more)  # type: ignore[arg-type]
    return ProvenanceSettings(certificate=str(chain.certificate), private_key=str(chain.private_key))


def test_signing_is_tried(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    assert list(signing.check_signing(ProvenanceSettings())) == []
    days, tried = signing.check_signing(signed_by(tmp_path, valid_days=200.0))
    assert (days.level, tried.level) == ("ok", "ok")
    assert "Test signer of heygemd tests" in tried.message
    days, _ = signing.check_signing(signed_by(tmp_path, valid_days=10.5))
    assert days.level == "warn"
    assert "ends in 10 days" in days.message


def test_what_cannot_sign_is_told(tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    findings = list(signing.check_signing(signed_by(tmp_path, valid_days=-2.0)))
    assert [finding.level for finding in findings] == ["fail", "fail"]
    assert "ended on" in findings[0].message
    broken = signed_by(tmp_path).model_copy(update={"private_key": str(tmp_path / "none.pem")})
    (finding,) = signing.check_signing(broken)
    assert finding.level == "fail"
    assert "cannot be read" in finding.message
