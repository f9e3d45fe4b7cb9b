from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from heygemd.core.errors import LimitError, NoVideoError, UnreadableMediaError
from heygemd.media.decode import analysis_frames
from heygemd.media.inputs import MediaLimits
from heygemd.media.probe import counted, probe_video, scaled

from .conftest import ffmpeg


def test_a_plain_clip(clip: Path) -> None:
    video = probe_video(clip)
    assert (video.width, video.height, video.fps, video.num_frames) == (160, 128, 25, 60)
    assert (video.pix_fmt, video.bit_depth, video.sample_aspect) == ("yuv420p", 8, 1)
    assert video.duration_seconds == pytest.approx(2.4)
    assert video.has_audio and not video.still and not video.variable_rate and not video.interlaced
    assert video.notes == ()


def test_rotation_swaps_the_sides_and_the_aspect(clip: Path, tmp_path: Path) -> None:
    lying, turned = tmp_path / "lying.mp4", tmp_path / "turned.mp4"
    ffmpeg("-i", clip, "-vf", "setsar=4/3", "-frames:v", 5, lying)
    ffmpeg("-i", lying, "-c", "copy", "-metadata:s:v:0", "rotate=90", turned)
    video = probe_video(turned)
    assert (video.width, video.height, video.sample_aspect) == (128, 160, Fraction(3, 4))
    assert video.rotation_degrees in (90, 270)


def test_a_still_image(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "100%d.png"
    plain = tmp_path / "plain.png"
    ffmpeg("-i", clip, "-frames:v", 1, plain)
    plain.rename(path)
    video = probe_video(path)
    assert video.still and video.fps == 25 and video.num_frames == 1
    assert (video.colour.matrix, video.colour.range) == ("bt709", "tv")


def test_sound_is_no_video(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "speech.m4a"
    ffmpeg("-i", clip, "-vn", "-c", "copy", path)
    with pytest.raises(NoVideoError, match=r"speech\.m4a"):
        probe_video(path)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 5000, b"\x00" * 5000, b"\xff" * 5000])
def test_what_is_no_media_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "not.mp4"
    path.write_bytes(content)
    with pytest.raises(UnreadableMediaError, match=r"^not\.mp4: ") as caught:
        probe_video(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "listing",
    ["ffconcat version 1.0\nfile '{}'\n", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\n{}\n#EXT-X-ENDLIST\n"],
)
def test_a_playlist_opens_nothing(clip: Path, tmp_path: Path, listing: str) -> None:
    path = tmp_path / "list.mp4"
    path.write_text(listing.format(clip))
    with pytest.raises(UnreadableMediaError, match="not accepted"):
        probe_video(path)


def test_limits(clip: Path) -> None:
    with pytest.raises(LimitError, match="160x128"):
        probe_video(clip, limits=MediaLimits(max_pixels=160 * 127))
    with pytest.raises(LimitError, match="limit of 2 s"):
        probe_video(clip, limits=MediaLimits(max_seconds=2))
    probe_video(clip, limits=MediaLimits(max_pixels=160 * 128, max_seconds=2.4))


def test_pass_one_stops_a_file_that_lied_about_its_length(clip: Path) -> None:
    frames = analysis_frames(clip, probe_video(clip), limits=MediaLimits(max_seconds=-7))
    with pytest.raises(LimitError):
        list(frames)


def test_resolution_limit(clip: Path) -> None:
    video = probe_video(clip)
    assert scaled(video, None) is video and scaled(video, 160) is video
    small = scaled(video, 99)
    assert (small.width, small.height) == (98, 78)
    odd = replace(video, width=161, height=127, pix_fmt="yuv444p")
    assert scaled(odd, 80).pix_fmt == "yuv420p"


def test_counting_corrects_the_header(clip: Path) -> None:
    video = replace(probe_video(clip), num_frames=999, duration_seconds=99.0)
    frames = analysis_frames(clip, video)
    assert sum(1 for _ in frames) == 60
    after = counted(video, frames.table)
    assert after.num_frames == 60 and after.duration_seconds == pytest.approx(2.4)
    assert "ends early" in after.notes[-1]
