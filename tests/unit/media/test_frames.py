from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.errors import UnreadableMediaError
from heygemd.media.frames import Frame, FrameTable, PlaneLayout


@pytest.mark.parametrize(
    ("pix_fmt", "shapes", "frame_bytes"),
    [
        ("yuv420p", [(6, 8), (3, 4), (3, 4)], 72),
        ("yuv422p10le", [(6, 8), (6, 4), (6, 4)], 192),
        ("yuv444p12le", [(6, 8)] * 3, 288),
    ],
)
def test_layouts(pix_fmt: str, shapes: list[tuple[int, int]], frame_bytes: int) -> None:
    layout = PlaneLayout.of(pix_fmt, 8, 6)
    assert list(layout.shapes) == shapes
    assert layout.frame_bytes == frame_bytes


def test_planes_are_writable_views_and_copies_are_apart() -> None:
    layout = PlaneLayout.of("yuv420p10le", 8, 6)
    frame = Frame.over(np.zeros(layout.frame_bytes, np.uint8), layout, 3)
    copy = frame.copy(layout)
    frame.planes[1][2, 3] = 0x3FF
    assert frame.planes[0].dtype == np.uint16
    assert frame.buffer.reshape(-1)[2 * (48 + 11) : 2 * (48 + 12)].tolist() == [0xFF, 0x03]
    assert not copy.buffer.any() and copy.source_index == 3


def test_other_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="rgb24"):
        PlaneLayout.of("rgb24", 8, 6)


def test_table_survives_the_disk(tmp_path: Path) -> None:
    table = FrameTable(
        np.array([5, 7, 11]),
        np.array([True, False, True]),
        np.array([1, 2**32 - 1, 3], np.uint32),
        Fraction(1, 90000),
        exact_pts=False,
        num_errors=2,
    )
    table.save(tmp_path / "table.npz")
    again = FrameTable.load(tmp_path / "table.npz")
    for name in ("pts", "key", "checksum"):
        assert np.array_equal(getattr(again, name), getattr(table, name))
    assert (again.time_base, again.exact_pts, again.num_errors) == (Fraction(1, 90000), False, 2)
    assert len(again) == 3 and again.start_seconds == pytest.approx(5 / 90000)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x93NUMPY"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.npz"
    path.write_bytes(content)
    with pytest.raises(UnreadableMediaError, match=r"table\.npz"):
        FrameTable.load(path)
