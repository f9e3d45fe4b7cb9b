"""Stills blink and breathe: when, how far, where, and that it can be put off."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from heygemd.core.clip import VideoInfo
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame, Region, Renderer, Speech
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.lively import CLOSED_SECONDS, CLOSING_SECONDS, OPENING_SECONDS, closures, live
from heygemd.faces.detect import CascadeDetector

VIDEO = VideoInfo(512, 400, Fraction(25), 1, 0.04, "yuv420p", still=True)
SAMPLES = np.random.default_rng(3).normal(0, 0.1, 16000 * 30).astype(np.float32)
LIDS = {"life_lids": np.zeros((2, 11), np.float32)}


def analysed(work: Path, options: Options, video: VideoInfo = VIDEO) -> Analysis:
    analyser = RewriteEngine().analyser(video, options, None, work, CascadeDetector())
    analyser.update(AnalysisFrame(0, portrait(), 1.0))
    return analyser.finish()


def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:400, :, ::-1])


@pytest.fixture(scope="module")
def still(tmp_path_factory) -> Analysis:
    return analysed(tmp_path_factory.mktemp("still"), Options())


@pytest.fixture(scope="module")
def motion(still: Analysis) -> Analysis:
    return RewriteEngine().drive(Speech(SAMPLES[: 16000 * 8], 200, Fraction(25)), still, Options())


def renderer_of(analysis: Analysis, motion: Analysis) -> Renderer:
    return RewriteEngine().renderer(
        analysis, motion, VIDEO, Options(), device="cpu", precision="float32", checkpoint=None
    )


def drawn(renderer: Renderer, index: int) -> np.ndarray:
    frame = portrait()
    box = renderer.box(index, 0)
    assert box is not None
    region = frame[box.y0 : box.y1, box.x0 : box.x1, ::-1].astype(np.float32)
    patch = renderer.render([Region(index, 0, box, region)])[0]
    out = frame.astype(np.float32)
    out[box.y0 : box.y1, box.x0 : box.x1] += (patch.mask[..., None] * (patch.image - region))[..., ::-1]
    return out


def starts_of(blink: np.ndarray) -> np.ndarray:
    return np.flatnonzero((blink[1:] > 0) & (blink[:-1] == 0)) + 1


def test_blinks_are_two_to_seven_seconds_apart_and_seeded_by_the_speech() -> None:
    arrays, told = live(LIDS, np.ones(3000, np.float32), 25.0, SAMPLES)
    starts = starts_of(arrays["life_blink"]) / 25
    assert len(starts) == told["blinks"] > 20
    assert np.diff(starts).min() > 1.9 and np.diff(starts).max() < 7.3 and np.std(np.diff(starts)) > 0.5
    again, _ = live(LIDS, np.ones(3000, np.float32), 25.0, SAMPLES)
    other, _ = live(LIDS, np.ones(3000, np.float32), 25.0, SAMPLES * 0.5)
    np.testing.assert_array_equal(again["life_blink"], arrays["life_blink"])
    assert (other["life_blink"] != arrays["life_blink"]).any()


def test_blinks_fall_into_pauses_where_there_are_some() -> None:
    activity = np.ones(3000, np.float32)
    pauses = np.arange(60, 3000, 75)
    for pause in pauses:
        activity[pause : pause + 10] = 0
    starts = starts_of(live(LIDS, activity, 25.0, SAMPLES)[0]["life_blink"])
    near = np.abs(starts[:, None] - pauses[None]).min(axis=1) <= 3
    assert near.mean() > 0.6


def test_a_blink_takes_a_quarter_of_a_second_and_closes_at_any_frame_rate() -> None:
    assert 0.15 < CLOSING_SECONDS + CLOSED_SECONDS + OPENING_SECONDS < 0.25
    for fps in (24, 25, 30, 50, 60):
        for start in (1.0, 1.013, 1.027):
            closed = closures([start], np.arange(3 * fps) / fps)
            assert closed.max() > 0.9 and 0.1 < (closed > 0.02).sum() / fps < 0.25


def test_videos_and_faces_without_trusted_lids_do_not_blink() -> None:
    assert live({}, np.ones(500, np.float32), 25.0, SAMPLES) == ({}, {})
    arrays, told = live({"life_lids": np.zeros((0, 11), np.float32)}, np.ones(500, np.float32), 25.0, SAMPLES)
    assert told == {"blinks": 0} and not arrays["life_blink"].any() and np.ptp(arrays["life_breath"]) > 1.5


def test_the_receipt_says_what_is_done_and_why(still: Analysis) -> None:
    assert still.summary["liveliness"] == {
        "blinks": {"used": True, "why": "both eyes' lids were found"},
        "breathing": True,
    }


def test_it_can_be_put_off_and_videos_have_none(tmp_path: Path) -> None:
    for options, video in (
        (Options(liveliness="off"), VIDEO),
        (Options(), VideoInfo(512, 400, Fraction(25), 1, 0.04, "yuv420p")),
    ):
        analysis = analysed(tmp_path, options, video)
        motion = RewriteEngine().drive(Speech(SAMPLES[:16000], 25, Fraction(25)), analysis, options)
        assert not any(name.startswith("life") for name in (*analysis.arrays, *motion.arrays))
        assert "liveliness" not in analysis.summary and "blinks" not in motion.summary


def test_lids_come_down_over_the_eyes(still: Analysis, motion: Analysis) -> None:
    renderer = renderer_of(still, motion)
    closed = int(np.argmax(motion.arrays["life_blink"]))
    before = int(np.flatnonzero(motion.arrays["life_blink"][:closed] == 0)[-1])
    awake, asleep = drawn(renderer, before), drawn(renderer, closed)
    for x, y in ((203, 101), (248, 103)):
        eye = np.s_[y - 3 : y + 3, x - 4 : x + 4]
        # Dark iris before, skin after.
        assert asleep[eye].mean() > awake[eye].mean() + 40
    cheek = np.s_[112:124, 190:260]
    assert np.abs(asleep[cheek] - awake[cheek]).mean() < 4


def test_it_breathes_a_little_and_nothing_slides_at_the_edge(still: Analysis, motion: Analysis) -> None:
    renderer = renderer_of(still, motion)
    box = renderer.box(0, 0)
    assert box is not None and all(renderer.box(i, 0) == box for i in range(200))
    assert still.summary["region"] == [box.width, box.height]
    breath = motion.arrays["life_breath"]
    awake = motion.arrays["life_blink"] == 0
    high, low = (int(np.argmax(np.where(awake, sign * breath, -9))) for sign in (1, -1))
    one, other = drawn(renderer, high), drawn(renderer, low)
    hair = np.s_[25:85, 160:290]
    assert np.abs(one[hair] - other[hair]).mean() > 1.0
    for picture in (one, other):
        changed = np.abs(picture - portrait()).max(axis=2)
        inside = changed[box.y0 : box.y1, box.x0 : box.x1]
        assert changed.max() > 20
        rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
        assert rim.max() < 0.01
        inside[:] = 0
        assert changed.max() == 0


def test_any_frame_alone_is_as_it_is_among_others(still: Analysis, motion: Analysis) -> None:
    one, other = renderer_of(still, motion), renderer_of(still, motion)
    wanted = [3, 40, int(np.argmax(motion.arrays["life_blink"]))]
    forward = [drawn(one, i) for i in wanted]
    for index, picture in zip(reversed(wanted), reversed(forward), strict=True):
        np.testing.assert_array_equal(drawn(other, index), picture)
