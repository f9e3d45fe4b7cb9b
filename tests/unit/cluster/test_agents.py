"""What an agent does on its node beside rendering."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from heygemd.cluster.agents import _locked


def test_a_name_whose_lock_was_swept_away_is_locked_anew(tmp_path: Path) -> None:
    """An agent waits for the lock of one that was killed; a third one cleans up, and gets it first."""
    path = tmp_path / "node.lock"
    sweeper = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(sweeper, fcntl.LOCK_EX)
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(_locked(path)))
    waiting.start()
    waiting.join(0.2)
    assert not found
    path.unlink()
    os.close(sweeper)
    waiting.join(60)
    with path.open("r+") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(found[0])
