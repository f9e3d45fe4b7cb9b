"""Every awkward input as a whole job: a video of the right length and kind, or the one right error.

The stages run in this process; `finish` compares the result with the plan (frames, size, rate, streams, durations).
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from heygemd.core.errors import HeygemdError, NoFaceError
from heygemd.core.options import Options
from heygemd.core.plan import Plan, PlanRequest, cut
from heygemd.core.settings import LimitSettings, MediaSettings
from heygemd.work.finish import finish
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.prepare import PrepareRequest, prepare
from heygemd.work.render import SegmentRenderer
from tests import awkward, media

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not media.SHARED.exists(), reason="needs real faces: ../shared/media is not there"),
]

TOO_LONG = {"one_hour"}  # an hour is rendered by hand (docs/performance.md), and read whole in test_formats.py
GAPS = {"face_leaves", "black_gap"}
VIDEOS = [n for n, item in awkward.ITEMS.items() if item.kind in ("video", "any")]
SOUNDS = [n for n, item in awkward.ITEMS.items() if item.kind in ("audio", "any") and n not in TOO_LONG]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


def quiet(_stage: str, _done: int, _total: int) -> None: ...


def run_job(folder: ItemFolder, video: Path, audio: Path) -> Prepared:
    options = Options(quality="draft")
    request = PrepareRequest(
        video, audio, None, None, options, LimitSettings(), "rewrite", folder.path / "none", None, ("cpu",)
    )
    prepared = prepare(request, folder, quiet)
    fast = MediaSettings(preset="ultrafast")
    renderer = SegmentRenderer(folder, device="cpu", precision="float32", media=fast, threads=1)
    video_info = prepared.video
    segments = cut(PlanRequest(prepared.num_frames, prepared.fps, video_info.width, video_info.height, 1.0, 3000))
    try:
        passed = sum(renderer.render(s, batch=4, report=quiet).passed_frames for s in segments)
    finally:
        renderer.close()
    finish(folder, Plan(segments, 4, "float32", 0, "cpu"), fast, quiet)
    (folder.path / "passed.json").write_text(json.dumps(passed))
    return prepared


def run_or_fail(name: str, folder: Path, video: Path, audio: Path) -> Prepared | None:
    """None when the item ended in the error that it must end in."""
    wanted = awkward.ITEMS[name].error
    if wanted is None:
        return run_job(ItemFolder(folder), video, audio)
    with pytest.raises(HeygemdError) as caught:
        run_job(ItemFolder(folder), video, audio)
    assert type(caught.value).__name__ == wanted
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return None


@pytest.mark.parametrize("name", VIDEOS)
def test_as_the_picture(name: str, kitchen: Path, tmp_path: Path) -> None:
    path = awkward.make(name, kitchen)
    speech = awkward.kitchen(kitchen).speech
    try:
        prepared = run_or_fail(name, tmp_path / "item", path, speech)
    except NoFaceError:
        pytest.fail(f"{name}: no face found")
    if prepared is None:
        return
    facts = media.probe(tmp_path / "item/result/video.mp4")
    seconds = Fraction(int(facts["nb_read_frames"])) / Fraction(facts["r_frame_rate"])
    assert abs(float(seconds) - media.sound_seconds(speech)) <= 1 / float(prepared.fps)
    assert (int(facts["width"]), int(facts["height"])) == (prepared.video.width, prepared.video.height)
    for tag, value in (
        ("color_space", prepared.video.colour.matrix),
        ("color_transfer", prepared.video.colour.transfer),
        ("color_primaries", prepared.video.colour.primaries),
    ):
        assert value is None or facts[tag] == value
    passed = json.loads((tmp_path / "item/passed.json").read_text())
    if name in GAPS:
        assert 0 < passed < prepared.num_frames, "frames without a face pass through, the others do not"


@pytest.mark.parametrize("name", SOUNDS)
def test_as_the_speech(name: str, kitchen: Path, tmp_path: Path) -> None:
    path = awkward.make(name, kitchen)
    still = awkward.make("still_png", kitchen)
    prepared = run_or_fail(name, tmp_path / "item", still, path)
    if prepared is not None:
        frames = int(media.probe(tmp_path / "item/result/video.mp4")["nb_read_frames"])
        assert abs(frames / 25 - prepared.speech_seconds) <= 1 / 25
