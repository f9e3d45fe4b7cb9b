"""What is refused right after the probe: only what no plan could ever take, and with words that help."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heygemd.core.capacity import Device
from heygemd.core.ceiling import Ceiling
from heygemd.core.clip import AudioInfo, VideoInfo
from heygemd.core.errors import CannotFitError
from heygemd.core.fit import Fit, Point
from heygemd.core.memory import LEAST_RATIO, Calibration, Load
from heygemd.core.options import Options
from heygemd.core.settings import SchedulerSettings
from heygemd.engines.base import Analysis, LipSyncEngine, PrepareQuery
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.wav2lip.engine import Wav2LipEngine
from heygemd.engines.wav2lip.variants import VARIANTS
from heygemd.gpu.devices import most_bytes
from heygemd.service.planning import ItemMemory, ceiling_of, plan_item
from heygemd.work.afford import (
    MoreRoomNeededError,
    least_bytes,
    require_device,
    require_preparing_room,
    usual_bytes,
)
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.landmarks import LANDMARKS_BYTES
from heygemd.work.prepare import memory_points

MIB = 2**20
HOST = Device("cpu", "cpu", 64 * 2**30, 48 * 2**30, slots=2)


def clip(width: int = 1920, height: int = 1080, deep: bool = False, frames: int = 250) -> VideoInfo:
    pix_fmt = "yuv420p10le" if deep else "yuv420p"
    return VideoInfo(
        width, height, Fraction(25), frames, frames / 25, pix_fmt, 10 if deep else 8, source_pix_fmt=pix_fmt
    )


def wav2lip(variant: str) -> Wav2LipEngine:
    engine = Wav2LipEngine()
    engine._variant = next(found for found in VARIANTS if found.name == variant)
    return engine


ENGINES = st.sampled_from([RewriteEngine(), *(wav2lip(variant.name) for variant in VARIANTS)])


def after_pass_1(engine: LipSyncEngine, video: VideoInfo, region: tuple[int, int], frames: int) -> Prepared:
    """What the planner is given when the face in it turned out to be of this size."""
    summary = {"region": list(region), "variant": engine.variant}
    return Prepared(
        video_path="v.mp4",
        audio_path="a.wav",
        video=video,
        audio=AudioInfo(16000, 1, frames / 25),
        options=Options(),
        engine=engine.name,
        engine_reason="",
        checkpoint=None,
        num_frames=frames,
        speech_seconds=frames / 25,
        phones=None,
        language=None,
        memory=memory_points(
            engine,
            video,
            {kind: engine.precisions(kind, Options()) for kind in ("cpu", "cuda")},
            Analysis({}, summary),
        ),
        summary=summary,
        seconds={},
    )


@settings(max_examples=150, deadline=None)
@given(
    engine=ENGINES,
    width=st.integers(64, 8192),
    height=st.integers(64, 8192),
    deep=st.booleans(),
    share=st.tuples(st.floats(0.005, 1.0), st.floats(0.005, 1.0)),
    frames=st.integers(1, 100_000),
    batch=st.sampled_from([1, 8, 128]),
    threads=st.integers(1, 16),
    kind=st.sampled_from(["cpu", "cuda"]),
)
def test_the_bound_is_never_above_what_a_plan_predicts(
    engine: LipSyncEngine,
    width: int,
    height: int,
    deep: bool,
    share: tuple[float, float],
    frames: int,
    batch: int,
    threads: int,
    kind: str,
) -> None:
    video = clip(width, height, deep)
    region = (max(1, int(width * share[0])), max(1, int(height * share[1])))
    memory = ItemMemory(after_pass_1(engine, video, region, frames), Calibration(), threads)
    least = least_bytes(engine, video, kind)
    for precision in engine.precisions(kind, Options()):
        assert 0 < least <= memory.formula_bytes(kind, precision, batch)
        assert least <= memory.estimate(kind, precision, batch).predicted_bytes
    assert least <= usual_bytes(engine, video, kind)


@settings(max_examples=60, deadline=None)
@given(
    engine=ENGINES,
    size=st.sampled_from([(320, 240), (1920, 1080), (7680, 4320)]),
    budget_mib=st.integers(50, 6000),
    ratio=st.floats(0.2, 2.0),
)
def test_nothing_is_refused_that_the_planner_would_take(
    engine: LipSyncEngine,
    size: tuple[int, int],
    budget_mib: int,
    ratio: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever has been measured, down to the smallest face: what is refused early, the planner refuses too."""
    video = clip(*size)
    prepared = after_pass_1(engine, video, (16, 16), 100)
    load = Load(engine.name, engine.variant, "cuda", engine.precisions("cuda", Options())[0], "1080p", 1)
    calibration = Calibration().learn(load, 1000 * MIB, int(1000 * MIB * ratio))
    card = Device("cuda:0", "cuda", budget_mib * MIB, int(budget_mib * MIB * 0.9), slots=2)
    ceiling = ceiling_of([card], HOST, SchedulerSettings(), calibration)
    try:
        require_device(engine, video, ("cuda",), ceiling)
    except CannotFitError:
        folder = ItemFolder(tmp_path_factory.mktemp("item"))
        with pytest.raises(CannotFitError):
            plan_item(prepared, folder, [card], SchedulerSettings(), calibration)


def test_a_refusal_says_what_is_missing_and_what_would_fit() -> None:
    engine = RewriteEngine()
    ceiling = Ceiling({"cuda": 300 * MIB}, HOST.budget_bytes, {"cuda": LEAST_RATIO})
    with pytest.raises(CannotFitError) as caught:
        require_device(engine, clip(), ("cuda", "cpu"), ceiling)
    error = caught.value
    assert "1920x1080 render by rewrite takes at least 609 MiB" in error.message and "300 MiB" in error.message
    assert "resolution_limit" not in error.remedy, "no picture is small enough for this card"
    assert "a device that offers" in error.remedy and "scheduler.cpu_fallback" in error.remedy
    needed = least_bytes(engine, clip(), "cuda")
    assert error.details == {"case": "memory", "needed_bytes": needed, "offered_bytes": 300 * MIB}

    with pytest.raises(CannotFitError) as caught:
        require_device(engine, clip(7680, 4320), ("cpu",), Ceiling({}, 900 * MIB, {"cpu": LEAST_RATIO}))
    assert caught.value.remedy.startswith("Set `resolution_limit: 1920` in the job, or give")
    assert "cpu_fallback" not in caught.value.remedy, "it renders there already"


def test_a_refusal_proposes_the_other_engine_only_where_it_would_fit() -> None:
    card = Ceiling({"cuda": 300 * MIB}, HOST.budget_bytes, {"cuda": LEAST_RATIO})
    for other, kinds, proposed in (
        (RewriteEngine(), ("cpu",), True),  # engines.cpu_only: it renders on the host
        (RewriteEngine(), ("cuda", "cpu"), False),  # on that card it would not fit either
        (wav2lip("classic96"), ("cpu",), False),  # the very engine that is refused
    ):
        with pytest.raises(CannotFitError) as caught:
            require_device(wav2lip("classic96"), clip(), ("cuda", "cpu"), card, (other, kinds))
        assert ("`engine: rewrite`" in caught.value.remedy) == proposed


def test_what_one_device_could_take_or_nobody_knows_goes_on() -> None:
    engine, video = RewriteEngine(), clip(7680, 4320)
    require_device(engine, video, ("cpu", "cuda"), Ceiling({"cpu": 100 * MIB, "cuda": 8000 * MIB}, 100 * MIB))
    require_device(engine, video, ("cpu",), Ceiling({"cuda": 10 * MIB}, 8000 * MIB))  # engines.cpu_only
    require_device(engine, video, ("cpu", "cuda"), Ceiling(None, 10 * MIB))  # a cluster may grow
    least = least_bytes(engine, video, "cpu")
    require_device(engine, video, ("cpu",), Ceiling({"cpu": int(least * LEAST_RATIO) + 1}, 0, {"cpu": LEAST_RATIO}))
    with pytest.raises(CannotFitError):
        require_device(engine, video, ("cpu",), Ceiling({"cpu": int(least * LEAST_RATIO) - 1}, 0, {"cpu": LEAST_RATIO}))


def test_the_ceiling_is_what_a_device_can_give_when_nobody_else_is_on_it() -> None:
    settings = SchedulerSettings(gpu_memory_fraction=0.9)
    crowded = Device("cuda:0", "cuda", 24_000 * MIB, 500 * MIB, slots=2)
    assert most_bytes(crowded, settings) == int(24_000 * MIB * 0.9)
    assert most_bytes(HOST, settings) == int(64 * 2**30 * 0.8)
    told = SchedulerSettings(cpu_memory_mib=700)
    assert most_bytes(dataclasses.replace(HOST, budget_bytes=700 * MIB), told) == 700 * MIB
    card = Device("sim:0", "cpu", 1000 * MIB, 900 * MIB, slots=2)
    assert most_bytes(card, settings) == 900 * MIB
    found = ceiling_of([crowded, card], HOST, settings, Calibration())
    assert found == Ceiling.from_dict(found.to_dict())
    assert found.of(("cpu", "cuda")) == {"cpu": 900 * MIB, "cuda": int(24_000 * MIB * 0.9)}


def test_measurements_far_below_the_formula_lower_the_bound() -> None:
    load = Load("rewrite", "", "cpu", "float32", "1080p", 1)
    assert Calibration().least_ratio("cpu") == LEAST_RATIO
    low = Calibration().learn(load, 1000, 400)
    assert low.least_ratio("cpu") == pytest.approx(0.32)
    assert low.least_ratio("cuda") == LEAST_RATIO
    fit = Fit.through([Point(1, 500)], {1: 1000})
    assert low.fitted(load.family, "cpu", fit).least_ratio("cpu") == pytest.approx(0.4)
    assert Calibration().learn(load, 1000, 3000).least_ratio("cpu") == LEAST_RATIO


@pytest.mark.parametrize("engine", [RewriteEngine(), wav2lip("classic96")], ids=lambda engine: engine.name)
def test_preparing_asks_for_more_where_the_lengths_demand_it(engine: LipSyncEngine) -> None:
    ceiling = Ceiling({}, 8000 * MIB)
    require_preparing_room(engine, clip(), 60.0, 500 * MIB, ceiling)
    require_preparing_room(engine, clip(), 4 * 3600.0, 0, ceiling)  # nobody counts
    with pytest.raises(MoreRoomNeededError) as caught:
        require_preparing_room(engine, clip(), 4 * 3600.0, 500 * MIB, ceiling)
    needed = caught.value.needed_bytes
    require_preparing_room(engine, clip(), 4 * 3600.0, needed, ceiling)
    assert needed > engine.prepare_bytes(PrepareQuery(1920, 1080, 250, 4 * 3600.0))
    tight = Ceiling({}, needed - MIB)
    with pytest.raises(MoreRoomNeededError) as caught:
        require_preparing_room(engine, clip(), 4 * 3600.0, 500 * MIB, tight)
    assert caught.value.needed_bytes == needed - MIB, "the formula may be too careful: all of the machine is tried"
    require_preparing_room(engine, clip(), 4 * 3600.0, needed - MIB, tight)
    with pytest.raises(CannotFitError, match=r"preparing 4.0 h of speech .* takes \d+ MiB of RAM"):
        require_preparing_room(engine, clip(), 4 * 3600.0, 500 * MIB, Ceiling({}, 200 * MIB))


def test_the_folder_holds_no_samples_after_an_item_was_prepared(tmp_path: Path) -> None:
    folder = ItemFolder(tmp_path)
    folder.speech_samples.write_bytes(b"1234")
    folder.drop_samples()
    folder.drop_samples()
    assert list(tmp_path.iterdir()) == []


def test_a_process_beside_the_worker_is_counted_too() -> None:
    engine, ceiling = RewriteEngine(), Ceiling({}, 8000 * MIB)
    require_preparing_room(engine, clip(), 60.0, 500 * MIB, ceiling)
    require_preparing_room(engine, clip(), 60.0, 1000 * MIB, ceiling, LANDMARKS_BYTES)
    with pytest.raises(MoreRoomNeededError) as caught:
        require_preparing_room(engine, clip(), 60.0, 500 * MIB, ceiling, LANDMARKS_BYTES)
    assert caught.value.needed_bytes > LANDMARKS_BYTES + engine.prepare_bytes(PrepareQuery(1920, 1080, 250, 60.0))
