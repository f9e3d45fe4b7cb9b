"""The README's two commands on a bare Debian: minutes long, so it runs only when asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASKED = os.environ.get("HEYGEMD_TEST_BARE_ROOT") == "1"


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not ASKED, reason="NOT RUN: the bare-root test needs HEYGEMD_TEST_BARE_ROOT=1 (root)")
def test_the_readmes_commands_work_on_a_bare_debian() -> None:
    # Within itself, so that the inner tests do not start it again.
    environment = {name: value for name, value in os.environ.items() if name not in ("HEYGEMD_TEST_BARE_ROOT", "CI")}
    script = Path(__file__).with_name("bare_root.py")
    subprocess.run([sys.executable, str(script)], check=True, env=environment)
