"""`heygemd calibrate` measures for real on the CPU, and `heygemd plan` tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon

pytestmark = pytest.mark.slow


def test_a_pass_by_hand_is_what_the_next_plan_goes_by(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "share")
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=0.6, size=192)
    voice = media.speech(tmp_path / "voice.wav", "One two.")

    def plan() -> dict[str, object]:
        found: dict[str, object] = json.loads(daemon.cli("plan", str(clip), str(voice), "--json").stdout)
        return found

    before = plan()
    assert before["memory"][0]["source"] == "formula" and before["calibration"] == []  # type: ignore[index]
    assert before["estimate_basis"] == "guess"
    told = daemon.cli("calibrate", "--engine", "rewrite", "--size", "192x192", "--face", "120x110", "--json")
    assert told.returncode == 0, told.stderr
    (row,) = json.loads(told.stdout)["passes"]
    assert [point["batch"] for point in row["points"]] == [1, 2, 8]
    assert all(100 < point["peak_mib"] < 1000 for point in row["points"])
    after = plan()
    (fit,) = after["calibration"]  # type: ignore[misc]
    assert fit["shape"] == "192x192, face 120x110"
    way = after["memory"][0]  # type: ignore[index]
    assert way["source"] == "calibrated" and way["calibrated_mib"] == way["predicted_mib"]
    measured = {point["batch"]: point["peak_mib"] for point in row["points"]}
    assert way["predicted_mib"] == pytest.approx(measured[way["batch"]], rel=0.15), "a clip of the same kind"
    wrong = daemon.cli("calibrate", "--size", "64x64", "--face", "100x100")
    assert wrong.returncode == 2 and "larger than" in wrong.stderr
