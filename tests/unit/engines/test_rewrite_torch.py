"""`rewrite` drawn with torch, here on the CPU: the same frames as OpenCV's; tests/gpu does it on a card."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.errors import OutOfMemoryError
from heygemd.core.options import Options
from heygemd.engines.base import MemoryQuery
from heygemd.engines.rewrite import RewriteEngine
from tests.mouths import Scene, assert_alike, clip, smile, speaker

torch = pytest.importorskip("torch")
from heygemd.engines.rewrite import torch_canvas  # noqa: E402 - it needs torch

MEDIA = Path(__file__).resolve().parents[3] / "../shared/media"


@pytest.fixture(scope="module", params=["own lips", "alive", "reference"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    if request.param == "reference":
        return speaker()
    return smile(tmp_path_factory.mktemp("smile"), alive=request.param == "alive")


def test_frames_are_opencv_s(scene: Scene) -> None:
    regions = scene.regions()
    exact, ours = scene.renderer(), scene.renderer(torch_canvas.TorchCanvas("cpu"))
    kept = [region.image.copy() for region in regions]
    for one, other in zip(ours.render(regions), exact.render(regions), strict=True):
        assert_alike(one, other)
    assert max(np.abs(p.image - r.image).max() for p, r in zip(ours.render(regions), regions, strict=True)) > 40
    for region, before in zip(regions, kept, strict=True):
        np.testing.assert_array_equal(region.image, before)


def test_any_frame_alone_and_from_any_thread_is_as_among_others(scene: Scene) -> None:
    regions = scene.regions()[::3]
    renderer = scene.renderer(torch_canvas.TorchCanvas("cpu"))
    together = renderer.render(regions)
    with ThreadPoolExecutor(4) as threads:
        alone = list(threads.map(lambda region: renderer.render([region])[0], [*regions, *reversed(regions)]))
    for one, other in zip([*together, *reversed(together)], alone, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.media
@pytest.mark.parametrize("name", ["dev-v2-man-25fps.mp4", "dev-v5-man-portrait-20s.mp4"])
def test_real_people_are_alike_too(name: str, tmp_path: Path) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("no shared media here")
    scene = clip(MEDIA / name, tmp_path)
    regions = scene.regions()
    ours = scene.renderer(torch_canvas.TorchCanvas("cpu")).render(regions)
    for one, other in zip(ours, scene.renderer().render(regions), strict=True):
        assert_alike(one, other)


def test_a_full_card_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = speaker()
    renderer = scene.renderer(torch_canvas.TorchCanvas("cpu"))

    def full(*_args: object, **_kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch_canvas, "grid_sample", full)
    with pytest.raises(OutOfMemoryError, match="does not fit") as caught:
        renderer.render(scene.regions()[:1])
    assert caught.value.__context__ is None, "its traceback would hold the tensors"


def test_the_engine_takes_the_card_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Card(torch_canvas.TorchCanvas):
        def __init__(self, device: str) -> None:
            asked.append(device)
            super().__init__("cpu")

    monkeypatch.setattr(torch_canvas, "TorchCanvas", Card)
    scene = speaker()
    parts = scene.analysis, scene.motion, scene.video, Options()
    for device in ("cuda:0", "cpu"):
        renderer = RewriteEngine().renderer(*parts, device=device, precision="float32", checkpoint=None)
        assert len(renderer.render(scene.regions()[:1])) == 1
    assert asked == ["cuda:0"]


def test_memory_on_a_card_grows_with_the_face_and_not_with_the_batch() -> None:
    def needs(batch: int, pixels: int) -> int:
        return RewriteEngine().memory_bytes(MemoryQuery("cuda", "float32", batch, 1920, 1080, "", pixels))

    assert needs(1, 300 * 300) == needs(64, 300 * 300) < needs(1, 900 * 900) < 2 << 30
    assert needs(1, 900 * 900) - needs(1, 300 * 300) > 2 * 81 * (900 * 900 - 300 * 300)


def test_the_cpu_s_renderer_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from tests.mouths import speaker\n"
        "from heygemd.core.options import Options\n"
        "from heygemd.engines.rewrite import RewriteEngine\n"
        "scene = speaker()\n"
        "parts = scene.analysis, scene.motion, scene.video, Options()\n"
        "renderer = RewriteEngine().renderer(*parts, device='cpu', precision='float32', checkpoint=None)\n"
        "renderer.render(scene.regions()[:2])\n"
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
