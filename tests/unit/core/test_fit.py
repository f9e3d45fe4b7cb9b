"""The line through measured peaks, and how it enters predictions."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.fit import Fit, Point, batches_for
from heygemd.core.memory import CALIBRATED_MARGIN, Calibration, Load

FORMULA = {batch: 1000 + 100 * batch for batch in (1, 2, 4, 8, 16)}
LOAD = Load("wav2lip", "classic96@aa", "cuda", "bfloat16", "1080p", 8)


@given(fixed=st.integers(0, 10**10), each=st.integers(0, 10**8))
def test_a_line_is_found_again(fixed: int, each: int) -> None:
    fit = Fit.through([Point(batch, fixed + batch * each) for batch in (1, 16, 64)], FORMULA)
    assert fit.bytes_at(32) == pytest.approx(fixed + 32 * each, rel=1e-6, abs=10)
    assert fit.largest_error < 1e-6 or fixed + each < 1000


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=5))
def test_a_larger_batch_never_takes_less_whatever_was_measured(peaks: list[int]) -> None:
    fit = Fit.through([Point(2**n, peak) for n, peak in enumerate(peaks)], FORMULA)
    assert fit.bytes_at(1) <= fit.bytes_at(8) <= fit.bytes_at(64)


def test_one_point_alone_takes_its_slope_from_the_formula() -> None:
    fit = Fit.through([Point(8, 900)], FORMULA)
    assert fit.bytes_at(8) == pytest.approx(900, abs=1)
    assert fit.per_item_bytes == 50, "half of the formula's, as 900 is of its 1800"


def test_nothing_measured_is_no_fit() -> None:
    with pytest.raises(ValueError, match="measured point"):
        Fit.through([], FORMULA)


def test_a_fit_speaks_about_other_shapes_as_its_ratio_to_the_formula() -> None:
    fit = Fit.through([Point(1, 2200), Point(8, 2550)], FORMULA)
    known = Calibration().fitted(LOAD.family, "Test card", fit)
    assert known.estimate(LOAD, 1800).predicted_bytes == pytest.approx(2550, abs=2)
    assert known.estimate(LOAD, 3600).predicted_bytes == pytest.approx(5100, abs=4), (
        "twice the formula, twice the bytes"
    )
    found = known.estimate(LOAD, 1800)
    assert found.source == "calibrated"
    assert found.reserved_bytes == pytest.approx(found.predicted_bytes * (1 + CALIBRATED_MARGIN), abs=2)
    other = Load("wav2lip", "classic96@aa", "cuda", "float32", "1080p", 8)
    assert known.estimate(other, 1800).source == "formula", "another precision was not measured"


def test_loading_a_model_can_take_more_than_rendering() -> None:
    fit = Fit.through([Point(1, 500), Point(8, 640)], FORMULA, load_bytes=1500)
    assert fit.bytes_at(1) == fit.bytes_at(8) == 1500
    assert fit.bytes_at(64) == 480 + 64 * 20


def test_of_two_models_of_card_the_larger_need_counts() -> None:
    known = Calibration()
    for model, peak in (("small", 1000), ("large", 3000)):
        known = known.fitted(LOAD.family, model, Fit.through([Point(8, peak)], FORMULA))
    assert known.estimate(LOAD, 1800).predicted_bytes == pytest.approx(3000, rel=0.01)


def test_segments_correct_what_a_pass_has_measured() -> None:
    known = Calibration().learn(LOAD, 1800, 700)
    known = known.fitted(LOAD.family, "Test card", Fit.through([Point(8, 2000)], FORMULA))
    assert known.estimate(LOAD, 1800).source == "calibrated", "what was measured against the formula is forgotten"
    for _ in range(30):
        known = known.learn(LOAD, 1800, 1900)
    found = known.estimate(LOAD, 1800)
    assert found.source == "measured"
    assert found.predicted_bytes == pytest.approx(1900, rel=0.02)


def test_points_off_the_line_widen_the_margin() -> None:
    straight = Calibration().fitted(LOAD.family, "m", Fit.through([Point(b, 1000 + b) for b in (1, 4, 8)], FORMULA))
    bent = Calibration().fitted(
        LOAD.family, "m", Fit.through([Point(1, 1000), Point(4, 1600), Point(8, 1100)], FORMULA)
    )
    margins = [k.estimate(LOAD, 1800).reserved_bytes / k.estimate(LOAD, 1800).predicted_bytes for k in (straight, bent)]
    assert margins[0] == pytest.approx(1.10, abs=0.01)
    assert margins[1] > 1.4


def test_a_fit_survives_json() -> None:
    fit = Fit.through([Point(1, 10, 1, 2, 3), Point(8, 20)], FORMULA, load_bytes=5, outside_bytes=7, shape="9x9")
    known = Calibration().fitted(LOAD.family, "Test card", fit).learn(LOAD, 1800, 1900)
    assert Calibration.from_dict(json.loads(json.dumps(known.to_dict()))) == known


def test_batches_of_a_pass() -> None:
    assert batches_for(64) == (1, 16, 64)
    assert batches_for(8) == (1, 2, 8)
    assert batches_for(1) == (1,)
