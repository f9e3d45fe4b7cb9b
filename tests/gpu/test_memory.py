"""Memory on a real card: predictions against measured peaks over the grid, a co-tenant in the middle of a job, a real
out-of-memory that walks the ladder and ends with the right video."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.capacity import Device
from heygemd.core.fit import Fit, Point, Shape
from heygemd.core.memory import Calibration, Correction
from heygemd.core.options import Options
from heygemd.core.plan import BATCHES
from heygemd.core.settings import SchedulerSettings
from heygemd.engines.base import MemoryQuery
from heygemd.engines.wav2lip import Wav2LipEngine
from heygemd.engines.wav2lip.seeded import save_seeded
from heygemd.engines.wav2lip.variants import variant_named
from heygemd.gpu.calibration import CalibrationStore
from heygemd.gpu.devices import card_device, cards
from heygemd.gpu.watch import DeviceWatch
from tests import media
from tests.gpu.rig import MIB, Run, Tenant, grey_frames, measure

CLIP_SIZE = 320
HOST = Device("cpu", "cpu", 64 << 30, 48 << 30, slots=2, threads=2, model="cpu")
SIZES = ((640, 480, (240, 260)), (1920, 1080, (500, 560)), (3840, 2160, (1000, 1100)))


def card() -> Device:
    return card_device(cards()[0], SchedulerSettings())


@pytest.mark.parametrize("name", ["classic96", "hd256"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.timeout(600)
def test_a_calibrated_prediction_is_within_ten_percent_of_the_measured_peak(
    name: str, precision: str, size: tuple[int, int, tuple[int, int]], tmp_path: Path
) -> None:
    """One pass teaches; another one, in another process and at other batch sizes, is the truth."""
    path = save_seeded(variant_named(name), tmp_path / "w.pth")
    width, height, region = size

    def shape(*batches: int) -> Shape:
        return Shape("wav2lip", str(path), width, height, "yuv420p", 8, region, batches)

    def formula(batch: int) -> int:
        query = MemoryQuery("cuda", precision, batch, width, height, name, region[0] * region[1])
        return Wav2LipEngine().memory_bytes(query)

    taught = measure(shape(1, 16, 64), precision, card(), tmp_path)
    points = [Point(**point) for point in taught["points"]]
    fit = Fit.through(points, {b: formula(b) for b in BATCHES}, load_bytes=taught["load_bytes"])
    truth = measure(shape(1, 8, 32, 64), precision, card(), tmp_path)
    assert [point["batch"] for point in truth["points"]] == [1, 8, 32, 64]
    rows = [(p["batch"], fit.bytes_at(p["batch"]) / MIB, p["peak_bytes"] / MIB) for p in truth["points"]]
    print(f"{name} {precision} {width}x{height}: batch, predicted, measured MiB: {rows}")  # noqa: T201 - the record
    for batch, predicted, measured in rows:
        assert abs(predicted / measured - 1) <= 0.10, (batch, rows)
    for point in truth["points"]:
        assert point["allocated_bytes"] <= point["cached_bytes"] <= point["peak_bytes"]
        assert formula(point["batch"]) >= 0.9 * point["peak_bytes"], "the formula alone errs on the safe side"


def test_the_budget_follows_a_co_tenant() -> None:
    watch = DeviceWatch([card()], SchedulerSettings(), interval_seconds=0.2)
    watch.start()
    try:
        before = budget(watch)
        with Tenant(2048 * MIB):
            during = budget(watch)
        assert before - during >= 0.8 * 0.9 * 2048 * MIB
        assert budget(watch) - during >= 0.8 * 0.9 * 2048 * MIB
    finally:
        watch.stop()


def budget(watch: DeviceWatch) -> int:
    time.sleep(2.0)  # freed memory comes back late
    until = time.monotonic() + 20
    while time.monotonic() < until:
        moved = watch.moved({}, ())
        if moved is not None:
            return moved[0][0].budget_bytes
        time.sleep(0.1)
    raise AssertionError("NVML was not read")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "c.mp4", seconds=4.0, size=CLIP_SIZE)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = "One two three four five six seven eight nine ten. " * 4
    return media.speech(tmp_path_factory.mktemp("voice") / "v.wav", text)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seeded(variant_named("hd256"), tmp_path_factory.mktemp("weights") / "w.pth")


@pytest.mark.timeout(600)
def test_a_co_tenant_that_comes_in_the_middle_of_a_job_costs_it_nothing_but_time(
    tmp_path: Path, clip: Path, voice: Path, checkpoint: Path
) -> None:
    device, tenants = card(), []
    taken = cards()[0].free_bytes // 2

    def look(run: Run) -> None:
        if run.of("segment.finished") and not tenants:
            tenants.append(Tenant(taken).__enter__())

    run = Run(tmp_path)
    scheduler = SchedulerSettings(segment_seconds=2.0)
    try:
        video = run.go(
            device, HOST, clip, voice, checkpoint, CalibrationStore(None, {}), scheduler=scheduler, look=look
        )  # fmt: skip
    finally:
        for tenant in tenants:
            tenant.__exit__()
    assert tenants and run.of("memory.calibrated")
    frames = sum(fields["frames"] for fields in run.of("segment.finished"))
    assert len(grey_frames(video, CLIP_SIZE)) == frames


@pytest.mark.timeout(600)
def test_a_real_out_of_memory_walks_the_ladder_and_ends_with_the_right_video(
    tmp_path: Path, clip: Path, voice: Path, checkpoint: Path
) -> None:
    """The memory model is made to promise a tenth of what is taken, on a card that a neighbour has nearly filled."""
    scheduler = SchedulerSettings(segment_seconds=10.0, calibrate="never", gpu_memory_fraction=1.0)
    free = tmp_path / "free"
    free.mkdir()
    whole = Run(free).go(card(), HOST, clip, voice, checkpoint, CalibrationStore(None, {}), scheduler=scheduler)

    lying = CalibrationStore(None, {})
    family = f"wav2lip/hd256@{checkpoint_name(checkpoint)}/cuda/{Wav2LipEngine().precisions('cuda', Options())[0]}"
    lying.calibration = Calibration({f"{family}/any/any": Correction(0.1, 0.0, 5)})
    formula = {b: Wav2LipEngine().memory_bytes(query(b)) for b in (4, 64)}
    leave = (formula[4] + formula[64]) // 2  # small batches fit, the largest does not
    tight = Run(tmp_path)
    with Tenant(max(MIB, cards()[0].free_bytes - leave - 600 * MIB)):
        video = tight.go(card(), HOST, clip, voice, checkpoint, lying, scheduler=scheduler)
    failed = [fields for fields in tight.of("segment.failed") if type(fields["error"]).__name__ == "OutOfMemoryError"]
    assert failed, "the card was not full enough for this test to say anything"
    reasons = [fields["reason"] for fields in tight.of("segment.retried")]
    assert "with half the batch" in reasons
    assert [f for f in tight.of("memory.corrected") if "out of memory" in f["reason"]]
    assert tight.of("segment.finished")[-1]["batch"] < 64
    one, other = grey_frames(whole, CLIP_SIZE), grey_frames(video, CLIP_SIZE)
    assert one.shape == other.shape
    difference = np.abs(one.astype(np.int16) - other).mean(axis=(1, 2))
    assert difference.max() < 1.0, "the same pictures, but for the last bits of another batch size"


def query(batch: int) -> MemoryQuery:
    return MemoryQuery("cuda", Wav2LipEngine().precisions("cuda", Options())[0], batch, CLIP_SIZE, CLIP_SIZE, "hd256")


def checkpoint_name(path: Path) -> str:
    from heygemd.work.choose import checkpoint_id

    return checkpoint_id(path)
