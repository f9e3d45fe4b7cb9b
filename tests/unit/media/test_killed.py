"""An ffmpeg that the kernel killed says nothing of the file: the job is tried again, the file is not blamed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from heygemd.core.errors import WorkerDiedError
from heygemd.media.decode import analysis_frames
from heygemd.media.probe import probe_video
from heygemd.work.meter import _children
from tests import media


def test_a_killed_decoder_is_not_the_end_of_the_clip(tmp_path: Path) -> None:
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=8.0, size=640)
    frames = analysis_frames(clip, probe_video(clip))
    found = iter(frames)
    next(found)
    for pid in _children():
        if Path(f"/proc/{pid}/comm").read_text().strip() == "ffmpeg":
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="was killed"):
        for _ in found:
            continue
