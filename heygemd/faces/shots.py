"""Where one picture ends and another begins."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

GRID = 24
"""Side of the thumbnail that is compared."""


class CutFinder:
    """Says of every frame whether a new shot starts with it. The first frame starts none."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._last_bins: NDArray[np.float32] | None = None
        self._usual = 4.0

    def update(self, image: NDArray[np.uint8]) -> bool:
        h, w = image.shape[:2]
        step = max(1, min(h, w) // 120)
        thumb = cv2.resize(image[::step, ::step], (GRID, GRID), interpolation=cv2.INTER_AREA)
        small = cv2.cvtColor(thumb, cv2.COLOR_BGR2GRAY).astype(np.float32)
        counts = cv2.calcHist([thumb], [0, 1, 2], None, [4, 4, 4], [0, 256, 0, 256, 0, 256]).ravel()
        bins = np.asarray(counts / counts.sum(), np.float32)
        cut = False
        if self._last is not None and self._last_bins is not None:
            change = float(np.abs(small - self._last).mean())
            colours = float(np.abs(bins - self._last_bins).sum()) / 2
            # A cut replaces the picture: most of the thumbnail changes at once, far beyond what motion did before.
            # A flash or a fade keeps the structure, so the pictures must differ after their means are taken out.
            a, b = small - small.mean(), self._last - self._last.mean()
            alike = float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))
            cut = change > max(10.0, 4 * self._usual) and (alike < 0.6 or (colours > 0.5 and alike < 0.85))
            if not cut:
                self._usual = 0.9 * self._usual + 0.1 * max(change, 0.5)
        self._last, self._last_bins = small, bins
        return cut
