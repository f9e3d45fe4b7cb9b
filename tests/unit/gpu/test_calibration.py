"""The calibration on disk: kept, dropped when the machine is another one, never trusted blindly."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from heygemd.core.memory import Load
from heygemd.core.speed import SpeedKey
from heygemd.gpu.calibration import CalibrationStore, fingerprint
from heygemd.gpu.devices import CardSnapshot
from heygemd.gpu.peak import OUTSIDE_BYTES, peak_bytes, reset_peak

LOAD = Load("rewrite", "", "cpu", "float32", "1080p", 8)
HERE = {"devices": "cpu", "heygemd": "1"}


def test_what_was_learned_is_there_after_a_restart(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path / "c.json", HERE)
    correction, telling = store.learn(LOAD, 1000, 700)
    assert telling and correction.ratio == 0.7
    assert not store.learn(LOAD, 1000, 701)[1], "nothing new worth telling"
    store.close()
    again = CalibrationStore(tmp_path / "c.json", HERE)
    assert again.calibration == store.calibration and again.dropped_reason is None


def test_another_machine_or_version_starts_anew(tmp_path: Path) -> None:
    store = CalibrationStore(tmp_path / "c.json", HERE)
    store.learn(LOAD, 1000, 700)
    store.close()
    other = CalibrationStore(tmp_path / "c.json", {**HERE, "devices": "NVIDIA Test 24 driver 550"})
    assert not other.calibration.corrections
    assert "other devices" in str(other.dropped_reason)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "fingerprint": 3, "corrections": 4}'])
def test_a_damaged_file_is_dropped_with_its_reason(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    store = CalibrationStore(tmp_path / "c.json", HERE)
    assert not store.calibration.corrections and store.dropped_reason


def test_it_is_written_now_and_then_and_not_at_all_when_only_read(tmp_path: Path) -> None:
    now = [0.0]
    store = CalibrationStore(tmp_path / "c.json", HERE, clock=lambda: now[0])
    store.learn(LOAD, 1000, 700)
    assert not (tmp_path / "c.json").exists()
    now[0] = 11.0
    store.raise_after_oom(LOAD, 1000, 900)
    assert "rewrite/-/cpu/float32/1080p/8" in json.loads((tmp_path / "c.json").read_text())["corrections"]
    stamp = (tmp_path / "c.json").stat().st_mtime_ns
    reader = CalibrationStore(tmp_path / "c.json", HERE, readonly=True)
    reader.learn(LOAD, 1000, 100)
    reader.close()
    assert (tmp_path / "c.json").stat().st_mtime_ns == stamp


def test_the_first_time_of_a_kind_is_written_at_once(tmp_path: Path) -> None:
    """Who asks for an estimate after the first job gets no guess; what comes after it may wait."""
    store = CalibrationStore(tmp_path / "c.json", HERE, clock=lambda: 0.0)
    key = SpeedKey("render", "rewrite", "", "cpu x2", "float32", "480p")
    store.timed(key, 5.0, 100)
    store.timed(key, 15.0, 100)
    reader = CalibrationStore(tmp_path / "c.json", HERE, readonly=True)
    assert reader.speeds.seconds_a_frame(key) == (0.05, 1)
    store.close()
    reader = CalibrationStore(tmp_path / "c.json", HERE, readonly=True)
    assert reader.speeds.seconds_a_frame(key) == (pytest.approx(0.1), 2)


def test_the_fingerprint_names_devices_and_software() -> None:
    found = fingerprint(["B driver 1", "A driver 1", "A driver 1"])
    assert found["devices"] == "A driver 1; B driver 1"
    assert found["torch"] and fingerprint([])["devices"] == "cpu"


class FakeCuda:
    def __init__(self) -> None:
        self.peak = 900

    def is_initialized(self) -> bool:
        return True

    def reset_peak_memory_stats(self) -> None:
        self.peak = 400

    def memory_reserved(self) -> int:
        return 400

    def max_memory_reserved(self) -> int:
        return self.peak

    def max_memory_allocated(self) -> int:
        return self.peak - 100


def test_the_peak_on_a_gpu_counts_what_lies_outside_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.gpu.peak.os.getpid", lambda: 42)
    torch = SimpleNamespace(cuda=FakeCuda())
    seen = [CardSnapshot(0, "a", "u", 10**6, 5, "d", {42: 650, 7: 1})]
    assert peak_bytes(torch, seen) == 900 + 250
    reset_peak(torch)
    assert peak_bytes(torch, seen) == 400 + 250
    assert peak_bytes(torch, []) == 400 + OUTSIDE_BYTES, "NVML does not tell: a generous guess"
    idle = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: False))
    assert peak_bytes(idle) is None
