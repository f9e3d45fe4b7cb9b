"""Commands that root runs beside a stopped service leave nothing behind that would lock the service out."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from heygemd.cli.identity import become_service_user
from heygemd.spool.layout import Layout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: needs root, who becomes somebody else")

CHECKOUT = Path(__file__).resolve().parents[3]
SERVICE = pwd.getpwnam("nobody")


@pytest.fixture
def share() -> Iterator[Layout]:
    """A share and a state folder that belong to another user, where that user can reach them."""
    place = Path(tempfile.mkdtemp(prefix="heygemd-identity-"))
    try:
        place.chmod(0o755)
        layout = Layout(place / "share", place / "state")
        layout.ensure()
        for path in (place, *place.rglob("*")):
            os.chown(path, SERVICE.pw_uid, SERVICE.pw_gid)
        yield layout
    finally:
        shutil.rmtree(place)


def everybodys_python() -> list[str]:
    """An interpreter with our packages that another user can run: this one, or the system's of the same version."""
    ours = Path(sys.executable).resolve()
    if all(part.stat().st_mode & 0o001 for part in (ours, *ours.parents)):
        return [sys.executable]
    version = "import sys; print(*sys.version_info[:2])"
    system = subprocess.run(["/usr/bin/python3", "-c", version], check=False, capture_output=True, text=True).stdout
    if system.split() != [str(number) for number in sys.version_info[:2]]:
        pytest.skip(f"NOT RUN: nobody but root may run {ours}")
    return ["env", f"PYTHONPATH={CHECKOUT}:{Path(pytest.__file__).parents[1]}", "/usr/bin/python3"]


def heygemd(layout: Layout, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [*everybodys_python(), "-m", "heygemd.cli", "--root", str(layout.root), "--state", str(layout.state)]
    environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if key in os.environ}
    return subprocess.run(
        [*command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        user=user,
        group=None if user is None else SERVICE.pw_gid,
        env={**environment, "HEYGEMD_CONFIG": "/dev/null", "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=240,
    )


def owners(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.mark.slow
def test_what_root_does_first_does_not_lock_the_service_out(share: Layout) -> None:
    for arguments in (["serve", "--once"], ["status"], ["clean"], ["why", str(share.inbox / "x.mp4")], ["pause"]):
        done = heygemd(share, *arguments)
        assert done.returncode in (0, 2, 75), f"{arguments}: {done.stderr}"  # no daemon to answer, no such file
    assert share.journal.exists(), "nothing was tried"
    strangers = {path for path, uid in (owners(share.state) | owners(share.root)).items() if uid != SERVICE.pw_uid}
    assert strangers == set()
    done = heygemd(share, "serve", "--once", user=SERVICE.pw_uid)
    assert done.returncode == 0, done.stderr


def test_root_stays_root_where_the_state_is_roots(tmp_path: Path) -> None:
    assert become_service_user(tmp_path) is None
    assert become_service_user(tmp_path / "not made yet") is None
    assert os.geteuid() == 0


def test_root_submits_what_only_root_may_read(share: Layout, tmp_path: Path) -> None:
    video, speech, consent = tmp_path / "v.mp4", tmp_path / "s.wav", tmp_path / "paper.pdf"
    for path in (video, speech, consent):
        path.write_bytes(b"x")
        path.chmod(0o600)
    done = heygemd(share, "submit", str(video), str(speech), "--name", "mine", "--consent", str(consent))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in share.inbox.iterdir()} == {
        "mine.video.mp4",
        "mine.audio.wav",
        "mine.consent.pdf",
        "mine.job.json",
    }
