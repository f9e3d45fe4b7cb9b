"""Between the decoder's YUV planes and the float RGB of engines, for one box at a time.

What is written back is the *difference* between the patch and what it was made from, times the mask, added to the
planes. So no pixel suffers a round trip through RGB, and where the mask is 0 the planes keep their bits.
Matrices: ITU-T H.273 table 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box, ColourTags

Planes = tuple[NDArray[np.uint8] | NDArray[np.uint16], ...]

_LUMA_WEIGHTS: dict[str, tuple[float, float]] = {  # matrix → (Kr, Kb)
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
    "bt2020c": (0.2627, 0.0593),
}


@dataclass(frozen=True)
class Composer:
    """Reads and writes boxes of frames of one kind. Holds no frame; safe to share between threads."""

    to_rgb: NDArray[np.float32]  # (3, 4): [R G B] = m @ [Y U V 1], RGB in 0..255, YUV in code values
    to_yuv_difference: NDArray[np.float32]  # (3, 3): YUV code values for a difference in RGB
    chroma_x: int
    chroma_y: int
    max_value: int

    @staticmethod
    def for_frames(width: int, height: int, pix_fmt: str, bit_depth: int, colour: ColourTags) -> Composer:
        """`pix_fmt`: a planar YUV name. Without a matrix tag: BT.709 from 720 lines or 1280 columns on, else BT.601."""
        matrix = colour.matrix
        if matrix not in _LUMA_WEIGHTS:
            matrix = "bt709" if height >= 720 or width >= 1280 else "smpte170m"
        kr, kb = _LUMA_WEIGHTS[matrix]
        kg = 1 - kr - kb
        step = 2.0 ** (bit_depth - 8)
        full = colour.range == "pc"
        peak = 2.0**bit_depth - 1
        luma_offset, luma_scale, chroma_scale = (0.0, peak, peak) if full else (16 * step, 219 * step, 224 * step)
        chroma_offset = 128 * step
        rgb_to_ypbpr = np.array(
            [
                [kr, kg, kb],
                [-kr / (2 * (1 - kb)), -kg / (2 * (1 - kb)), 0.5],
                [0.5, -kg / (2 * (1 - kr)), -kb / (2 * (1 - kr))],
            ]
        )
        scale = np.diag([luma_scale, chroma_scale, chroma_scale]) / 255.0
        forward = scale @ rgb_to_ypbpr
        backward = np.linalg.inv(forward)
        offset = backward @ np.array([luma_offset, chroma_offset, chroma_offset])
        sub_x, sub_y = subsampling(pix_fmt)
        return Composer(
            np.hstack([backward, -offset[:, None]]).astype(np.float32),
            forward.astype(np.float32),
            sub_x,
            sub_y,
            2**bit_depth - 1,
        )

    def snap(self, box: Box, width: int, height: int) -> Box:
        """The smallest box around `box` that holds whole chroma samples, inside the frame."""
        x, y = self.chroma_x, self.chroma_y
        return Box(box.x0 // x * x, box.y0 // y * y, -(-box.x1 // x) * x, -(-box.y1 // y) * y).clamped(width, height)

    def read(self, planes: Planes, box: Box) -> NDArray[np.float32]:
        """(h, w, 3) float32 RGB, 0..255, not clipped. `box` must be snapped."""
        luma = planes[0][box.y0 : box.y1, box.x0 : box.x1].astype(np.float32)
        chroma = [
            cv2.resize(
                self._chroma(plane, box).astype(np.float32), (box.width, box.height), interpolation=cv2.INTER_LINEAR
            )
            for plane in planes[1:3]
        ]
        return np.asarray(cv2.transform(cv2.merge([luma, *chroma]), self.to_rgb), np.float32)

    def blend(
        self,
        planes: Planes,
        box: Box,
        before: NDArray[np.float32],
        after: NDArray[np.float32],
        mask: NDArray[np.float32],
    ) -> None:
        """Add (after - before) x mask to the planes in place. `before` is what `read` gave. `box` must be snapped."""
        part = self._part(mask)
        if part is None:
            return
        before, after, mask = before[part], after[part], mask[part]
        box = Box(box.x0 + part[1].start, box.y0 + part[0].start, box.x0 + part[1].stop, box.y0 + part[0].stop)
        change = cv2.transform(after - before, self.to_yuv_difference) * mask[..., None]
        self._add(planes[0][box.y0 : box.y1, box.x0 : box.x1], change[..., 0])
        size = (-(-box.width // self.chroma_x), -(-box.height // self.chroma_y))
        for plane, layer in zip(planes[1:3], (change[..., 1], change[..., 2]), strict=True):
            small = np.asarray(cv2.resize(layer, size, interpolation=cv2.INTER_AREA), np.float32)
            self._add(self._chroma(plane, box), small)

    def _part(self, mask: NDArray[np.float32]) -> tuple[slice, slice] | None:
        """Where the mask is not 0, to whole chroma samples. None where it is 0 everywhere."""
        slices = []
        for axis, step in ((0, self.chroma_y), (1, self.chroma_x)):
            there = np.flatnonzero(mask.any(axis=1 - axis))
            if not len(there):
                return None
            last = min(mask.shape[axis], (int(there[-1]) // step + 1) * step)
            slices.append(slice(int(there[0]) // step * step, last))
        return slices[0], slices[1]

    def _chroma(
        self, plane: NDArray[np.uint8] | NDArray[np.uint16], box: Box
    ) -> NDArray[np.uint8] | NDArray[np.uint16]:
        x, y = self.chroma_x, self.chroma_y
        return plane[box.y0 // y : -(-box.y1 // y), box.x0 // x : -(-box.x1 // x)]

    def _add(self, target: NDArray[np.uint8] | NDArray[np.uint16], change: NDArray[np.float32]) -> None:
        target[...] = np.clip(np.rint(target + change), 0, self.max_value)


def subsampling(pix_fmt: str) -> tuple[int, int]:
    """Luma samples for each chroma sample, horizontally and vertically. Raises ValueError for other than planar YUV."""
    for name, factors in (("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1)), ("440", (1, 2)), ("411", (4, 1))):
        if pix_fmt.startswith(("yuv", "yuvj")) and name in pix_fmt:
            return factors
    raise ValueError(f"{pix_fmt} is not planar YUV")
