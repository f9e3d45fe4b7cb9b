from collections.abc import Sequence

import numpy as np
import pytest

from heygemd.core.clip import Box, ColourTags
from heygemd.faces.composite import Composer, subsampling

FORMATS = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"]


def planes(pix_fmt: str, depth: int, width: int = 64, height: int = 48) -> Sequence[np.ndarray]:
    rng = np.random.default_rng(1)
    sx, sy = subsampling(pix_fmt)
    kind = np.uint8 if depth == 8 else np.uint16
    peak = 2**depth
    sizes = [(height, width), (height // sy, width // sx), (height // sy, width // sx)]
    return tuple(rng.integers(0, peak, size).astype(kind) for size in sizes)


def composer(pix_fmt: str, depth: int, **tags: str) -> Composer:
    return Composer.for_frames(64, 48, pix_fmt, depth, ColourTags(**tags))


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_nothing_outside_the_mask_changes_by_a_bit(pix_fmt: str) -> None:
    depth = 10 if "10" in pix_fmt else 8
    tool = composer(pix_fmt, depth)
    frame = planes(pix_fmt, depth)
    before = [p.copy() for p in frame]
    box = tool.snap(Box(9, 7, 41, 33), 64, 48)
    region = tool.read(frame, box)
    mask = np.zeros(region.shape[:2], np.float32)
    mask[8:16, 8:20] = 1.0
    tool.blend(frame, box, region, np.full_like(region, 200.0), mask)
    sx, sy = subsampling(pix_fmt)
    changed = [np.argwhere(a != b) for a, b in zip(frame, before, strict=True)]
    assert len(changed[0]) > 0
    for points, x, y in zip(changed, (1, sx, sx), (1, sy, sy), strict=True):
        rows, columns = points[:, 0] * y, points[:, 1] * x
        assert ((rows >= box.y0 + 8 - y + 1) & (rows < box.y0 + 16)).all()
        assert ((columns >= box.x0 + 8 - x + 1) & (columns < box.x0 + 20)).all()


@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_an_unchanged_patch_changes_nothing_even_under_a_full_mask(pix_fmt: str) -> None:
    depth = 10 if "10" in pix_fmt else 8
    tool = composer(pix_fmt, depth)
    frame = planes(pix_fmt, depth)
    before = [p.copy() for p in frame]
    box = tool.snap(Box(0, 0, 64, 48), 64, 48)
    region = tool.read(frame, box)
    tool.blend(frame, box, region, region.copy(), np.ones(region.shape[:2], np.float32))
    assert all((a == b).all() for a, b in zip(frame, before, strict=True))


@pytest.mark.parametrize(
    ("tags", "rgb", "yuv"),
    [
        ({"matrix": "bt709", "range": "tv"}, (255, 0, 0), (63, 102, 240)),
        ({"matrix": "smpte170m", "range": "tv"}, (255, 0, 0), (81, 90, 240)),
        ({"matrix": "bt709", "range": "pc"}, (0, 255, 0), (182, 30, 12)),
        ({"matrix": "bt709", "range": "tv"}, (255, 255, 255), (235, 128, 128)),
    ],
)
def test_colours_follow_the_tags(tags: dict[str, str], rgb: tuple[int, ...], yuv: tuple[int, ...]) -> None:
    """Code values of pure colours as tabulated for these standards."""
    tool = composer("yuv444p", 8, **tags)
    frame = tuple(np.full((48, 64), value, np.uint8) for value in yuv)
    read = tool.read(frame, Box(0, 0, 64, 48))
    assert np.abs(read[10, 10] - rgb).max() < 2.5
    grey = tuple(np.full((48, 64), v, np.uint8) for v in ((126, 128, 128) if tags["range"] == "tv" else (128,) * 3))
    before = tool.read(grey, Box(0, 0, 64, 48))
    after = np.broadcast_to(np.array(rgb, np.float32), before.shape).copy()
    tool.blend(grey, Box(0, 0, 64, 48), before, after, np.ones((48, 64), np.float32))
    assert np.abs(np.array([p[10, 10] for p in grey], float) - yuv).max() <= 1


def test_without_a_tag_the_size_decides() -> None:
    small = Composer.for_frames(640, 480, "yuv420p", 8, ColourTags())
    large = Composer.for_frames(1920, 1080, "yuv420p", 8, ColourTags())
    assert np.allclose(small.to_rgb, composer("yuv420p", 8, matrix="smpte170m").to_rgb)
    assert np.allclose(large.to_rgb, composer("yuv420p", 8, matrix="bt709").to_rgb)


def test_rgb_is_refused() -> None:
    with pytest.raises(ValueError, match="not planar YUV"):
        subsampling("gbrp")
