"""Every test here needs a CUDA device. Without one they are skipped, loudly; HEYGEMD_FAIL_WITHOUT_CUDA=1 makes that a
failure, for machines that must have one. One call runs them all: HEYGEMD_FAIL_WITHOUT_CUDA=1 pytest tests/gpu"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True, scope="session")
def card() -> None:
    """Before any other fixture, so that nothing is made for tests that will not run."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        if os.environ.get("HEYGEMD_FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("HEYGEMD_FAIL_WITHOUT_CUDA=1, and torch sees no CUDA device")
        pytest.skip("no CUDA device: nothing about GPUs was checked")


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    yield
    import torch

    torch.cuda.empty_cache()
