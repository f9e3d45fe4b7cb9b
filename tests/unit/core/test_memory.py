"""The memory model: formulas that grow the right way, corrections that follow what is measured."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.memory import (
    FIRST_MARGIN,
    MIB,
    Calibration,
    Correction,
    Load,
    Picture,
    bytes_per_pixel,
    pipeline_bytes,
    size_class,
)

LOAD = Load("rewrite", "", "cpu", "float32", "1080p", 8)

# Peaks that bench-like runs measured on this pipeline (docs/scheduling.md): size, batch, engine's part, peak, in MiB.
MEASURED = [
    ((480, 854), 8, 148, 319),
    ((720, 1280), 8, 221, 411),
    ((844, 844), 8, 191, 444),
    ((1080, 1920), 8, 386, 599),
    ((2160, 3840), 8, 1276, 1255),
]


@pytest.mark.parametrize(("size", "batch", "engine_mib", "peak_mib"), MEASURED)
def test_the_formula_is_on_the_safe_side_of_what_was_measured(
    size: tuple[int, int], batch: int, engine_mib: int, peak_mib: int
) -> None:
    formula = engine_mib + pipeline_bytes(Picture(*size), batch) / MIB
    assert peak_mib <= formula <= 1.75 * peak_mib


@pytest.mark.parametrize(
    ("pix_fmt", "depth", "expected"),
    [("yuv420p", 8, 1.5), ("yuv422p10le", 10, 4.0), ("yuv444p", 8, 3.0), ("yuv420p10le", 10, 3.0), ("gray", 8, 1.0)],
)
def test_bytes_of_a_pixel(pix_fmt: str, depth: int, expected: float) -> None:
    assert bytes_per_pixel(pix_fmt, depth) == expected


@pytest.mark.parametrize(
    ("size", "name"),
    [
        ((640, 480), "480p"),
        ((1280, 720), "720p"),
        ((1080, 1920), "1080p"),
        ((3840, 2160), "2160p"),
        ((7680, 4320), "4320p"),
    ],
)
def test_size_classes(size: tuple[int, int], name: str) -> None:
    assert size_class(Picture(*size)) == name
    assert size_class(Picture(*size, 3.0, deep=True)) == name + "+"


@given(st.integers(16, 8192), st.integers(16, 8192), st.integers(0, 500), st.integers(1, 64), st.booleans())
def test_more_pixels_frames_or_bits_never_take_less(width: int, height: int, more: int, batch: int, deep: bool) -> None:
    one = pipeline_bytes(Picture(width, height), batch)
    assert pipeline_bytes(Picture(width + more, height), batch) >= one
    assert pipeline_bytes(Picture(width, height), batch + more) >= one
    assert pipeline_bytes(Picture(width, height, 3.0, deep), batch, threads=4) >= one


def test_before_anything_was_measured_the_formula_and_a_wide_margin_count() -> None:
    found = Calibration().estimate(LOAD, 1000)
    assert (found.predicted_bytes, found.reserved_bytes, found.source) == (
        1000,
        int(1000 * (1 + FIRST_MARGIN)),
        "formula",
    )


def test_one_measurement_is_believed_for_its_like_and_less_for_others() -> None:
    known = Calibration().learn(LOAD, 1000, 700)
    assert known.estimate(LOAD, 1000).predicted_bytes == 700
    assert known.estimate(LOAD, 1000).source == "measured"
    other_batch = Load("rewrite", "", "cpu", "float32", "1080p", 4)
    assert known.estimate(other_batch, 500).predicted_bytes == 350
    assert known.estimate(other_batch, 500).source == "measured with another batch"
    assert known.estimate(Load("rewrite", "", "cpu", "float32", "2160p", 4), 500).source == "measured at another size"
    assert known.estimate(Load("rewrite", "", "cuda", "float32", "1080p", 8), 500).source == "formula"


@given(st.floats(0.3, 3.0), st.floats(0.0, 0.1), st.integers(0, 10_000))
def test_predictions_come_within_ten_percent_and_reservations_cover_the_peaks(
    truth: float, noise: float, seed: int
) -> None:
    dice = random.Random(seed)
    known = Calibration()
    for _ in range(12):
        known = known.learn(LOAD, 10**9, int(truth * (1 + dice.uniform(-noise, noise)) * 10**9))
    found = known.estimate(LOAD, 10**9)
    assert abs(found.predicted_bytes / (truth * 10**9) - 1) <= 0.10
    assert found.reserved_bytes >= found.predicted_bytes * 1.05
    within = sum(found.reserved_bytes >= truth * (1 + dice.uniform(-noise, noise)) * 10**9 for _ in range(100))
    assert within >= 80


def test_a_higher_peak_is_believed_sooner_than_a_lower_one() -> None:
    base = Correction(1.0, 0.0, 5)
    assert base.measured(1.4).ratio == pytest.approx(1.2)
    assert base.measured(0.6).ratio == pytest.approx(0.95)
    assert base.measured(1.4).margin > base.margin


def test_out_of_memory_raises_the_estimate_above_what_was_tried() -> None:
    raised = Calibration().raise_after_oom(LOAD, 1000, 1150)
    assert raised.estimate(LOAD, 1000).predicted_bytes > 1150
    again = raised.raise_after_oom(LOAD, 1000, raised.estimate(LOAD, 1000).reserved_bytes)
    assert again.estimate(LOAD, 1000).predicted_bytes > raised.estimate(LOAD, 1000).predicted_bytes
    settled = again
    for _ in range(40):
        settled = settled.learn(LOAD, 1000, 900)
    assert settled.estimate(LOAD, 1000).predicted_bytes < 950, "it comes down again when peaks are lower"


def test_a_calibration_survives_json() -> None:
    known = Calibration().learn(LOAD, 1000, 700).raise_after_oom(LOAD, 1000, 900)
    assert Calibration.from_dict(json.loads(json.dumps(known.to_dict()))) == known
