"""The boot test: minutes long, so it runs only when asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASKED = os.environ.get("HEYGEMD_TEST_BOOT") == "1"
CANNOT = 77


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not ASKED, reason="NOT RUN: the boot test needs HEYGEMD_TEST_BOOT=1 (root, debootstrap, nspawn)")
def test_an_administrators_day_on_a_booted_debian() -> None:
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("boot.py"))], check=False)
    if done.returncode == CANNOT:
        pytest.skip("NOT RUN: containers cannot be made here (see above)")
    assert done.returncode == 0
