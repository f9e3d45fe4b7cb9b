"""Shared by all tests. OpenCV and BLAS get one thread each: the suite itself runs in parallel."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import hypothesis
import pytest

cv2.setNumThreads(1)
# How long an example takes says how busy the machine is, and fails nothing.
hypothesis.settings.register_profile(
    "shared machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    # CI tells whether a change is good: the same examples each time. New ones are looked for at people's desks.
    derandomize=bool(os.environ.get("CI")),
)
hypothesis.settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first, so that the last minute of a parallel run is not one test alone."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
