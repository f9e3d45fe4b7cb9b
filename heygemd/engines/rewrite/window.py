"""The part of a picture that a canonical rectangle covers: its pixels, its canonical points, fields sampled at them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heygemd.engines.rewrite.canvas import Canvas, Pixels
from heygemd.engines.rewrite.shape import FIELD_BOX, STEP
from heygemd.faces import canon

_TO_GRID = np.array([[1 / STEP, 0.0, -FIELD_BOX[0] / STEP], [0.0, 1 / STEP, -FIELD_BOX[1] / STEP]])


class Window:
    """The part of a region that a canonical rectangle covers, on the region's canvas."""

    def __init__(
        self, canvas: Canvas, matrix: canon.Affine, rect: tuple[float, float, float, float], shape: tuple[int, ...]
    ) -> None:
        self.canvas = canvas
        x0, y0, x1, y1 = rect
        corners = canon.apply(matrix, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
        low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, [shape[1] - 1, shape[0] - 1])
        high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low + 1, [shape[1], shape[0]])
        self._low, self._size = low, (int(high[0] - low[0]), int(high[1] - low[1]))
        self.slices = (slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])))
        self.matrix = matrix.copy()
        self.matrix[:, 2] -= low

    def pixels(self) -> tuple[Pixels, Pixels]:
        """x and y of its pixels in the region."""
        x, y = self.canvas.places(*self._size)
        return x + float(self._low[0]), y + float(self._low[1])

    def points(self) -> tuple[Pixels, Pixels]:
        """Canonical x and y of its pixels."""
        (a, b, c), (d, e, f) = canon.invert(self.matrix).astype(np.float32).tolist()
        x, y = self.canvas.places(*self._size)
        return a * x + b * y + c, d * x + e * y + f

    def sample(self, grid: NDArray[np.float32]) -> Pixels:
        """A field of FIELD_BOX at each pixel."""
        return self.canvas.sample(grid, canon.compose(self.matrix, canon.invert(_TO_GRID)), self._size)
