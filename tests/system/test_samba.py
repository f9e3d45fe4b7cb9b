"""People drop files through a real Samba server: slowly, brokenly, all at once."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon
from tests.system.samba import Samba

NUM_BURST = int(os.environ.get("HEYGEMD_TEST_BURST_PAIRS", "200"))
"""Pairs that are dropped at once; 10000 takes minutes."""


@pytest.fixture(autouse=True)
def _tools() -> None:
    missing = [tool for tool in ("smbd", "smbclient") if shutil.which(tool) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{' and '.join(missing)} is not installed (apt install samba smbclient)")
    assert not missing


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small clip in a file of 3 MiB, so that an upload has a middle."""
    path = media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=0.3, size=96)
    with path.open("ab") as file:
        file.write(struct.pack(">I4s", 3 << 20, b"free") + b"\0" * ((3 << 20) - 8))
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Bob.")


@pytest.fixture
def share(tmp_path: Path) -> Iterator[tuple[Daemon, Samba]]:
    with Daemon(tmp_path / "share", state=tmp_path / "state", INBOX__PARTNER_TIMEOUT_SECONDS="600") as daemon:
        with Samba(daemon.root, tmp_path / "samba") as samba:
            daemon.start()
            daemon.wait(lambda: daemon.events("daemon.ready"), what="the daemon")
            yield daemon, samba
        (tmp_path / "transcript.txt").write_text("".join(samba.transcript))
        assert daemon.stop() == 0


def claimed(daemon: Daemon, name: str) -> bool:
    return any(event["heygemd.job.name"] == name for event in daemon.events("job.claimed"))


@pytest.mark.slow
def test_uploads_that_stop_break_and_come_again(
    share: tuple[Daemon, Samba], clip: Path, voice: Path, tmp_path: Path
) -> None:
    daemon, samba = share
    data = clip.read_bytes()
    third = len(data) // 3

    # slowly, with pauses far longer than the settling time: the open handle tells
    samba.client(f"put {voice} inbox/slow.wav")
    slow = samba.upload("inbox/slow.mp4")
    assert slow.stdin is not None
    for piece in (data[:third], data[third : 2 * third], data[2 * third :]):
        slow.stdin.write(piece)
        slow.stdin.flush()
        time.sleep(1.5)
        assert not claimed(daemon, "slow"), "half a file is no job"
    why = json.loads(daemon.cli("why", "--json", str(daemon.inbox / "slow.mp4")).stdout)
    slow.stdin.close()
    assert slow.wait(180) == 0

    # broken in the middle, then taken up again where it stopped; its sound comes last
    broken = samba.upload("inbox/broken.mp4")
    assert broken.stdin is not None
    broken.stdin.write(data[: 2 * third])
    broken.stdin.flush()
    daemon.wait((daemon.inbox / "broken.mp4").exists, what="the beginning of the upload")
    broken.kill()
    broken.wait()
    broken.stdin.close()
    samba.client(f"reput {clip} inbox/broken.mp4")
    samba.client(f"put {voice} inbox/broken.wav")

    # the whole size at once, the content later, as some clients do
    with (daemon.inbox / "prepared.mp4").open("wb") as file:
        file.truncate(len(data))
        samba.client(f"put {voice} inbox/prepared.wav")
        time.sleep(1.5)
        assert not claimed(daemon, "prepared")
        file.write(data)

    # an older file is replaced by a rename
    (tmp_path / "old").write_bytes(b"an old version that is no video")
    samba.client(f"put {tmp_path / 'old'} inbox/over.mp4; put {clip} inbox/over.mp4.part")
    samba.client("rename inbox/over.mp4.part inbox/over.mp4 -f")
    samba.client(f"put {voice} inbox/over.wav")

    for name in ("slow", "broken", "prepared", "over"):
        daemon.wait_state(name, "done", "failed")
        assert daemon.status(name)["state"] == "done", daemon.error(name)
        kept = next((daemon.root / "archive").glob(f"*/{name}/{name}.mp4"))
        assert kept.read_bytes() == data, f"{name}: what was rendered is what was meant"
    assert not list((daemon.root / "failed").iterdir())
    assert why["verdict"] in ("waiting", "settling"), why


@pytest.mark.slow
def test_names_that_differ_in_case_and_files_that_go(
    share: tuple[Daemon, Samba], clip: Path, voice: Path, tmp_path: Path
) -> None:
    daemon, samba = share
    (tmp_path / "nothing").touch()
    samba.client(f"put {tmp_path / 'nothing'} PAUSE")
    daemon.wait(lambda: daemon.events("queue.paused"), what="the pause")
    samba.client(f"put {clip} inbox/gone.mp4; put {voice} inbox/gone.wav")
    # one file under two spellings: Samba writes both to the first; they are a pair by the last step, not before
    samba.client(f"put {voice} inbox/LATER.wav; rename inbox/LATER.wav inbox/later.wav")
    samba.client(f"put {voice} inbox/Case.mp4; put {clip} inbox/CASE.MP4")
    samba.client("rename inbox/later.wav inbox/Case.wav")
    daemon.wait(lambda: claimed(daemon, "gone") and claimed(daemon, "Case"), what="both claims")
    samba.client("del inbox/gone.mp4; del inbox/gone.wav")
    samba.client("del PAUSE")
    daemon.wait_state("Case", "done", "failed")
    daemon.wait(lambda: daemon.events("job.cancelled"), what="the job whose files went")
    assert daemon.status("Case")["state"] == "done", daemon.error("Case")
    assert "taken away" in daemon.events("job.cancelled")[0]["event.reason"]
    # the same name in another case, later: a job of its own, a folder of its own
    samba.client(f"put {clip} inbox/case.mp4; put {voice} inbox/case.wav")
    daemon.wait(lambda: len(daemon.events("job.finished")) == 2, what="the second")
    folders = {path.name.casefold() for path in (daemon.root / "outbox").iterdir()}
    assert len(folders) == 2, folders
    listed = samba.client("ls outbox\\*").stdout
    assert all(folder in listed.casefold() for folder in folders)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_burst_of_small_pairs(tmp_path: Path) -> None:
    with (
        Daemon(tmp_path / "share", state=tmp_path / "state", LOG__LEVEL="debug") as daemon,
        Samba(daemon.root, tmp_path / "samba") as samba,
    ):
        (daemon.root / "PAUSE").touch()
        source = tmp_path / "source"
        source.mkdir()
        for number in range(NUM_BURST):
            (source / f"pair-{number:05d}.mp4").write_bytes(b"video %d" % number)
            (source / f"pair-{number:05d}.wav").write_bytes(b"sound %d" % number)
        daemon.start()
        daemon.wait(lambda: daemon.events("daemon.ready"), what="the daemon")
        started = time.monotonic()
        samba.client(f"lcd {source}; cd inbox; prompt off; mput pair-*", share="large", timeout_seconds=1200)
        uploaded = time.monotonic() - started
        daemon.wait(lambda: len(daemon.events("job.claimed")) == NUM_BURST, 600, "every claim")
        took = time.monotonic() - started
        assert daemon.process is not None
        peak_kib = int(
            next(
                line.split()[1]
                for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
                if line.startswith("VmHWM")
            )
        )
        scans = [event["event.duration"] / 1e9 for event in daemon.events("scan.finished")]
        print(  # noqa: T201 - the figures, with pytest -s
            f"{NUM_BURST} pairs: uploaded in {uploaded:.1f} s, all claimed after {took:.1f} s, longest scan "
            f"{max(scans):.2f} s, last {scans[-1]:.2f} s, daemon's peak {peak_kib / 1024:.0f} MiB"
        )
        assert len({event["heygemd.job.id"] for event in daemon.events("job.claimed")}) == NUM_BURST
        assert not daemon.events("job.failed")
        assert peak_kib / 1024 < 150 + NUM_BURST * 0.03
        assert daemon.stop() == 0


def test_the_transcript_is_kept(tmp_path: Path) -> None:
    """smbclient itself: what the other tests rest on."""
    (tmp_path / "share").mkdir()
    with Samba(tmp_path / "share", tmp_path / "work") as samba:
        samba.client(f"put {__file__} inbox.py")
        assert (tmp_path / "share" / "inbox.py").read_bytes() == Path(__file__).read_bytes()
        assert "put" in "".join(samba.transcript)
    assert subprocess.run(samba.command("ls"), capture_output=True).returncode != 0, "it is gone"
