"""Small media that tests make for themselves: one public-domain face, one synthetic voice. Nobody else's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np

SHARED = Path(__file__).resolve().parents[1] / "../shared/media"
"""Real clips, where the checkout has them beside it."""


def portrait(path: Path, size: int = 384) -> Path:
    """The public-domain astronaut's head and shoulders as a PNG, size x size."""
    from skimage import data

    image = data.astronaut()[0:300, 75:375]
    cv2.imwrite(
        str(path), cv2.cvtColor(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    )
    return path


def moving_portrait(
    path: Path, seconds: float = 2.0, fps: int = 25, size: int = 320, audio: Path | None = None
) -> Path:
    """The portrait as a video: it sways a little, so that every frame differs. H.264 with B-frames."""
    still = path.with_suffix(".png")
    portrait(still, size + 32)
    image = cv2.imread(str(still))
    still.unlink()
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size}x{size}"]
    command += ["-r", str(fps), "-i", "pipe:0"]
    if audio is not None:
        command += ["-i", f"file:{audio}", "-c:a", "aac", "-shortest"]
    command += [
        "-c:v",
        "libx264",
        "-crf",
        "16",
        "-preset",
        "veryfast",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "12",
        f"file:{path}",
    ]
    frames = []
    for i in range(round(seconds * fps)):
        x, y = 16 + 8 * np.sin(i / 9), 16 + 5 * np.sin(i / 7)
        turn = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
        frames.append(cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT).tobytes())
    subprocess.run(command, input=b"".join(frames), check=True)
    return path


def speech(
    path: Path, text: str = "Good morning, my name is Bob. Please come back tomorrow.", voice: str = "en-us"
) -> Path:
    """The text spoken by espeak-ng, WAV 22.05 kHz mono."""
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), "--", text], check=True)
    return path


def tone(path: Path, seconds: float, rate: int = 16000) -> Path:
    """A steady tone: sound without speech, quick to make and to decode."""
    source = f"sine=frequency=220:sample_rate={rate}:duration={seconds}"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, f"file:{path}"], check=True)
    return path


def framemd5(path: Path, extra: tuple[str, ...] = ()) -> list[str]:
    """MD5 of each decoded frame of the picture, as ffmpeg gives it."""
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-map", "0:v:0", *extra, "-f", "framemd5", "-"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.rsplit(",", 1)[1].strip() for line in text.splitlines() if not line.startswith("#")]


def probe(path: Path) -> dict[str, str]:
    """Some facts of the picture: width, height, r_frame_rate, nb_read_frames, pix_fmt, colour tags, duration."""
    entries = "stream=codec_name,width,height,r_frame_rate,nb_read_frames,pix_fmt,color_range,color_space"
    entries += ",color_transfer,color_primaries,sample_aspect_ratio,duration"
    command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", entries]
    text = subprocess.run([*command, "-of", "default=nw=1", f"file:{path}"], check=True, capture_output=True, text=True)
    return dict(line.split("=", 1) for line in text.stdout.splitlines() if "=" in line)


def sound_seconds(path: Path) -> float:
    command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "stream=duration", "-of", "csv=p=0"]
    return float(subprocess.run([*command, f"file:{path}"], check=True, capture_output=True, text=True).stdout)
