"""Smoothing over time that neither lags nor leaks over cuts and gaps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d


def runs(found: NDArray[np.bool_], shot: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Spans [start, stop) of consecutive frames with a face, within one shot."""
    key = np.where(found, shot, -1)
    edges = np.flatnonzero(np.diff(key)) + 1
    for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(key)], strict=True):
        if stop > start and key[start] >= 0:
            yield start, stop


def smooth_matrices(matrices: NDArray[np.float64], window: int = 7) -> NDArray[np.float64]:
    """(n, 2, 3) transforms without the tracker's tremble.

    A parabola through `window` frames keeps nods and turns, which a plain average would cut short. It is fitted to
    what the transform does to points of the face, so that turning and shifting are not smoothed against each other.
    """
    n = len(matrices)
    if n < 5:
        return matrices
    window = min(window, n if n % 2 else n - 1)
    anchors = np.array([[92.0, 80.0, 1.0], [164.0, 80.0, 1.0], [128.0, 155.0, 1.0]]).T
    paths = matrices @ anchors
    smoothed = _parabolas(paths.reshape(n, -1), window).reshape(paths.shape)
    return np.asarray(smoothed @ np.linalg.inv(anchors))


def _parabolas(paths: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """(n, d): each value from the parabola through its `window` (odd) neighbours; at the ends through the outermost.

    Savitzky and Golay's filter. SciPy's lies in a package whose import takes most of a second, for every worker.
    """
    n, half = len(paths), window // 2
    powers = np.vander(np.arange(window) - half, 3)
    fit = powers @ np.linalg.pinv(powers)  # (window, window): values → what the parabola has in their places
    spans = np.lib.stride_tricks.sliding_window_view(paths, window, axis=0)  # (n - window + 1, d, window)
    smoothed = np.empty_like(paths)
    smoothed[half : n - half] = spans @ fit[half]
    smoothed[:half] = fit[:half] @ paths[:window]
    smoothed[n - half :] = fit[half + 1 :] @ paths[n - window :]
    return smoothed


def smooth_values(values: NDArray[np.float64], sigma_frames: float) -> NDArray[np.float64]:
    """Zero-phase Gaussian along the first axis."""
    if len(values) < 3 or sigma_frames <= 0:
        return values
    return np.asarray(gaussian_filter1d(values, sigma_frames, axis=0, mode="nearest"))
