"""The visible mark: where it is, how large, and that the rest of the picture stays as it is."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.core.clip import ColourTags, VideoInfo
from heygemd.core.provenance import MarkWords
from heygemd.media.frames import Frame, working_layout
from heygemd.media.mark import Mark


def video(width: int, height: int, pix_fmt: str = "yuv420p", **more: object) -> VideoInfo:
    depth = 10 if "10" in pix_fmt else 12 if "12" in pix_fmt else 8
    return VideoInfo(width, height, Fraction(25), 1, 0.04, pix_fmt, depth, **more)  # type: ignore[arg-type]


def gray(info: VideoInfo, level: float) -> Frame:
    """A frame of one gray, `level` 0..1 of the code range."""
    layout = working_layout(info)
    frame = Frame.over(np.zeros(layout.frame_bytes, np.uint8), layout, 0)
    for plane, value in zip(frame.planes, (level, 0.5, 0.5), strict=True):
        plane[:] = round(value * 2**info.bit_depth)
    return frame


def drawn(words: MarkWords, info: VideoInfo, level: float = 0.6) -> tuple[Frame, NDArray[np.bool_]]:
    """The marked frame, and which luma samples changed."""
    frame = gray(info, level)
    before = frame.planes[0].copy()
    mark = Mark.of(words, info)
    assert mark is not None
    mark.draw(frame.planes)
    return frame, frame.planes[0] != before


def test_off_is_no_mark() -> None:
    assert Mark.of("off", video(640, 480)) is None


@pytest.mark.parametrize("words", ["en", "zh", "both"])
@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (160, 284), (3840, 2160), (301, 333)])
def test_letters_are_5_percent_of_the_shorter_side(words: MarkWords, size: tuple[int, int]) -> None:
    info = video(*size, pix_fmt="yuv420p" if size[0] % 2 == 0 else "yuv444p")
    frame, changed = drawn(words, info, level=0.3)
    white = (frame.planes[0] > 150) & changed
    rows = np.flatnonzero(white.any(axis=1))
    # the first run of rows with white in it is the first line: its letters, from top to bottom
    gaps = np.flatnonzero(np.diff(rows) > 1)
    first_line = rows[: gaps[0] + 1] if len(gaps) else rows
    least = 0.05 * min(size)
    assert len(first_line) >= least - 1
    assert np.flatnonzero(changed.any(axis=0)).max() < 0.97 * size[0], "it is cut off"


def test_only_the_corner_changes() -> None:
    info = video(640, 480)
    _, changed = drawn("both", info)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] == columns[0] == 12
    assert rows[-1] < 480 * 0.25
    assert columns[-1] < 640 * 0.5


@pytest.mark.parametrize("level", [0.07, 0.5, 0.92])
def test_words_stand_out_on_any_picture(level: float) -> None:
    frame, changed = drawn("zh", video(640, 480), level)
    inside = frame.planes[0][changed].astype(float)
    assert np.percentile(inside, 99) - np.percentile(inside, 20) > 90


@pytest.mark.parametrize(
    ("pix_fmt", "colour", "white"),
    [
        ("yuv420p", ColourTags(), 235),
        ("yuv444p", ColourTags(range="pc"), 255),
        ("yuv422p10le", ColourTags(), 940),
        ("yuv420p10le", ColourTags(transfer="smpte2084"), 64 + 0.58 * 876),
        ("yuv444p12le", ColourTags(transfer="arib-std-b67"), 256 + 0.75 * 3504),
    ],
)
def test_white_is_white_in_every_format_and_has_no_colour(pix_fmt: str, colour: ColourTags, white: float) -> None:
    info = video(640, 480, pix_fmt, colour=colour)
    frame, _ = drawn("en", info, level=0.1)
    assert abs(int(frame.planes[0].max()) - white) <= 2 ** (info.bit_depth - 7)
    for plane in frame.planes[1:]:
        assert np.all(np.abs(plane.astype(int) - 2 ** (info.bit_depth - 1)) <= 1)


def test_wide_pixels_get_narrow_letters() -> None:
    square, wide = video(640, 480), video(640, 480, sample_aspect=Fraction(2, 1))
    widths = [np.flatnonzero(drawn("en", info)[1].any(axis=0)).size for info in (square, wide)]
    assert abs(widths[0] / widths[1] - 2) < 0.1


def test_colour_below_the_box_fades_with_it() -> None:
    info = video(320, 240)
    frame = gray(info, 0.5)
    frame.planes[1][:] = 200
    mark = Mark.of("en", info)
    assert mark is not None
    mark.draw(frame.planes)
    changed = frame.planes[1][frame.planes[1] != 200]
    assert changed.size
    assert changed.min() >= 127
    assert cv2.countNonZero((frame.planes[1] == 164).astype(np.uint8)) > 50  # halfway between 200 and gray
