"""The contact sheet, drawn of real segments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.core.errors import UnreadableMediaError
from heygemd.media import sheet
from heygemd.media.sheet import contact_sheet
from tests.unit.media.test_encode import decoded, picture, segments

WIDE = replace(picture(), width=160, height=90)


Grey = NDArray[np.uint8]


def read(path: Path) -> Grey:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)


def small(image: cv2.typing.MatLike) -> Grey:
    return np.asarray(cv2.resize(image, (40, 20)), np.uint8)


def cells(path: Path, columns: int, rows: int) -> list[Grey]:
    """The pictures of a sheet without the line of their times, small."""
    image = read(path)
    height, width = image.shape[0] // rows, image.shape[1] // columns
    found = []
    for cell in range(columns * rows):
        top, left = cell // columns * height, cell % columns * width
        found.append(small(image[top : top + height - 24, left : left + width]))
    return found


def frames(paths: list[Path]) -> list[Grey]:
    """What the cells of such frames look like."""
    planes = np.concatenate([decoded(path, "yuv420p") for path in paths]).reshape(-1, WIDE.width * WIDE.height * 3 // 2)
    luma = planes[:, : WIDE.width * WIDE.height].reshape(-1, WIDE.height, WIDE.width)
    grey = [np.clip((frame.astype(np.float32) - 16) * 255 / 219, 0, 255).astype(np.uint8) for frame in luma]
    return [small(cv2.resize(g, (240, 135), interpolation=cv2.INTER_AREA)[:111]) for g in grey]


def nearest(cell: Grey, pictures: list[Grey]) -> int:
    return int(np.argmin([np.abs(cell.astype(int) - p).mean() for p in pictures]))


def test_each_cell_shows_the_frame_of_its_time_across_segments(tmp_path: Path) -> None:
    lengths = [7, 1, 20, 12]
    paths = segments(tmp_path, WIDE, lengths)
    out = tmp_path / "sheet.jpg"
    contact_sheet(paths, out, video=WIDE, segment_frames=lengths, work=tmp_path, columns=4, rows=2)
    assert read(out).shape == (2 * 135, 4 * 240)
    seen = [nearest(cell, frames(paths)) for cell in cells(out, 4, 2)]
    assert seen == [2, 7, 12, 17, 22, 27, 32, 37]
    assert not list(tmp_path.glob("*.ffconcat"))


def test_of_a_long_video_the_key_frames_before_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "_ONE_PASS_FRAMES", 10)
    lengths = [10, 10, 10, 10]
    paths = segments(tmp_path, WIDE, lengths)
    out = tmp_path / "sheet.jpg"
    contact_sheet(paths, out, video=WIDE, segment_frames=lengths, work=tmp_path, columns=4, rows=1)
    assert [nearest(cell, frames(paths)) for cell in cells(out, 4, 1)] == [0, 10, 20, 30]


def test_few_frames_have_few_cells(tmp_path: Path) -> None:
    paths = segments(tmp_path, WIDE, [3])
    out = tmp_path / "sheet.jpg"
    contact_sheet(paths, out, video=WIDE, segment_frames=[3], work=tmp_path)
    assert read(out).shape == (135, 6 * 240)


def test_a_segment_that_cannot_be_decoded_is_an_error(tmp_path: Path) -> None:
    (path,) = segments(tmp_path, WIDE, [5])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableMediaError, match="no contact sheet"):
        contact_sheet([path], tmp_path / "sheet.jpg", video=WIDE, segment_frames=[5], work=tmp_path)
