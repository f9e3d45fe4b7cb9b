import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.core.clip import ColourTags, VideoInfo
from heygemd.core.errors import DiskFullError, FfmpegError, VerifyError
from heygemd.media.encode import SegmentEncoder, track_timescale
from heygemd.media.frames import Frame, PlaneLayout, working_layout
from heygemd.media.mux import join, verify_output

from .conftest import ffmpeg


def picture(pix_fmt: str = "yuv420p", fps: Fraction = Fraction(30000, 1001), **more: object) -> VideoInfo:
    depth = int(pix_fmt[7:9]) if pix_fmt.endswith("le") else 8
    video = VideoInfo(
        width=96, height=64, fps=fps, num_frames=0, duration_seconds=0.0, pix_fmt=pix_fmt, bit_depth=depth
    )
    return replace(video, **more)  # type: ignore[arg-type]


def moving(video: VideoInfo, first: int, count: int) -> Iterator[Frame]:
    """Frames that depend on their number only: a moving ramp with noise, full depth."""
    layout = working_layout(video)
    for index in range(first, first + count):
        buffer = np.zeros(layout.frame_bytes, np.uint8)
        rng = np.random.default_rng(index)
        for plane in layout.planes(buffer):
            height, width = plane.shape
            ramp = (np.add.outer(np.arange(height), np.arange(width)) * 2 + index * 3) % 200
            plane[:] = ((ramp + rng.integers(0, 20, (height, width))) << (video.bit_depth - 8)).astype(plane.dtype)
        yield Frame.over(buffer, layout, index)


def decoded(path: Path, pix_fmt: str) -> NDArray[np.uint8]:
    data = ffmpeg("-i", path, "-map", "0:v:0", "-vsync", "passthrough", "-pix_fmt", pix_fmt, "-f", "rawvideo", "-")
    return np.frombuffer(data, np.uint8)


def ffprobe(path: Path, *wanted: str) -> dict[str, object]:
    import subprocess

    command = ["ffprobe", "-v", "error", "-of", "json", *wanted, str(path)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def segments(folder: Path, video: VideoInfo, lengths: list[int], **options: object) -> list[Path]:
    paths, first = [], 0
    for number, length in enumerate(lengths):
        path = folder / f"it's {number}.mp4"
        with SegmentEncoder(path, video, threads=2, **options) as encoder:  # type: ignore[arg-type]
            for frame in moving(video, first, length):
                encoder.write(frame)
        assert encoder.num_frames == length
        paths.append(path)
        first += length
    return paths


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p12le"])
def test_lossless_is_lossless(tmp_path: Path, pix_fmt: str) -> None:
    video = picture(pix_fmt)
    (path,) = segments(tmp_path, video, [7], lossless=True)
    expected = np.concatenate([frame.buffer for frame in moving(video, 0, 7)])
    assert np.array_equal(decoded(path, pix_fmt), expected)


@pytest.mark.parametrize("size", [(97, 63), (160, 284), (18, 16)])
def test_odd_and_tiny_sizes_survive(tmp_path: Path, size: tuple[int, int]) -> None:
    video = replace(picture("yuv444p"), width=size[0], height=size[1])
    (path,) = segments(tmp_path, video, [3], lossless=True)
    assert np.array_equal(decoded(path, "yuv444p"), np.concatenate([f.buffer for f in moving(video, 0, 3)]))


@pytest.mark.parametrize(
    ("pix_fmt", "fps"),
    [
        ("yuv420p", Fraction(25)),
        ("yuv420p", Fraction(30000, 1001)),
        ("yuv420p", Fraction(17, 3)),
        ("yuv420p10le", Fraction(24000, 1001)),
    ],
)
def test_joined_segments_are_their_concatenation_on_an_even_grid(
    tmp_path: Path, clip: Path, pix_fmt: str, fps: Fraction
) -> None:
    video = picture(pix_fmt, fps)
    lengths = [1, 17, 2, 30, 3]
    paths = segments(tmp_path, video, lengths)
    out = tmp_path / "out.mp4"
    join(paths, clip, out, video=video, segment_frames=lengths, work=tmp_path, audio_seconds=2.0, tags={"comment": "x"})
    assert np.array_equal(decoded(out, pix_fmt), np.concatenate([decoded(path, pix_fmt) for path in paths]))
    data = ffprobe(
        out, "-select_streams", "v:0", "-show_entries", "packet=pts,dts:stream=time_base,start_pts:format_tags"
    )
    packets, stream = data["packets"], data["streams"][0]  # type: ignore[index]
    time_base = Fraction(stream["time_base"])
    stamps = sorted(packet["pts"] for packet in packets)  # type: ignore[attr-defined]
    assert [pts * time_base for pts in stamps] == [index / fps for index in range(sum(lengths))]
    decode_stamps = [packet["dts"] for packet in packets]  # type: ignore[attr-defined]
    assert set(np.diff(decode_stamps).tolist()) == {int(1 / fps / time_base)}
    assert all(packet["dts"] <= packet["pts"] for packet in packets)  # type: ignore[attr-defined]
    assert data["format"]["tags"]["comment"] == "x"  # type: ignore[index]
    found = verify_output(out, num_frames=53, fps=fps, width=96, height=64, audio_seconds=2.0)
    assert found["audio_codec"] == "aac" and found["audio_seconds"] == pytest.approx(2.0, abs=0.001)
    assert not list(tmp_path.glob("*.ffconcat"))


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    (first,) = segments(tmp_path, picture(), [20])
    again = first.rename(tmp_path / "first.mp4")
    (second,) = segments(tmp_path, picture(), [20])
    assert again.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_tags_and_aspect_go_through(tmp_path: Path, pix_fmt: str) -> None:
    tags = ColourTags("bt2020", "arib-std-b67", "bt2020nc", "pc", "topleft")
    video = picture(pix_fmt, colour=tags, sample_aspect=Fraction(64, 45))
    paths = segments(tmp_path, video, [3, 2], lossless=True)
    out = tmp_path / "out.mp4"
    join(paths, None, out, video=video, segment_frames=[3, 2], work=tmp_path)
    stream = ffprobe(out, "-show_streams")["streams"][0]  # type: ignore[index]
    assert stream["color_primaries"] == "bt2020" and stream["color_transfer"] == "arib-std-b67"
    assert stream["color_space"] == "bt2020nc" and stream["color_range"] == "pc"
    assert stream["sample_aspect_ratio"] == "64:45"
    if pix_fmt == "yuv420p":
        assert stream["chroma_location"] == "topleft"
    raw = "yuvj420p" if pix_fmt == "yuv420p" else pix_fmt
    assert np.array_equal(decoded(out, raw), np.concatenate([f.buffer for f in moving(video, 0, 5)]))


@pytest.mark.parametrize("transfer", ["bt470m", "bt470bg", "smpte240m", "iec61966-2-1", "smpte2084", "linear"])
def test_every_name_that_a_probe_prints_is_understood(tmp_path: Path, transfer: str) -> None:
    """As an option of the output, ffmpeg 5 knows bt470bg by the name gamma28 alone."""
    video = picture(colour=ColourTags("bt470bg", transfer, "smpte240m", "tv"))
    (path,) = segments(tmp_path, video, [2])
    stream = ffprobe(path, "-show_streams")["streams"][0]  # type: ignore[index]
    assert stream["color_primaries"] == "bt470bg" and stream["color_transfer"] == transfer
    assert stream["color_space"] == "smpte240m" and stream["color_range"] == "tv"


def test_sound_of_lossless_jobs_is_kept_exactly(tmp_path: Path) -> None:
    speech = tmp_path / "speech.wav"
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=r=16000:d=0.5:seed=3", "-c:a", "pcm_s16le", speech)
    paths = segments(tmp_path, picture(), [15])
    out = tmp_path / "out.mp4"
    join(paths, speech, out, video=picture(), segment_frames=[15], work=tmp_path, lossless=True)
    assert ffmpeg("-i", out, "-vn", "-f", "s16le", "-") == ffmpeg("-i", speech, "-f", "s16le", "-")


def test_verify_names_every_difference(tmp_path: Path, clip: Path) -> None:
    verify_output(clip, num_frames=60, fps=Fraction(25), width=160, height=128, audio_seconds=2.4)
    with pytest.raises(VerifyError) as caught:
        verify_output(clip, num_frames=61, fps=Fraction(24), width=160, height=128, audio_seconds=3.0)
    for part in ("frames is 60, planned 61", "frame rate is 25/1", "the sound lasts"):
        assert part in str(caught.value)
    with pytest.raises(VerifyError, match="1 sounds"):
        verify_output(clip, num_frames=60, fps=Fraction(25), width=160, height=128, audio_seconds=None)


def test_a_failing_encoder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    video = replace(picture("yuv420p"), width=97)  # x264 refuses odd 4:2:0
    path = tmp_path / "segment.mp4"
    with pytest.raises(FfmpegError, match=r"segment\.mp4"), SegmentEncoder(path, video) as encoder:
        for frame in moving(video, 0, 50):
            encoder.write(frame)
    assert not path.exists()


def test_an_exception_stops_the_encoder_and_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "segment.mp4"
    with pytest.raises(KeyError), SegmentEncoder(path, picture()) as encoder:
        encoder.write(next(moving(picture(), 0, 1)))
        raise KeyError
    assert not path.exists()


def test_a_full_disk_is_called_by_its_name(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    paths = segments(tmp_path, picture(), [5])
    link = tmp_path / "out.mp4"
    link.symlink_to(full)
    with pytest.raises(DiskFullError, match=tmp_path.name):
        join(paths, None, link, video=picture(), segment_frames=[5], work=tmp_path)


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    layout = PlaneLayout.of("yuv420p", 32, 32)
    with pytest.raises(ValueError, match="1536 bytes"), SegmentEncoder(tmp_path / "a.mp4", picture()) as encoder:
        encoder.write(Frame.over(np.zeros(layout.frame_bytes, np.uint8), layout, 0))


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(17, 3), Fraction(1)])
def test_every_frame_lies_on_the_clock(fps: Fraction) -> None:
    ticks, frame_ticks = track_timescale(fps)
    assert Fraction(ticks, frame_ticks) == fps and ticks >= 12800
