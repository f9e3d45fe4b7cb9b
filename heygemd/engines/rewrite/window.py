"""The part of a picture that a canonical rectangle covers: its pixels, its canonical points, fields sampled at them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.shape import FIELD_BOX, STEP
from heygemd.faces import canon

Picture = NDArray[np.float32]
_TO_GRID = np.array([[1 / STEP, 0.0, -FIELD_BOX[0] / STEP], [0.0, 1 / STEP, -FIELD_BOX[1] / STEP]])


class Window:
    """The part of a region that a canonical rectangle covers."""

    def __init__(self, matrix: canon.Affine, rect: tuple[float, float, float, float], shape: tuple[int, ...]) -> None:
        x0, y0, x1, y1 = rect
        corners = canon.apply(matrix, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [shape[1] - 1, shape[0] - 1])
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low + 1, [shape[1], shape[0]])
        self._low, self._size = low, (int(high[0] - low[0]), int(high[1] - low[1]))
        self.slices = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        self.matrix = matrix.copy()
        self.matrix[:, 2] -= low

    def pixels(self) -> tuple[Picture, Picture]:
        """x and y of its pixels in the region."""
        x = np.arange(self._size[0], dtype=np.float32)[None] + np.float32(self._low[0])
        y = np.arange(self._size[1], dtype=np.float32)[:, None] + np.float32(self._low[1])
        return x, y

    def points(self) -> tuple[Picture, Picture]:
        """Canonical x and y of its pixels."""
        back = canon.invert(self.matrix).astype(np.float32)
        x = np.arange(self._size[0], dtype=np.float32)[None]
        y = np.arange(self._size[1], dtype=np.float32)[:, None]
        return back[0, 0] * x + back[0, 1] * y + back[0, 2], back[1, 0] * x + back[1, 1] * y + back[1, 2]

    def sample(self, grid: Picture) -> Picture:
        """A field of FIELD_BOX at each pixel."""
        out: Picture = cv2.warpAffine(
            grid,
            canon.compose(self.matrix, canon.invert(_TO_GRID)),
            self._size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return out
