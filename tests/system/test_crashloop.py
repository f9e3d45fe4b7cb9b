"""The kill loop, short: HEYGEMD_TEST_CRASH_ITERATIONS and HEYGEMD_TEST_CRASH_SEED make it longer or another one."""

import os
from pathlib import Path

import pytest

from tests.system.crashloop import Loop


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_whenever_it_is_killed(tmp_path: Path) -> None:
    iterations = int(os.environ.get("HEYGEMD_TEST_CRASH_ITERATIONS", "10"))
    seed = int(os.environ.get("HEYGEMD_TEST_CRASH_SEED", "7"))
    summary = Loop(tmp_path, seed, iterations).run()
    assert summary["kills"] == iterations
    assert summary["segments_rendered_twice"] == 0
