"""The kill loop, short: HEYGEMD_TEST_CRASH_ITERATIONS and HEYGEMD_TEST_CRASH_SEED make it longer or another one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost_whenever_it_is_killed(tmp_path: Path) -> None:
    iterations = int(os.environ.get("HEYGEMD_TEST_CRASH_ITERATIONS", "40"))
    seed = int(os.environ.get("HEYGEMD_TEST_CRASH_SEED", "7"))
    command = [sys.executable, "-m", "tests.system.crashloop", "--seed", str(seed), "--iterations", str(iterations)]
    # a process of its own: it adopts what a killed daemon leaves behind
    done = subprocess.run([*command, "--root", str(tmp_path / "loop")], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr[-6000:]
    summary = json.loads(done.stdout)
    assert sum(summary["kills"].values()) == iterations
    assert summary["segments_rendered_twice"] == 0
    assert summary["done"] > 0
