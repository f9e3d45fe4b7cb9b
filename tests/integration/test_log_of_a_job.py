"""What ffmpeg said goes beside the job, never into the daemon's log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests import media
from tests.daemon import Daemon


def test_ffmpegs_words_go_with_the_failed_job_and_the_log_stays_json(tmp_path: Path) -> None:
    voice = media.speech(tmp_path / "voice.wav", "Good morning.")
    with Daemon(tmp_path / "share", LOG__LEVEL="debug") as daemon:
        (daemon.inbox / "talk.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(range(256)) * 400)
        shutil.copy(voice, daemon.inbox / "talk.wav")
        assert daemon.once() == 1
        said = (daemon.root / "failed" / "talk" / "ffmpeg.log").read_text()
        assert "talk.mp4" in said
        assert "moov atom not found" in said
        text = daemon.log.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert all(record["event.action"] for record in records)
    assert all(len(line.encode()) < 48 * 1024 for line in text.splitlines()), "the journal would cut it"
    assert "[mov,mp4" not in text, "ffmpeg's own lines are in the daemon's log"
