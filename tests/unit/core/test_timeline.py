from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.timeline import extend, num_output_frames


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("pingpong", [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]),
        ("loop", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]),
        ("freeze", [0, 1, 2, 3, 3, 3, 3, 3, 3, 3]),
    ],
)
def test_each_way_of_going_on(how: str, expected: list[int]) -> None:
    assert extend(np.arange(4), 10, how).tolist() == expected  # type: ignore[arg-type]


def test_a_longer_clip_is_cut() -> None:
    assert extend(np.arange(9), 3, "pingpong").tolist() == [0, 1, 2]


def test_one_frame_stands_still_whatever_is_asked() -> None:
    for how in ("pingpong", "loop", "freeze"):
        assert extend(np.zeros(1, np.int64), 5, how).tolist() == [0] * 5  # type: ignore[arg-type]


@given(n=st.integers(2, 40), total=st.integers(1, 300))
def test_pingpong_never_jumps(n: int, total: int) -> None:
    indices = extend(np.arange(n), total, "pingpong")
    assert len(indices) == total
    assert np.abs(np.diff(indices)).max(initial=0) <= 1
    assert indices.min() >= 0
    assert indices.max() < n


@given(
    samples=st.integers(1, 16000 * 600),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(50), Fraction(60)]),
)
def test_output_lasts_as_long_as_the_speech_to_within_a_frame(samples: int, fps: Fraction) -> None:
    seconds = Fraction(samples, 16000)
    frames = num_output_frames(seconds, fps)
    assert frames >= 1
    assert abs(Fraction(frames) / fps - seconds) <= max(1 / fps / 2, 1 / fps - seconds)
