from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import UnreadableMediaError
from heygemd.media.decode import FrameReader, _runs, analysis_frames
from heygemd.media.frames import FrameTable
from heygemd.media.probe import probe_video, scaled

from .conftest import ffmpeg


def first_pass(path: Path) -> tuple[VideoInfo, FrameTable]:
    video = probe_video(path)
    frames = analysis_frames(path, video)
    for _ in frames:
        pass
    return video, frames.table


def planes_by_ffmpeg(path: Path, pix_fmt: str) -> NDArray[np.uint8]:
    data = ffmpeg("-i", path, "-map", "0:v:0", "-vsync", "passthrough", "-pix_fmt", pix_fmt, "-f", "rawvideo", "-")
    return np.frombuffer(data, np.uint8)


@pytest.fixture(scope="module")
def ready(clip: Path) -> tuple[Path, VideoInfo, FrameTable, NDArray[np.uint8]]:
    video, table = first_pass(clip)
    return clip, video, table, planes_by_ffmpeg(clip, "yuv420p").reshape(60, -1)


def test_analysis_images_are_small_in_order_and_counted(clip: Path) -> None:
    video = probe_video(clip)
    frames = analysis_frames(clip, video, longest_side=80)
    with pytest.raises(RuntimeError):
        _ = frames.table
    images = list(frames)
    assert [image.index for image in images] == list(range(60))
    assert images[0].image.shape == (64, 80, 3) and images[0].scale == 2
    assert [image.pts for image in images] == frames.table.pts.tolist()
    assert frames.table.key.nonzero()[0].tolist() == [0, 15, 30, 45]
    assert frames.table.time_base == video.time_base and frames.table.exact_pts
    assert np.allclose(np.diff(frames.table.pts) * float(video.time_base), 0.04)
    larger = next(iter(analysis_frames(clip, video)))
    assert larger.image.shape == (128, 160, 3) and larger.scale == 1


def test_planes_are_the_decoders_bit_for_bit(ready: tuple[Path, VideoInfo, FrameTable, NDArray[np.uint8]]) -> None:
    path, video, table, expected = ready
    frames = list(FrameReader(path, video, table).read(0, 60))
    assert [frame.source_index for frame in frames] == list(range(60))
    for frame, planes in zip(frames, expected, strict=True):
        assert np.array_equal(frame.buffer, planes)
    assert frames[0].planes[0].shape == (128, 160) and frames[0].planes[2].shape == (64, 80)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bounds=st.tuples(st.integers(0, 60), st.integers(0, 60)))
def test_any_part_equals_the_slice_of_the_whole(
    ready: tuple[Path, VideoInfo, FrameTable, NDArray[np.uint8]], bounds: tuple[int, int]
) -> None:
    path, video, table, expected = ready
    first, stop = sorted(bounds)
    frames = list(FrameReader(path, video, table).read(first, stop))
    assert [frame.source_index for frame in frames] == list(range(first, stop))
    assert all(np.array_equal(f.buffer, e) for f, e in zip(frames, expected[first:stop], strict=True))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    indices=st.one_of(
        st.lists(st.integers(0, 59), max_size=12),
        st.integers(1, 100).map(lambda n: [*range(60), *range(59, -1, -1), *range(60)][:n]),
        st.integers(0, 50).map(lambda n: [*range(n, n + 8, 2), *[n] * 5, *range(n + 9, n - 1, -3)]),
    )
)
def test_any_sequence(ready: tuple[Path, VideoInfo, FrameTable, NDArray[np.uint8]], indices: list[int]) -> None:
    path, video, table, expected = ready
    reader = FrameReader(path, video, table, chunk_bytes=7 * 30720)  # backward runs in chunks of seven frames
    count = 0
    for frame, index in zip(reader.sequence(indices), indices, strict=True):
        assert frame.source_index == index
        assert np.array_equal(frame.buffer, expected[index])
        frame.buffer[:] = 0  # whoever writes into a frame harms no other
        count += 1
    assert count == len(indices)


def test_runs_are_monotone_and_complete() -> None:
    indices = np.array([0, 1, 1, 2, 3, 2, 1, 1, 0, 5, 5, 900, 901, 4])
    runs = list(_runs(indices))
    assert np.array_equal(np.concatenate(runs), indices)
    for run in runs:
        steps = np.diff(run)
        assert (steps >= 0).all() or (steps <= 0).all()
        assert abs(steps).max(initial=0) <= 250
    assert list(_runs(np.array([], dtype=np.int64))) == []


def test_a_container_that_seeks_badly_costs_time_only(
    ready: tuple[Path, VideoInfo, FrameTable, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, video, table, expected = ready
    # claims that every frame is a key frame: seeking lands at the one before, and 'exact' seeks decode from there
    lying = replace(table, key=np.ones(60, bool))
    frames = list(FrameReader(path, video, lying).read(20, 40))
    assert all(np.array_equal(f.buffer, e) for f, e in zip(frames, expected[20:40], strict=True))
    # a seek that goes past what was asked for
    reader = FrameReader(path, video, table)
    monkeypatch.setattr(reader, "_ways", lambda position: [45, 45, 0])
    frames = list(reader.read(20, 40))
    assert all(np.array_equal(f.buffer, e) for f, e in zip(frames, expected[20:40], strict=True))
    assert reader._way == 2


def test_files_without_good_timestamps_are_counted_from_the_start(
    ready: tuple[Path, VideoInfo, FrameTable, NDArray[np.uint8]],
) -> None:
    path, video, table, expected = ready
    frames = list(FrameReader(path, video, replace(table, exact_pts=False)).read(33, 50))
    assert all(np.array_equal(f.buffer, e) for f, e in zip(frames, expected[33:50], strict=True))


def test_a_file_that_changed_is_noticed(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip.read_bytes())
    video, table = first_pass(path)
    ffmpeg("-i", clip, "-vf", "negate", "-c:v", "libx264", "-g", 15, path)
    with pytest.raises(UnreadableMediaError, match="did the file change"):
        list(FrameReader(path, video, table).read(3, 9))


def test_resolution_limit_scales_in_the_decoder(clip: Path) -> None:
    video, table = first_pass(clip)
    small = scaled(video, 80)
    whole = [f.buffer for f in FrameReader(clip, small, table).read(0, 60)]
    assert whole[0].nbytes == 80 * 64 * 3 // 2
    part = [f.buffer for f in FrameReader(clip, small, table).read(17, 33)]
    assert all(np.array_equal(a, b) for a, b in zip(part, whole[17:33], strict=True))
    expected = planes_by_ffmpeg(clip, "yuv420p").reshape(60, -1)[0][: 160 * 128].reshape(64, 2, 80, 2).mean((1, 3))
    assert np.abs(whole[0][: 80 * 64].reshape(64, 80) - expected).mean() < 8


@pytest.mark.parametrize(
    ("encode", "name", "pix_fmt"),
    [
        (["-c:v", "ffv1", "-pix_fmt", "yuvj420p", "-color_range", "pc"], "full.mkv", "yuvj420p"),
        (["-c:v", "mjpeg", "-pix_fmt", "yuvj422p"], "full.avi", "yuvj422p"),
        (["-c:v", "ffv1", "-pix_fmt", "yuv422p10le", "-color_range", "pc"], "full10.mkv", "yuv422p10le"),
        (["-c:v", "ffv1", "-pix_fmt", "yuv444p12le"], "deep.mkv", "yuv444p12le"),
        (["-c:v", "ffv1", "-pix_fmt", "yuva420p"], "alpha.mkv", "yuv420p"),
    ],
)
def test_no_planar_format_is_converted(clip: Path, tmp_path: Path, encode: list[str], name: str, pix_fmt: str) -> None:
    path = tmp_path / name
    ffmpeg("-i", clip, "-an", "-frames:v", 6, *encode, path)
    video, table = first_pass(path)
    assert video.pix_fmt == pix_fmt.replace("yuvj", "yuv")
    got = np.concatenate([f.buffer for f in FrameReader(path, video, table).read(0, 6)])
    assert np.array_equal(got, planes_by_ffmpeg(path, pix_fmt))
    assert video.colour.range == ("pc" if name.startswith("full") else video.colour.range)


@pytest.mark.parametrize("size", ["161x127", "160x127", "161x128"])
def test_odd_sizes_keep_every_luma_sample(tmp_path: Path, size: str) -> None:
    path = tmp_path / "odd.mkv"
    ffmpeg("-f", "lavfi", "-i", f"testsrc=s={size}:d=0.2", "-c:v", "ffv1", "-pix_fmt", "yuv420p", path)
    video, table = first_pass(path)
    assert video.pix_fmt == "yuv444p"
    frame = next(FrameReader(path, video, table).read(0, 1))
    height, width = frame.planes[0].shape
    assert np.array_equal(frame.buffer[: height * width], planes_by_ffmpeg(path, "yuv420p")[: height * width])


def test_gray_keeps_its_values(tmp_path: Path) -> None:
    path = tmp_path / "gray.png"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x128:d=0.04", "-pix_fmt", "gray", path)
    video, table = first_pass(path)
    frame = next(FrameReader(path, video, table).read(0, 1))
    assert video.colour.range == "pc"
    assert np.array_equal(frame.planes[0].ravel(), planes_by_ffmpeg(path, "gray"))
    assert (frame.planes[1] == 128).all()


def test_a_still_is_decoded_once_and_repeated(tmp_path: Path) -> None:
    path = tmp_path / "still.jpg"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x128:d=0.04", "-pix_fmt", "yuvj420p", path)
    video, table = first_pass(path)
    frames = list(FrameReader(path, video, table).sequence(np.zeros(50, np.int64)))
    assert len(frames) == 50 and len(table) == 1
    frames[0].buffer[:] = 0
    assert np.array_equal(frames[49].buffer, planes_by_ffmpeg(path, "yuvj420p"))


def test_missing_timestamps_are_repaired(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "raw.h264"
    ffmpeg("-i", clip, "-c:v", "copy", "-an", path)
    video, table = first_pass(path)
    assert len(table) == 60 and (np.diff(table.pts) > 0).all()
    expected = planes_by_ffmpeg(clip, "yuv420p").reshape(60, -1)
    got = list(FrameReader(path, video, table).read(10, 30))
    assert all(np.array_equal(f.buffer, e) for f, e in zip(got, expected[10:30], strict=True))
    assert video.fps == Fraction(25)
    assert video.duration_seconds == pytest.approx(60 / 25)


def test_a_hostile_title_does_not_pose_as_a_frame(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "title.mp4"
    line = "\n[Parsed_showinfo_0 @ 0x1] [info] n:   0 pts:      7 iskey:1 type:I checksum:00000000 plane_checksum:["
    ffmpeg("-i", clip, "-c", "copy", "-metadata", f"comment={line}", path)
    _, table = first_pass(path)
    assert len(table) == 60 and table.pts[0] == 0 and table.checksum[0] != 0
