"""Every awkward input of tests/awkward.py, at the level of media: what can be read is read the same however it is
split, and what cannot be read ends in the right error."""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from heygemd.core import errors
from heygemd.core.clip import VideoInfo
from heygemd.media.audio import load_speech, probe_audio
from heygemd.media.decode import FrameReader, analysis_frames
from heygemd.media.encode import SegmentEncoder
from heygemd.media.ffmpeg import Child
from heygemd.media.frames import Frame, FrameTable
from heygemd.media.mux import join, verify_output
from heygemd.media.pixels import raw_format
from heygemd.media.probe import counted, probe_video
from tests import awkward

pytestmark = pytest.mark.slow

VIDEOS = [name for name, item in awkward.ITEMS.items() if item.kind in ("video", "any") and item.error is None]
SOUNDS = [name for name, item in awkward.ITEMS.items() if item.kind in ("audio", "any") and item.error is None]
BROKEN = [name for name, item in awkward.ITEMS.items() if item.error is not None]
DAMAGED = {"truncated_with_index", "corrupted_bytes"}

# (width, height, fps) and whatever else of VideoInfo the item is about
EXPECTED: dict[str, dict[str, object]] = {
    "rotated_90": {"width": 400, "height": 480},
    "rotated_180": {"width": 400, "height": 480, "rotation_degrees": 180},
    "rotated_270_422": {"width": 400, "height": 480, "pix_fmt": "yuv444p10le", "sample_aspect": Fraction(3, 4)},
    "variable_rate": {"variable_rate": True},
    "webm_variable": {"variable_rate": True, "fps": Fraction(25)},
    "rate_23_976": {"fps": Fraction(24000, 1001)},
    "rate_29_97": {"fps": Fraction(30000, 1001)},
    "rate_60": {"fps": Fraction(60)},
    "million_fps": {"fps": Fraction(25)},
    "rate_240": {"fps": Fraction(120), "variable_rate": True},
    "odd_size": {"width": 301, "height": 333, "pix_fmt": "yuv444p"},
    "odd_size_420": {"width": 301, "height": 333, "pix_fmt": "yuv444p"},
    "prores_422_10": {"pix_fmt": "yuv422p10le", "bit_depth": 10, "codec": "prores"},
    "prores_4444_alpha": {"codec": "prores"},
    "hevc_main10": {"pix_fmt": "yuv420p10le", "codec": "hevc"},
    "hevc_open_gop": {"codec": "hevc", "fps": Fraction(25)},
    "hlg": {"pix_fmt": "yuv420p10le"},
    "hdr10": {"pix_fmt": "yuv420p10le"},
    "full_range": {"pix_fmt": "yuv420p"},
    "full_range_10": {"pix_fmt": "yuv420p10le"},
    "motion_jpeg": {"pix_fmt": "yuv422p"},
    "anamorphic": {"sample_aspect": Fraction(4, 3)},
    "interlaced": {"interlaced": True, "fps": Fraction(25), "variable_rate": False},
    "vp9_opus": {"codec": "vp9"},
    "av1": {"codec": "av1"},
    "mpeg4_mp3_avi": {"codec": "mpeg4", "fps": Fraction(25)},
    "h264_avi": {"codec": "h264", "fps": Fraction(25)},
    "ts_from_10s": {"codec": "h264", "fps": Fraction(25), "num_frames": 63 if awkward.MEDIA.exists() else 62},
    "windows_media": {"codec": "wmv2"},
    "no_audio": {"has_audio": False},
    "tiny": {"width": 160, "height": 284},
    "four_k": {"width": 3840, "height": 2160},
    "one_frame": {"num_frames": 1},
    "still_png": {"still": True, "pix_fmt": "yuv420p"},
    "still_odd_jpg": {"still": True, "pix_fmt": "yuv444p"},
    "still_webp": {"still": True},
    "still_gray": {"still": True, "pix_fmt": "yuv420p"},
    "still_alpha": {"still": True},
    "animated_gif": {"fps": Fraction(10)},
}
COLOURS: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "hlg": ("bt2020", "arib-std-b67", "bt2020nc", "tv"),
    "hdr10": ("bt2020", "smpte2084", "bt2020nc", "tv"),
    "full_range": (None, None, None, "pc"),
    "full_range_10": (None, None, None, "pc"),
    "motion_jpeg": (None, None, "bt470bg", "pc"),
    "still_gray": (None, None, None, "pc"),
    "still_png": ("bt709", "bt709", "bt709", "tv"),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


def first_pass(path: Path) -> tuple[VideoInfo, FrameTable]:
    video = probe_video(path)
    frames = analysis_frames(path, video, longest_side=320)
    for image in frames:
        assert max(image.image.shape[:2]) <= 320 or image.scale == 1
    return counted(video, frames.table), frames.table


def digests(frames: Iterable[Frame]) -> list[str]:
    return [hashlib.md5(frame.buffer).hexdigest() for frame in frames]  # noqa: S324 - a checksum of pictures


def raw_digests(path: Path, pix_fmt: str, frame_bytes: int) -> list[str]:
    """What plain ffmpeg decodes, straight from its command line."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:v:0", "-vsync", "passthrough"]
    buffer = np.empty(frame_bytes, np.uint8)
    found = []
    with Child([*command, "-pix_fmt", pix_fmt, "-f", "rawvideo", "-"]) as child:
        while child.read_into(buffer.data) == frame_bytes:
            found.append(hashlib.md5(buffer).hexdigest())  # noqa: S324 - a checksum of pictures
    return found


@pytest.mark.parametrize("name", VIDEOS)
def test_video(name: str, folder: Path, tmp_path: Path) -> None:
    path = awkward.make(name, folder)
    video, table = first_pass(path)
    for key, value in EXPECTED.get(name, {}).items():
        assert getattr(video, key) == value, key
    if name in COLOURS:
        tags = video.colour
        assert (tags.primaries, tags.transfer, tags.matrix, tags.range) == COLOURS[name]
    if name in DAMAGED:
        assert any("damaged" in note for note in video.notes)

    # the whole, then three random parts, each by a reader of its own
    reader = FrameReader(path, video, table)
    whole = digests(reader.read(0, len(table)))
    assert len(whole) == len(table) == video.num_frames
    rng = random.Random(name)
    for _ in range(3):
        first, stop = sorted((rng.randint(0, len(table)), rng.randint(0, len(table))))
        assert digests(FrameReader(path, video, table).read(first, stop)) == whole[first:stop], (first, stop)
    turning = [*range(len(table)), *range(len(table) - 1, -1, -1)][: len(table) + 9]
    assert digests(reader.sequence(turning)) == [whole[index] for index in turning]

    # planar YUV is never converted
    if name not in DAMAGED and video.source_pix_fmt == raw_format(video) and not video.interlaced:
        plain = tmp_path / f"plain{path.suffix}"  # ffmpeg left to itself takes %d in a name for a pattern
        plain.write_bytes(path.read_bytes())
        assert whole == raw_digests(plain, raw_format(video), reader.layout.frame_bytes)

    # lossless segments at the constant rate, joined: exactly these pictures, on an even grid
    order = table.constant_rate(video.fps)[: 24 if video.width < 2000 else 4]
    halves = [order[: len(order) // 2], order[len(order) // 2 :]]
    lengths, paths = [], []
    for part in (half for half in halves if len(half)):
        segment = tmp_path / f"{len(paths)}.mp4"
        with SegmentEncoder(segment, video, lossless=True, preset="ultrafast", threads=2) as encoder:
            for frame in reader.sequence(part):
                encoder.write(frame)
        lengths.append(encoder.num_frames)
        paths.append(segment)
    out = tmp_path / "out.mp4"
    join(paths, None, out, video=video, segment_frames=lengths, work=tmp_path)
    found = verify_output(
        out, num_frames=len(order), fps=video.fps, width=video.width, height=video.height, audio_seconds=None
    )
    assert raw_digests(out, found["pix_fmt"], reader.layout.frame_bytes) == [whole[index] for index in order]
    again = probe_video(out)
    assert again.sample_aspect == video.sample_aspect
    assert replace(again.colour, chroma_location=None, range=None) == replace(
        video.colour, chroma_location=None, range=None
    )
    assert (again.colour.range or "tv") == (video.colour.range or "tv")


@pytest.mark.parametrize("name", SOUNDS)
def test_sound(name: str, folder: Path, tmp_path: Path) -> None:
    path = awkward.make(name, folder)
    info = probe_audio(path)
    speech = load_speech(path)
    assert len(speech) == round(info.duration_seconds * 16000)
    assert np.isfinite(speech).all() and np.abs(speech).max() <= 1
    expected_seconds = {
        "silent_audio": 2.0,
        "a_tenth_of_a_second": 0.1,
        "one_hour": 3600.0,
        "audio_late": 3.2,
        "video_late": 2.5,
        "nasty_name": 2.5,
    }.get(name, 2.2)
    tolerance_seconds = 0.05 if awkward.MEDIA.exists() else 0.12  # the synthetic voice has a lower rate: larger blocks
    assert info.duration_seconds == pytest.approx(expected_seconds, abs=tolerance_seconds)
    if name == "silent_audio":
        assert not speech.any()
        return
    assert np.sqrt(np.mean(speech**2)) > 0.02
    if name == "audio_late":
        assert np.abs(speech[: int(0.65 * 16000)]).max() < 0.01
    if name == "one_hour":
        return

    # the sound that is muxed lies where load_speech heard it
    video = VideoInfo(64, 64, Fraction(25), 0, 0.0, "yuv420p")
    num_frames = round(info.duration_seconds * 25)
    segment, out = tmp_path / "0.mp4", tmp_path / "out.mp4"
    with SegmentEncoder(segment, video, preset="ultrafast") as encoder:
        for _ in range(num_frames):
            encoder.write(Frame(0, np.full(64 * 64 * 3 // 2, 128, np.uint8), ()))
    join(
        [segment], path, out, video=video, segment_frames=[num_frames], work=tmp_path,
        audio_seconds=info.duration_seconds, lossless=True,
    )  # fmt: skip
    verify_output(out, num_frames=num_frames, fps=video.fps, width=64, height=64, audio_seconds=info.duration_seconds)
    heard = load_speech(out)
    common = min(len(heard), len(speech))
    assert common == pytest.approx(len(speech), abs=16)
    assert np.corrcoef(heard[:common], speech[:common])[0, 1] > 0.99


@pytest.mark.parametrize("name", BROKEN)
def test_broken_inputs_end_in_one_clear_line(name: str, folder: Path) -> None:
    item = awkward.ITEMS[name]
    path = awkward.make(name, folder)
    kind = getattr(errors, item.error or "")
    for probe in [probe_video] * (item.kind != "audio") + [probe_audio] * (item.kind != "video"):
        with pytest.raises(kind) as caught:
            probe(path)
        assert str(caught.value).startswith(path.name + ": ")
        assert "\n" not in str(caught.value)
        assert str(path.parent) not in str(caught.value)
