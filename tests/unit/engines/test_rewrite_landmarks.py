"""What landmarks change in the measurement of a source's mouth, and when they are not believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.clip import VideoInfo
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.landmarked import Located, corners_at, frames_for, locate, reaching, with_landmarks
from heygemd.engines.rewrite.motion import full_opening
from heygemd.faces import canon
from heygemd.faces.detect import CascadeDetector
from heygemd.faces.landmarks import Image, Landmarks, Points
from heygemd.faces.lipflow import MouthMotion
from heygemd.faces.lipline import LipLine
from tests.landmarks import ToldLandmarker, face_with, to_picture
from tests.mouths import smile

MOUTH = (128.0, 154.0)
FRAMES = 100
TRUE = np.clip(9 + 9 * np.sin(np.arange(FRAMES) / 3.0), 0, None)
MOTION = MouthMotion(3 + 0.5 * TRUE, np.zeros(FRAMES), 3 + 0.5 * TRUE, TRUE)
AT = np.arange(0, FRAMES, 2)


@dataclass(frozen=True)
class Key:
    index: int

    def face(self) -> Image:
        return np.full((256, 256, 3), self.index, np.uint8)


def located(tell: Callable[[int], Points], most: int = 24) -> tuple[Located, ToldLandmarker]:
    landmarker = ToldLandmarker(lambda face: tell(int(face[0, 0, 0])))
    keys = [Key(int(row)) for row in AT]
    shift = np.zeros((FRAMES, 2))
    return locate(Landmarks(landmarker), keys, AT, MOTION, [0, 2], canon.EYES, shift, most), landmarker


def test_good_landmarks_set_the_pixels() -> None:
    found, landmarker = located(lambda k: face_with(MOUTH, TRUE[k]))
    assert landmarker.asked == 24 and found.by == "landmarks" and {0, 2} <= set(found.rows.tolist())
    motion, found = with_landmarks(MOTION, found)
    assert np.abs(motion.opening - TRUE).mean() < 0.3 < np.abs(MOTION.opening - TRUE).mean()
    np.testing.assert_array_equal(motion.width, MOTION.width)
    assert "24 of 24 frames" in found.why
    assert (found.at_least(MOTION.opening) >= MOTION.opening).all()


def test_garbage_is_noticed_after_a_few_frames_and_said() -> None:
    found, landmarker = located(lambda _k: np.random.default_rng(0).uniform(0, 256, (68, 2)))
    assert landmarker.asked == 6 and not len(found.rows)
    assert found.by == "colours and flow" and "0 of 6 frames" in found.why and "eyes" in found.why
    motion, found = with_landmarks(MOTION, found)
    assert motion is MOTION and found.by == "colours and flow"


@pytest.mark.parametrize(
    ("fits", "by"), [(lambda k: k % 10, "landmarks"), (lambda k: k in (0, 2), "colours and flow")], ids=["most", "few"]
)
def test_too_few_good_frames_are_none(fits: Callable[[int], bool], by: str) -> None:
    found, landmarker = located(lambda k: face_with(MOUTH, TRUE[k]) + (0.0 if fits(k) else 99.0))
    assert landmarker.asked == 24
    assert found.by == by
    assert len(found.rows) == 0 or 12 <= len(found.rows) < 24


@pytest.mark.parametrize("opening", [lambda _k: 8.0, lambda k: 20.0 - TRUE[k]], ids=["frozen", "the other way"])
def test_landmarks_that_do_not_follow_the_mouth_are_left_aside(opening: Callable[[int], float]) -> None:
    found, _ = located(lambda k: face_with(MOUTH, opening(k)))
    motion, after = with_landmarks(MOTION, found)
    assert motion is MOTION and after.by == "colours and flow" and "do not follow" in after.why


def test_a_short_shot_or_no_room_asks_nobody() -> None:
    for most, word in ((0, "longer shots"), (7, "longer shots")):
        found, landmarker = located(lambda k: face_with(MOUTH, TRUE[k]), most)
        assert landmarker.asked == 0 and word in found.why
    none = locate(Landmarks(None, "off"), [], AT, MOTION, [], canon.EYES, np.zeros((FRAMES, 2)), 24)
    assert none.why == "off"


def test_the_frames_of_a_clip_are_bounded_and_go_to_long_shots() -> None:
    assert frames_for([500]) == [24]
    assert frames_for([300, 0, 500]) == [24, 0, 24]
    assert frames_for([100, 50, 200, 150]) == [12, 12, 12, 12]
    many = frames_for([10 * k for k in range(1, 21)])
    assert sum(many) == 48 and many[-6:] == [8] * 6 and not any(many[:-6])


def test_the_line_is_led_on_to_corners_beyond_its_ends_and_never_shortened() -> None:
    x = np.arange(100.0, 151.0)
    line = LipLine(x, 150 + 0 * x, 5 + 0 * x, np.array([[100.0, 150.0], [150.0, 150.0]]), 0.0)
    for seen in ([[104.0, 150.0], [146.0, 150.0]], [[98.0, 150.0], [152.0, 150.0]]):
        same = reaching(line, np.array(seen))
        np.testing.assert_array_equal(same.corners, line.corners)
        np.testing.assert_array_equal(same.x, line.x)
    longer = reaching(line, np.array([[94.0, 153.0], [151.0, 140.0]]))
    np.testing.assert_array_equal(longer.corners, [[94.0, 153.0], [150.0, 150.0]])
    assert longer.x.min() == 95.0 and longer.x.max() == 150.0 and len(longer.x) == len(longer.y) == 56
    np.testing.assert_allclose(longer.y[longer.x == 97.0], 151.5)
    assert (longer.strength == 5).all()


def test_corners_are_those_of_frames_that_look_alike() -> None:
    found, _ = located(lambda k: face_with(MOUTH, TRUE[k], 54.0 if TRUE[k] < 6 else 70.0))
    closed = int(found.rows[np.argmin(TRUE[found.rows])])
    np.testing.assert_allclose(corners_at(found, MOTION, closed), [[101.0, 154.0], [155.0, 154.0]], atol=0.1)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A portrait made to speak (frames, openings in canonical pixels), each frame with its number as a grey square, and
    where in face pictures that square is."""
    scene = smile(tmp_path_factory.mktemp("smile"), alive=False)
    renderer, frames = scene.renderer(), []
    for region in scene.regions():
        patch = renderer.render([region])[0]
        frame, box = scene.frames[0].astype(np.float32), region.box
        frame[box.y0 : box.y1, box.x0 : box.x1] += (patch.mask[..., None] * (patch.image - region.image))[..., ::-1]
        frame[30:60, 290:320] = 40 + 8 * region.index
        frames.append(np.clip(frame + 0.5, 0, 255).astype(np.uint8))
    back = canon.invert(np.asarray(scene.analysis.arrays["face_canonical"][0], np.float64))
    opening = np.asarray(scene.motion.arrays["opening"], np.float64)
    return frames, opening, to_picture(canon.apply(back, np.array([[304.5, 44.5]])))[0]


def analysed(frames: list[np.ndarray], landmarks: Landmarks | None, work: Path) -> Analysis:
    work.mkdir()
    video = VideoInfo(512, 400, Fraction(25), len(frames), len(frames) / 25, "yuv420p")
    analyser = RewriteEngine().analyser(video, Options(), None, work, CascadeDetector(), landmarks)
    for index, frame in enumerate(frames):
        analyser.update(AnalysisFrame(index, frame, 1.0))
    return analyser.finish()


def test_a_clip_is_measured_in_the_pixels_of_its_landmarks(
    spoken: tuple[list[np.ndarray], np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    frames, opening, (x, y) = spoken
    wide = 1.5 * opening

    def tell(face: Image) -> Points:
        return face_with(MOUTH, wide[round((float(face[round(y), round(x)].mean()) - 40) / 8)])

    landmarker = ToldLandmarker(tell)
    without = analysed(frames, None, tmp_path / "without")
    made = analysed(frames, Landmarks(landmarker), tmp_path / "with")
    again = analysed(frames, Landmarks(landmarker), tmp_path / "again")
    errors = [np.abs(a.arrays["mouth_opening"] - wide).mean() for a in (without, made)]
    assert errors[1] < 0.5 * errors[0]
    assert set(made.arrays) == set(without.arrays)
    for name, values in made.arrays.items():
        np.testing.assert_array_equal(values, again.arrays[name])
    shot, plain = made.summary["shots"][0], without.summary["shots"][0]
    assert shot["measured"] == "landmarks" and "12 of 12 frames" in shot["measured_why"]
    assert plain["measured"] == "colours and flow" and plain["measured_why"] == "nobody asked for landmarks"
    assert full_opening(made) <= full_opening(without) * 1.5
    assert landmarker.closed == 2


def test_a_mouth_that_hardly_moves_asks_for_no_landmarks(tmp_path: Path) -> None:
    scene = smile(tmp_path, alive=False)
    landmarker = ToldLandmarker(lambda _face: face_with(MOUTH, 5.0))
    made = analysed([scene.frames[0]] * 20, Landmarks(landmarker), tmp_path / "still")
    assert landmarker.asked == 0 and landmarker.closed == 1
    assert "hardly moves" in made.summary["shots"][0]["measured_why"]
