"""A small clip with sound, made once for the whole run: moving, with B-frames and several key frames."""

import subprocess
from pathlib import Path

import pytest

SOURCE = "testsrc2=size=160x128:rate=25:duration=2.4,noise=alls=12:allf=t+u:all_seed=5"


def ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames of 160x128 at 25 fps, H.264 with B-frames, a key frame every 15; 2.4 s of tone, AAC."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", SOURCE, "-f", "lavfi", "-i", "sine=300:r=44100:d=2.4", "-c:v", "libx264", "-preset",
           "veryfast", "-bf", 3, "-g", 15, "-pix_fmt", "yuv420p", "-c:a", "aac", path)  # fmt: skip
    return path
