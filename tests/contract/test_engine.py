"""What every engine says of the precisions that it computes in, its renderers keep."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from heygemd.core.clip import VideoInfo
from heygemd.core.options import Options
from heygemd.engines.base import Computed, LipSyncEngine, MemoryQuery, engine_names, load_engine
from heygemd.engines.wav2lip.seeded import save_seeded
from heygemd.engines.wav2lip.variants import COMPRESSED96

VIDEO = VideoInfo(320, 240, Fraction(25), 50, 2.0, "yuv420p")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seeded(COMPRESSED96, tmp_path_factory.mktemp("weights") / "w.pth")


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> LipSyncEngine:
    found = load_engine(request.param)
    assert found.availability(checkpoint if found.needs_checkpoint else None).ok
    return found


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("options", [Options(), Options(reference=True)], ids=["usual", "reference"])
def test_each_kind_of_device_has_precisions_whose_memory_is_known(
    engine: LipSyncEngine, kind: str, options: Options
) -> None:
    found = engine.precisions(kind, options)
    assert found and len(set(found)) == len(found)
    for precision in found:
        assert engine.memory_bytes(MemoryQuery(kind, precision, 8, 320, 240, engine.variant)) > 0


def test_a_renderer_computes_in_what_it_is_asked_for(engine: LipSyncEngine, checkpoint: Path) -> None:
    analysis, motion = engine.stand_in(VIDEO, (100, 100), 10)
    for precision in engine.precisions("cpu", Options()):
        renderer = engine.renderer(
            analysis,
            motion,
            VIDEO,
            Options(),
            device="cpu",
            precision=precision,
            checkpoint=checkpoint if engine.needs_checkpoint else None,
        )
        try:
            assert renderer.computed() == Computed(precision)
        finally:
            renderer.close()
