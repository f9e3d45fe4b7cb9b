"""Each fuzz target for a moment; HEYGEMD_TEST_FUZZ_EXAMPLES=100000 for a night. See tests/fuzz.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz import targets

EXAMPLES = int(os.environ.get("HEYGEMD_TEST_FUZZ_EXAMPLES", "150"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["manifest", "pairing", "probe"])
def test_nothing_but_errors_of_ours(tmp_path: Path, name: str) -> None:
    targets(tmp_path, EXAMPLES)[name]()
