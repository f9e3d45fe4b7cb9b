"""Whole items through the real stages, in this process: what every engine must keep."""

from __future__ import annotations

import itertools
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from heygemd.core.errors import NoFaceError
from heygemd.core.options import Options
from heygemd.core.plan import Plan, Segment
from heygemd.core.settings import LimitSettings, MediaSettings
from heygemd.work.finish import finish
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.prepare import PrepareRequest, prepare
from heygemd.work.render import SegmentRenderer
from tests import media


def quiet(_stage: str, _done: int, _total: int) -> None: ...


def prepared_item(
    folder: Path, video: Path, audio: Path | None = None, text: str | None = None, **options: object
) -> Prepared:
    request = PrepareRequest(
        video=video,
        audio=audio,
        text_file=None,
        text=text,
        options=Options.model_validate({"quality": "lossless", **options}),
        limits=LimitSettings(),
        default_engine="rewrite",
        checkpoint_dir=folder / "none",
        checkpoint=None,
        device_kinds=("cpu",),
    )
    return prepare(request, ItemFolder(folder), quiet)


def rendered(folder: Path, borders: list[int], batch: int = 4) -> Path:
    """Render an item's segments between `borders` and join them; the video."""
    item = ItemFolder(folder)
    renderer = SegmentRenderer(item, device="cpu", precision="float32", media=MediaSettings(), threads=1)
    segments = tuple(Segment(i, a, b) for i, (a, b) in enumerate(itertools.pairwise(borders)))
    try:
        for segment in segments:
            renderer.render(segment, batch=batch, report=quiet)
    finally:
        renderer.close()
    finish(item, Plan(segments, batch, "float32", 0, "cpu"), MediaSettings(), quiet)
    return item.result / "video.mp4"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1.6)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, clip: Path, voice: Path) -> tuple[Path, Prepared, Path]:
    """One item rendered in one piece, with a clip shorter than its speech: ping-pong is in it."""
    folder = tmp_path_factory.mktemp("whole")
    prepared = prepared_item(folder, clip, voice)
    return folder, prepared, rendered(folder, [0, prepared.num_frames])


def test_the_result_lasts_as_long_as_the_speech(whole: tuple[Path, Prepared, Path], voice: Path) -> None:
    _, prepared, video = whole
    facts = media.probe(video)
    frames = int(facts["nb_read_frames"])
    assert frames == prepared.num_frames > prepared.video.num_frames * 2
    assert abs(Fraction(frames) / Fraction(facts["r_frame_rate"]) - Fraction(media.sound_seconds(voice))) <= Fraction(
        1, 25
    )


@pytest.mark.parametrize("borders", [[1], [40], [39, 41], [20, 60, 80]])
def test_a_split_render_equals_the_unsplit_one_frame_for_frame(
    whole: tuple[Path, Prepared, Path], tmp_path: Path, clip: Path, voice: Path, borders: list[int]
) -> None:
    _, prepared, video = whole
    prepared_item(tmp_path, clip, voice)
    split = rendered(tmp_path, [0, *borders, prepared.num_frames], batch=3)
    assert media.framemd5(split) == media.framemd5(video)


def test_pixels_outside_the_face_are_the_sources_bit_for_bit(whole: tuple[Path, Prepared, Path], clip: Path) -> None:
    """The edited region of every frame lies inside one box around the face; all else equals the decoded source."""
    _, prepared, video = whole
    size = prepared.video.width
    before, after = frames_of(clip, size), frames_of(video, size)
    n = len(before)
    period = 2 * n - 2
    changed_frames = 0
    for k, frame in enumerate(after):
        j = k % period
        source = before[j if j < n else period - j]
        rows, columns = np.nonzero(frame[:size] != source[:size])
        if len(rows):
            changed_frames += 1
            assert rows.min() > size * 0.3, f"frame {k}: the eyes were touched"
            assert columns.max() - columns.min() < size * 0.6
            assert rows.max() - rows.min() < size * 0.6
    assert changed_frames > len(after) * 0.5


def frames_of(path: Path, size: int) -> list[np.ndarray]:
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"],
        check=True,
        capture_output=True,
    ).stdout
    return list(np.frombuffer(raw, np.uint8).reshape(-1, size * 3 // 2, size))


def test_a_still_image_and_a_text_make_a_video(tmp_path: Path) -> None:
    still = media.portrait(tmp_path / "face.png", 320)
    prepared = prepared_item(tmp_path / "item", still, text="Hello Bob, how are you?", quality="draft")
    video = rendered(tmp_path / "item", [0, prepared.num_frames])
    assert prepared.phones
    assert int(media.probe(video)["nb_read_frames"]) == prepared.num_frames
    assert (tmp_path / "item/result/sheet.jpg").stat().st_size > 5000


def test_a_clip_without_a_face_is_one_clear_error(tmp_path: Path, voice: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((240, 320, 3), 90, np.uint8))
    with pytest.raises(NoFaceError):
        prepared_item(tmp_path / "item", blank, voice)


def test_tail_keep_keeps_the_rest_of_the_picture(tmp_path: Path, clip: Path) -> None:
    short = media.tone(tmp_path / "short.wav", 0.5)
    kept = prepared_item(tmp_path / "kept", clip, short, tail="keep")
    trimmed = prepared_item(tmp_path / "trimmed", clip, short)
    assert (kept.num_frames, trimmed.num_frames) == (40, 12)
    video = rendered(tmp_path / "kept", [0, 40])
    assert int(media.probe(video)["nb_read_frames"]) == 40


def test_resolution_limit_scales_down_once(tmp_path: Path, clip: Path, voice: Path) -> None:
    prepared = prepared_item(tmp_path / "item", clip, voice, resolution_limit=160, quality="draft")
    video = rendered(tmp_path / "item", [0, prepared.num_frames])
    facts = media.probe(video)
    assert (facts["width"], facts["height"]) == ("160", "160")


def test_prepare_twice_does_nothing_the_second_time(
    whole: tuple[Path, Prepared, Path], clip: Path, voice: Path
) -> None:
    folder, prepared, _ = whole
    stamp = (folder / "item.json").stat().st_mtime_ns
    assert prepared_item(folder, clip, voice) == prepared
    assert (folder / "item.json").stat().st_mtime_ns == stamp


def test_the_operators_audio_bitrate_reaches_the_file(tmp_path: Path, voice: Path) -> None:
    still = media.portrait(tmp_path / "face.png", 256)
    sizes = []
    for kbps in (32, 128):
        folder = tmp_path / str(kbps)
        prepared = prepared_item(folder, still, voice, quality="draft")
        item = ItemFolder(folder)
        renderer = SegmentRenderer(item, device="cpu", precision="float32", media=MediaSettings(), threads=1)
        segment = Segment(0, 0, prepared.num_frames)
        renderer.render(segment, batch=4, report=quiet)
        renderer.close()
        finish(item, Plan((segment,), 4, "float32", 0, "cpu"), MediaSettings(audio_bitrate_kbps=kbps), quiet)
        command = ["ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "stream=bit_rate"]
        command += ["-of", "csv=p=0", str(item.result / "video.mp4")]
        sizes.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert sizes[1] > 1.5 * sizes[0]
