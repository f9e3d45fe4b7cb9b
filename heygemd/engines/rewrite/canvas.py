"""Where pass 2 works on pixels: on the CPU with OpenCV, or on a card (torch_canvas.py).

What is small, the fields, the light, the lids, is decided with numpy on the CPU, whatever the canvas. What is as large
as the region is `put` once, worked on where the canvas has it, and fetched once with `get`. A canvas keeps nothing
from one call to the next; threads may share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.faces import canon

Picture = NDArray[np.float32]
Pixels = Any
"""A picture (h, w, channels) or field (h, w), float32, where its canvas has it: a numpy array or a torch tensor. Both
know arithmetic, comparisons, basic slicing and assignment to slices; the functions that both name alike are in `xp`."""
T = TypeVar("T")


class Canvas(Protocol):
    @property
    def xp(self) -> Any:
        """numpy or torch: `abs`, `asarray`, `clip`, `dstack`, `exp`, `where`, `zeros_like`, and `minimum` and `maximum`
        of two arrays (of an array and a number, `clip` is both)."""

    def put(self, array: NDArray[Any]) -> Pixels:
        """From numpy. It may be the array itself: what is written to is a `copy`."""

    def get(self, pixels: Pixels) -> Picture:
        """To numpy."""

    def copy(self, pixels: Pixels) -> Pixels: ...

    def places(self, width: int, height: int) -> tuple[Pixels, Pixels]:
        """x (1, width) and y (height, 1) of the pixels of a picture."""

    def sample(self, grid: NDArray[np.float32], matrix: canon.Affine, size: tuple[int, int]) -> Pixels:
        """A small field, linearly, at each pixel of a picture of `size` (width, height). `matrix`: grid → picture."""

    def linear(self, picture: Pixels, x: Pixels, y: Pixels, *, beyond: bool = True) -> Pixels:
        """The picture at (x, y), each (h, w). Outside it: its edge goes on, or without `beyond` there is zero."""

    def cubic(self, picture: Pixels, x: Pixels, y: Pixels | None = None) -> Pixels:
        """The picture at (x, y), sharply; its edge goes on. Without `y`, `x` (h, w, 2) has both."""

    def blur(self, picture: Pixels, sigma: float) -> Pixels:
        """Gaussian, mirrored at the edge."""

    def run(self, work: Callable[[], T]) -> T:
        """Do all that is between `put` and `get`. Raises OutOfMemoryError where the device has no room for it."""


class OpenCvCanvas:
    """On the CPU."""

    xp: Any = np

    def put(self, array: NDArray[Any]) -> Pixels:
        return array

    def get(self, pixels: Pixels) -> Picture:
        return np.asarray(pixels, np.float32)

    def copy(self, pixels: Pixels) -> Pixels:
        return pixels.copy()

    def places(self, width: int, height: int) -> tuple[Pixels, Pixels]:
        return np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]

    def sample(self, grid: NDArray[np.float32], matrix: canon.Affine, size: tuple[int, int]) -> Pixels:
        return cv2.warpAffine(grid, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def linear(self, picture: Pixels, x: Pixels, y: Pixels, *, beyond: bool = True) -> Pixels:
        border = cv2.BORDER_REPLICATE if beyond else cv2.BORDER_CONSTANT
        return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=border)

    def cubic(self, picture: Pixels, x: Pixels, y: Pixels | None = None) -> Pixels:
        return cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    def blur(self, picture: Pixels, sigma: float) -> Pixels:
        return cv2.GaussianBlur(picture, (0, 0), sigma)

    def run(self, work: Callable[[], T]) -> T:
        return work()


HOST = OpenCvCanvas()
