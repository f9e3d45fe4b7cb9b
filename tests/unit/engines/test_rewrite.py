"""The `rewrite` engine on a public-domain portrait, still and made to speak, and on real clips where they are."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import NoFaceError
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame, MemoryQuery, Region, load_engine
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.motion import commands, full_opening
from heygemd.engines.rewrite.own import learn_own
from heygemd.engines.rewrite.shape import MouthShape
from heygemd.faces.detect import CascadeDetector

MEDIA = Path(__file__).resolve().parents[3] / "../shared/media"
VIDEO = VideoInfo(512, 400, Fraction(25), 1, 0.04, "yuv420p", still=True)


def analyse(frames: list[np.ndarray], work: Path, video: VideoInfo, options: Options | None = None) -> Analysis:
    analyser = RewriteEngine().analyser(video, options or Options(), None, work, CascadeDetector())
    for i, frame in enumerate(frames):
        analyser.update(AnalysisFrame(i, frame, 1.0))
    return analyser.finish()


def motion_of(opening: np.ndarray, width: np.ndarray | None = None, full: float = 16.0) -> Analysis:
    zero = np.zeros(len(opening), np.float32)
    made = commands(
        opening=opening.astype(np.float32),
        width=zero if width is None else width.astype(np.float32),
        closure=zero,
        teeth=zero,
        activity=zero + 1,
        full=full,
        follow=False,
    )
    return Analysis(made.to_arrays())


def renderer_of(analysis: Analysis, motion: Analysis, video: VideoInfo):
    return RewriteEngine().renderer(
        analysis, motion, video, Options(), device="cpu", precision="float32", checkpoint=None
    )


def draw(renderer, index: int, source_index: int, frame: np.ndarray) -> np.ndarray:
    box = renderer.box(index, source_index)
    assert box is not None
    region = frame[box.y0 : box.y1, box.x0 : box.x1, ::-1].astype(np.float32)
    patch = renderer.render([Region(index, source_index, box, region)])[0]
    assert patch.image.shape == region.shape and patch.image.dtype == np.float32
    assert patch.mask.shape == region.shape[:2] and patch.mask.dtype == np.float32
    assert np.isfinite(patch.image).all() and patch.mask.min() >= 0 and patch.mask.max() <= 1
    out = frame.astype(np.float32)
    out[box.y0 : box.y1, box.x0 : box.x1] += (patch.mask[..., None] * (patch.image - region))[..., ::-1]
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:400, :, ::-1])


@pytest.fixture(scope="module")
def still(portrait: np.ndarray, tmp_path_factory) -> Analysis:
    return analyse([portrait], tmp_path_factory.mktemp("still"), VIDEO)


def test_it_is_registered_and_always_available() -> None:
    engine = load_engine("rewrite")
    assert engine.availability(None).ok
    assert not engine.needs_checkpoint
    small, large = (engine.memory_bytes(MemoryQuery("cpu", "float32", 1, w, w)) for w in (500, 2000))
    assert 0 < small < large < 2 << 30


def test_the_arrays_survive_npz_without_pickle(still: Analysis, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **still.arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert set(stored) == set(still.arrays)
    assert still.summary["shots"][0]["lips"] == "own"
    assert still.summary["frames_without_face"] == 0


def test_no_face_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    with pytest.raises(NoFaceError):
        analyse([noise] * 3, tmp_path, VIDEO)
    assert list(tmp_path.iterdir()) == []


def test_it_draws_only_mouth_and_jaw(still: Analysis, portrait: np.ndarray) -> None:
    renderer = renderer_of(still, motion_of(np.array([0.8])), VIDEO)
    changed = np.abs(draw(renderer, 0, 0, portrait).astype(int) - portrait).max(axis=2) > 1
    ys, xs = np.nonzero(changed)
    assert changed.sum() > 300
    # Between the nose (y 127) and the collar, within the cheeks.
    assert ys.min() > 120 and ys.max() < 216 and xs.min() > 165 and xs.max() < 285


def test_rendering_is_a_pure_function(still: Analysis, portrait: np.ndarray) -> None:
    motion = motion_of(np.linspace(0, 1, 8), np.linspace(-1, 1, 8))
    a, b = renderer_of(still, motion, VIDEO), renderer_of(still, motion, VIDEO)
    forward = [draw(a, i, 0, portrait) for i in range(8)]
    backward = [draw(b, i, 0, portrait) for i in reversed(range(8))][::-1]
    for one, other in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_mouth_opens_and_closes(still: Analysis, portrait: np.ndarray, tmp_path: Path) -> None:
    """Measured anew on the rendered frames, knowing nothing of the command."""
    command = 0.5 - 0.5 * np.cos(np.arange(40) / 3.0)
    renderer = renderer_of(still, motion_of(command), VIDEO)
    frames = [draw(renderer, i, 0, portrait) for i in range(40)]
    seen = analyse(frames, tmp_path, replace(VIDEO, still=False, num_frames=40))
    assert np.corrcoef(seen.arrays["mouth_opening"], command)[0, 1] > 0.85


@pytest.mark.parametrize("lips", ["own", "resting"])
@pytest.mark.parametrize("speaks", [False, True], ids=["still mouth", "speaking mouth"])
def test_lips_can_be_asked_for_whatever_the_source_does(
    still: Analysis, portrait: np.ndarray, tmp_path: Path, lips: str, speaks: bool
) -> None:
    """What is drawn follows the new speech, not the mouth that moves in the source."""
    n = 40
    source = [portrait] * n
    before = 0.5 - 0.5 * np.cos(np.arange(n) / 2.1)
    if speaks:
        renderer = renderer_of(still, motion_of(before), VIDEO)
        source = [draw(renderer, i, 0, portrait) for i in range(n)]
    video = replace(VIDEO, still=False, num_frames=n)
    analysis = analyse(source, tmp_path, video, Options(lips=lips))
    (shot,) = analysis.summary["shots"]
    assert (shot["speaks"], shot["lips"]) == (speaks, lips)
    assert shot["lips_why"].startswith("asked for; the person speaks" if speaks else "asked for; the mouth hardly")
    command = 0.5 - 0.5 * np.cos(np.arange(n) / 3.0)
    renderer = renderer_of(analysis, motion_of(command), video)
    drawn = [draw(renderer, i, i, frame) for i, frame in enumerate(source)]
    seen = analyse(drawn, tmp_path, video).arrays["mouth_opening"]
    r, leak = np.corrcoef(seen, command)[0, 1], np.corrcoef(before, command)[0, 1]
    assert r > 0.8 > abs(leak), f"r {r:.2f}"


def test_a_held_opening_does_not_flicker(still: Analysis, portrait: np.ndarray) -> None:
    renderer = renderer_of(still, motion_of(np.full(3, 0.4)), VIDEO)
    frames = [draw(renderer, i, 0, portrait) for i in range(3)]
    np.testing.assert_array_equal(frames[0], frames[2])


def test_follow_leaves_pauses_alone(still: Analysis) -> None:
    zero = np.zeros(2, np.float32)
    made = commands(
        opening=zero,
        width=zero,
        closure=zero,
        teeth=zero,
        activity=np.array([0, 1], np.float32),
        full=16.0,
        follow=True,
    )
    renderer = renderer_of(still, Analysis(made.to_arrays()), VIDEO)
    assert renderer.box(0, 0) is None
    assert renderer.box(1, 0) is not None


def test_frames_without_a_face_pass_through(portrait: np.ndarray, tmp_path: Path) -> None:
    grey = np.full_like(portrait, 80)
    analysis = analyse([portrait] * 6 + [grey] * 4, tmp_path, VIDEO)
    renderer = renderer_of(analysis, motion_of(np.ones(10)), VIDEO)
    assert renderer.box(2, 2) is not None
    assert renderer.box(8, 8) is None
    assert analysis.summary["frames_without_face"] == 4


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dev-v2-man-25fps.mp4", "dev-v4-woman-portrait-hevc.mp4"])
def test_a_talking_person_obeys(name: str, tmp_path: Path) -> None:
    path = MEDIA / name
    if not path.exists():
        pytest.skip("no shared media here")
    capture = cv2.VideoCapture(str(path))
    frames = [frame for ok, frame in (capture.read() for _ in range(100)) if ok]
    height, width = frames[0].shape[:2]
    video = VideoInfo(width, height, Fraction(25), len(frames), 4.0, "yuv420p")
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    analysis = analyse(frames, first, video)
    assert analysis.summary["shots"][0]["lips"] == "resting"
    command = 0.45 - 0.45 * np.cos(np.arange(len(frames)) / 4.0)
    renderer = renderer_of(analysis, motion_of(command, full=full_opening(analysis)), video)
    spoken = [draw(renderer, i, i, frame) for i, frame in enumerate(frames)]
    seen = analyse(spoken, second, video).arrays["mouth_opening"]
    assert np.corrcoef(seen, command)[0, 1] > 0.85


def test_the_inside_can_be_painted_on_demand_and_the_receipt_says_why(
    still: Analysis, portrait: np.ndarray, tmp_path: Path
) -> None:
    assert still.summary["shots"][0]["interior"] == "frame 0"
    assert "of the upper teeth" in still.summary["shots"][0]["interior_why"]
    assert 0.8 < still.summary["shots"][0]["side_light"] <= 1
    analyser = RewriteEngine().analyser(VIDEO, Options(interior="painted"), None, tmp_path, CascadeDetector())
    analyser.update(AnalysisFrame(0, portrait, 1.0))
    shot = analyser.finish().summary["shots"][0]
    assert (shot["interior"], shot["interior_why"]) == ("painted", "asked for")


def test_own_speech_is_learned_only_when_the_mouth_speaks(still: Analysis) -> None:
    frames = np.full(200, np.nan, np.float32)
    arrays, told = learn_own(np.zeros(16000 * 8, np.float32), frames, frames, Fraction(25))
    assert arrays == {} and not told["used"] and "does not speak" in told["why"]
    assert not still.summary["own_speech"]["used"]


@pytest.mark.parametrize("factor", [0.8, 1.5, 2.0])
def test_a_smile_is_measured_alike_at_every_size(
    factor: float, still: Analysis, portrait: np.ndarray, tmp_path
) -> None:
    """Enlarged smoothly, the shadow under the nose passed for the upper lip, and the closing lower lip smeared."""
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    other = cv2.resize(portrait, None, fx=factor, fy=factor, interpolation=method)
    video = replace(VIDEO, width=other.shape[1], height=other.shape[0])
    here = MouthShape.from_row(still.arrays["shot0_shape"])
    there = MouthShape.from_row(analyse([other], tmp_path, video).arrays["shot0_shape"])
    assert abs(here.c0 - there.c0) < 3.0
    assert abs(here.gap - there.gap) < 2.0
