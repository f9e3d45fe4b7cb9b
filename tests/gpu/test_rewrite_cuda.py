"""`rewrite` on a CUDA device: OpenCV's frames, alone and from several threads, in the memory that was predicted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.clip import VideoInfo
from heygemd.core.memory import GROUPS_AT_ONCE
from heygemd.engines.base import MemoryQuery, Region
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.render import RewriteRenderer
from tests.mouths import Scene, assert_alike, clip, smile, speaker

torch = pytest.importorskip("torch")

MEDIA = Path(__file__).resolve().parents[2] / "../shared/media"
CLIPS = ("dev-v2-man-25fps.mp4", "dev-v5-man-portrait-20s.mp4")


@pytest.fixture(scope="module", params=["own lips", "alive", "reference", *CLIPS])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    work = tmp_path_factory.mktemp("scene")
    if request.param not in CLIPS:
        return speaker() if request.param == "reference" else smile(work, alive=request.param == "alive")
    if not (MEDIA / request.param).exists():
        pytest.skip("no shared media here")
    return clip(MEDIA / request.param, work)


def test_agrees_with_the_cpu_from_any_thread(scene: Scene) -> None:
    from heygemd.engines.rewrite.torch_canvas import TorchCanvas

    regions = scene.regions()
    exact = scene.renderer().render(regions)
    ours = scene.renderer(TorchCanvas("cuda"))
    together = ours.render(regions)
    with ThreadPoolExecutor(GROUPS_AT_ONCE) as threads:
        alone = list(threads.map(lambda region: ours.render([region])[0], regions))
    for one, other, expected in zip(together, alone, exact, strict=True):
        assert_alike(one, expected)
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("side", [200, 640, 1600])
def test_memory_stays_below_the_prediction(side: int) -> None:
    """Faces of many sizes, one after the other, on as many threads as a render has."""
    from heygemd.engines.rewrite.torch_canvas import TorchCanvas

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    canvas, engine, pixels = TorchCanvas("cuda"), RewriteEngine(), 0
    video = VideoInfo(3840, 2160, speaker().video.fps, 10, 0.4, "yuv420p")
    for percent in range(50, 101, 5):
        size = side * percent // 100
        renderer = RewriteRenderer(*engine.stand_in(video, (size, size), 10), video, canvas)
        box = renderer.box(5, 0)
        assert box is not None
        pixels = max(pixels, box.width * box.height)
        region = Region(5, 0, box, np.full((box.height, box.width, 3), 100.0, np.float32))
        with ThreadPoolExecutor(GROUPS_AT_ONCE) as threads:
            assert len(list(threads.map(lambda r, to=renderer: to.render([r]), [region] * 6))) == 6
    query = MemoryQuery("cuda", "float32", 64, video.width, video.height, "", pixels)
    print(f"{side}: {torch.cuda.max_memory_reserved() / 2**20:.0f} MiB beside the context")  # noqa: T201 - the record
    assert torch.cuda.max_memory_reserved() < engine.memory_bytes(query) - (600 << 20)
