"""The visible mark: words in the picture's upper left corner that say that it is AI-generated.

Drawn into the planes before the one and only encode, whatever the engine. The words are shipped as a picture
(scripts/make_mark.py), so no font is needed, and no configuration can turn them into other words. Their letters are at
least 5 % of the picture's shorter side high, as GB 45438-2025 asks, and they stay for the whole length.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.provenance import MarkWords
from heygemd.media.frames import working_layout

_LETTER_SHARE = 0.052  # of the shorter side; a little more than 5 %, since rows are whole numbers
_MARGIN_SHARE = 0.025
_PADDING = 0.45  # of the letters' height, around the words
_BOX_OPACITY = 0.5
_WHITE = {"smpte2084": 0.58, "arib-std-b67": 0.75}  # HDR: white paper (BT.2408), not the brightest light
_MOST_WIDTH_SHARE = 0.9


@dataclass(frozen=True)
class Mark:
    """Ready for one video: for each plane where it goes, what of the source stays there, and what is added."""

    corners: tuple[tuple[int, int], ...]  # row, column
    keep: tuple[NDArray[np.float32], ...]
    add: tuple[NDArray[np.float32], ...]

    @staticmethod
    def of(words: MarkWords, video: VideoInfo) -> Mark | None:
        """None for `off`."""
        if words == "off":
            return None
        text, margin = _scaled(words, video)
        height, width = text.shape
        keep_light = (1 - _BOX_OPACITY) * (1 - text)
        layout = working_layout(video)
        full = video.colour.range == "pc"
        top = 2**video.bit_depth
        black = 0.0 if full else 16 / 256 * top
        peak = top - 1.0 if full else 235 / 256 * top
        white = black + _WHITE.get(video.colour.transfer or "", 1.0) * (peak - black)
        corners, keep, add = [], [], []
        for number, (rows, columns) in enumerate(layout.shapes):
            down, across = round(layout.shapes[0][0] / rows), round(layout.shapes[0][1] / columns)
            box = slice(margin // down, rows), slice(margin // across, columns)
            size = (-(-width // across), -(-height // down))
            kept = keep_light if number == 0 else cv2.resize(keep_light, size, interpolation=cv2.INTER_AREA)
            # light: white words on black; colour: none
            added = (1 - kept) * (top / 2) if number else text * white + (1 - text) * _BOX_OPACITY * black
            room = (rows - box[0].start, columns - box[1].start)
            corners.append((box[0].start, box[1].start))
            keep.append(np.ascontiguousarray(kept[: room[0], : room[1]], np.float32))
            add.append(np.ascontiguousarray(added[: room[0], : room[1]] + 0.5, np.float32))
        return Mark(tuple(corners), tuple(keep), tuple(add))

    def draw(self, planes: tuple[NDArray[np.uint8] | NDArray[np.uint16], ...]) -> None:
        """Draw into a frame's own planes."""
        for plane, (row, column), keep, add in zip(planes, self.corners, self.keep, self.add, strict=True):
            part = plane[row : row + keep.shape[0], column : column + keep.shape[1]]
            part[:] = (part * keep + add).astype(plane.dtype)


def _scaled(words: MarkWords, video: VideoInfo) -> tuple[NDArray[np.float32], int]:
    """Coverage of the words with room around them, (height, width) 0..1, and the margin in rows; both even."""
    with resources.files("heygemd.media").joinpath("mark.npz").open("rb") as file, np.load(file) as data:
        picture, ink = data[words], int(data[f"{words}_ink"])
    aspect = float(video.sample_aspect)  # a wide pixel makes narrow letters
    shorter = min(video.height, video.width * aspect)
    letters = _LETTER_SHARE * shorter
    scale = min(letters / ink, _MOST_WIDTH_SHARE * video.width * aspect / picture.shape[1])
    pad = round(_PADDING * scale * ink)
    size = max(2, round(picture.shape[1] * scale / aspect)), max(2, round(picture.shape[0] * scale))
    text = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    across = round(pad / aspect)
    text = np.pad(text, ((pad, pad + (size[1] % 2)), (across, across + (size[0] % 2))))
    return text, 2 * round(_MARGIN_SHARE * shorter / 2)
