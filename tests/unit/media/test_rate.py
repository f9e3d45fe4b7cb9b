from fractions import Fraction

import numpy as np
import pytest

from heygemd.media.frames import FrameTable
from heygemd.media.rate import choose_rate

MILLISECOND = Fraction(1, 1000)


def stamps(fps: Fraction, count: int, time_base: Fraction) -> np.ndarray:
    return np.array([round(i / fps / time_base) for i in range(count)], dtype=np.int64)


@pytest.mark.parametrize(
    "fps", [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(60)]
)
@pytest.mark.parametrize("time_base", [MILLISECOND, Fraction(1, 90000), Fraction(1, 12800)])
def test_constant_rates_are_recognised_whatever_the_clock(fps: Fraction, time_base: Fraction) -> None:
    rate = choose_rate(stamps(fps, 300, time_base), time_base, (Fraction(0),))
    assert rate.fps == fps
    assert not rate.variable and not rate.notes


def test_a_declared_rate_decides_between_neighbours_in_a_short_clip() -> None:
    pts = stamps(Fraction(24000, 1001), 8, MILLISECOND)
    assert choose_rate(pts, MILLISECOND, (Fraction(24000, 1001), Fraction(24))).fps == Fraction(24000, 1001)


def test_a_rate_of_its_own_is_kept() -> None:
    time_base = Fraction(1, 90000)
    assert choose_rate(stamps(Fraction(17), 100, time_base), time_base, ()).fps == 17


def test_a_declared_rate_that_contradicts_the_timestamps_is_not_believed() -> None:
    pts = stamps(Fraction(25), 100, MILLISECOND)
    assert choose_rate(pts, MILLISECOND, (Fraction(90000), Fraction(50))).fps == 25


def test_gaps_make_the_rate_variable_at_the_usual_interval() -> None:
    pts = stamps(Fraction(30), 100, Fraction(1, 90000))
    pts[50:] += 27000
    rate = choose_rate(pts, Fraction(1, 90000), ())
    assert rate.fps == 30 and rate.variable and "variable" in rate.notes[0]


@pytest.mark.parametrize(
    ("fps", "expected", "word"),
    [(Fraction(240), 120, "reduced"), (Fraction(1, 4), 25, "raised"), (Fraction(100_000), 25, "meaningless")],
)
def test_extreme_rates_are_clamped_and_say_so(fps: Fraction, expected: int, word: str) -> None:
    rate = choose_rate(stamps(fps, 50, Fraction(1, 1_000_000)), Fraction(1, 1_000_000), (fps,))
    assert rate.fps == expected
    assert word in " ".join(rate.notes)


def table(pts: list[int] | np.ndarray, time_base: Fraction) -> FrameTable:
    array = np.asarray(pts, dtype=np.int64)
    return FrameTable(array, np.ones(len(array), bool), np.zeros(len(array), np.uint32), time_base)


def test_regular_clips_map_one_to_one() -> None:
    for fps in (Fraction(30000, 1001), Fraction(24)):
        pts = stamps(fps, 5000, MILLISECOND) + 10_000
        assert np.array_equal(table(pts, MILLISECOND).constant_rate(fps), np.arange(5000))


def test_gaps_repeat_and_crowds_drop() -> None:
    # 25 fps: frames at 0, 40, 80, then nothing until 200, then two within one slot
    result = table([0, 40, 80, 200, 240, 250, 280], MILLISECOND).constant_rate(Fraction(25))
    assert result.tolist() == [0, 1, 2, 2, 2, 3, 5, 6]


def test_a_jump_of_the_clock_does_not_make_hours() -> None:
    pts = np.array([0, 40, 80, 40_000_000, 40_000_040])
    assert len(table(pts, MILLISECOND).constant_rate(Fraction(25))) < 300


def test_half_rate_drops_every_other_frame() -> None:
    pts = stamps(Fraction(240), 240, Fraction(1, 90000))
    result = table(pts, Fraction(1, 90000)).constant_rate(Fraction(120))
    assert len(result) in (120, 121)
    assert set(np.diff(result).tolist()) <= {1, 2, 3}


def test_empty_and_single_frame_tables() -> None:
    assert table([7], MILLISECOND).constant_rate(Fraction(25)).tolist() == [0]
