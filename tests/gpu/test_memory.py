"""Memory on a real card: predictions against measured peaks, a co-tenant, a real out-of-memory.

Without a GPU these are skipped; HEYGEMD_FAIL_WITHOUT_CUDA=1 makes that a failure, for machines that must have one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.errors import OutOfMemoryError
from heygemd.core.memory import Load
from heygemd.core.settings import SchedulerSettings
from heygemd.engines.base import MemoryQuery
from heygemd.engines.wav2lip import Wav2LipEngine
from heygemd.engines.wav2lip.seeded import save_seeded
from heygemd.engines.wav2lip.variants import variant_named
from heygemd.gpu import peak
from heygemd.gpu.calibration import CalibrationStore
from heygemd.gpu.devices import card_device, cards
from heygemd.gpu.watch import DeviceWatch

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu
BATCHES = (1, 8, 32, 64)


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    if not torch.cuda.is_available():
        if os.environ.get("HEYGEMD_FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("HEYGEMD_FAIL_WITHOUT_CUDA=1, and torch sees no CUDA device")
        pytest.skip("no CUDA device: predictions on a GPU were NOT checked")
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def run(path: Path, size: int, precision: str, batch: int) -> np.ndarray:
    from heygemd.engines.wav2lip.runtime import Runtime

    draw = np.random.default_rng(3)
    mel = draw.uniform(-4, 4, (batch, 80, 16)).astype(np.float32)
    crops = draw.uniform(0, 1, (batch, size, size, 3)).astype(np.float32)
    made: np.ndarray = Runtime(path, "cuda", precision)(mel, crops)
    return made


def measured(path: Path, size: int, precision: str, batch: int) -> int:
    torch.cuda.empty_cache()
    peak.reset_peak()
    run(path, size, precision, batch)
    found = peak.peak_bytes()
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["classic96", "hd256"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_calibrated_prediction_is_within_ten_percent(name: str, precision: str, tmp_path: Path) -> None:
    variant, engine = variant_named(name), Wav2LipEngine()
    path = save_seeded(variant, tmp_path / "w.pth")
    store = CalibrationStore(None, {})
    measured(path, variant.size, precision, BATCHES[-1])  # context and kernels are loaded once
    for attempt in range(2):
        for batch in BATCHES:
            formula = engine.memory_bytes(MemoryQuery("cuda", precision, batch, 1920, 1080, name))
            load = Load("wav2lip", name, "cuda", precision, "1080p", batch)
            real = measured(path, variant.size, precision, batch)
            if attempt:
                found = store.calibration.estimate(load, formula)
                assert abs(found.predicted_bytes / real - 1) <= 0.10, (load.key, found, real)
                assert found.reserved_bytes >= real
            store.learn(load, formula, real)


def test_the_budget_follows_a_co_tenant() -> None:
    card = cards()[torch.cuda.current_device()]
    watch = DeviceWatch([card_device(card, SchedulerSettings())], SchedulerSettings(), interval_seconds=0.2)
    watch.start()
    try:
        before = budget(watch)
        tenant = torch.empty(2 * 2**30, dtype=torch.uint8, device="cuda")
        during = budget(watch)
        assert before - during >= 0.8 * 2 * 2**30 * 0.9
        del tenant
        torch.cuda.empty_cache()
        assert budget(watch) - during >= 0.8 * 2 * 2**30 * 0.9
    finally:
        watch.stop()


def budget(watch: DeviceWatch) -> int:
    time.sleep(1.0)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        moved = watch.moved({}, ())
        if moved is not None:
            return moved[0][0].budget_bytes
        time.sleep(0.1)
    raise AssertionError("NVML was not read")


def test_a_real_out_of_memory_ends_with_the_right_pictures_at_a_smaller_batch(tmp_path: Path) -> None:
    variant = variant_named("hd256")
    path = save_seeded(variant, tmp_path / "w.pth")
    whole = run(path, variant.size, "float32", 64)
    torch.cuda.empty_cache()
    room = (measured(path, variant.size, "float32", 64) + measured(path, variant.size, "float32", 8)) // 2
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (room - peak.OUTSIDE_BYTES) / total))
    batch, failures = 64, 0
    while True:
        try:
            part = run(path, variant.size, "float32", batch)
            break
        except (torch.OutOfMemoryError, OutOfMemoryError):
            failures += 1
            assert batch > 1, "not even one frame fits"
        torch.cuda.empty_cache()  # outside the except block: the traceback pins tensors
        batch //= 2
    assert failures >= 1
    assert len(part) == batch and whole.shape[1:] == part.shape[1:]
