"""Pass 2 of `rewrite` on a card, with torch. The same code on torch's own CPU device is for its tests.

OpenCV rounds where it samples to 1/32 of a pixel, this does not: the pictures differ by that, about a tenth of a grey
level in the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from heygemd.core.errors import OutOfMemoryError
from heygemd.faces import canon

T = TypeVar("T")


class TorchCanvas:
    """Threads need not take turns: each has one region on the device at a time."""

    xp: Any = torch

    def __init__(self, device: str) -> None:
        """`device`: cuda, cuda:N or cpu. Raises OutOfMemoryError."""
        self.device = torch.device(device)
        self.run(lambda: self.places(1, 1))  # opens the card: what that takes is there before the first frame

    def put(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array, np.float32), device=self.device)

    def get(self, pixels: Tensor) -> NDArray[np.float32]:
        found: NDArray[np.float32] = pixels.contiguous().cpu().numpy()
        return found

    def copy(self, pixels: Tensor) -> Tensor:
        return pixels.clone()

    def places(self, width: int, height: int) -> tuple[Tensor, Tensor]:
        x, y = (torch.arange(n, dtype=torch.float32, device=self.device) for n in (width, height))
        return x[None], y[:, None]

    def sample(self, grid: NDArray[np.float32], matrix: canon.Affine, size: tuple[int, int]) -> Tensor:
        (a, b, c), (d, e, f) = canon.invert(matrix).tolist()
        x, y = self.places(*size)
        return self.linear(self.put(grid), a * x + b * y + c, d * x + e * y + f)

    def linear(self, picture: Tensor, x: Tensor, y: Tensor, *, beyond: bool = True) -> Tensor:
        return _at(picture, x, y, "bilinear", "border" if beyond else "zeros")

    def cubic(self, picture: Tensor, x: Tensor, y: Tensor | None = None) -> Tensor:
        if y is None:
            x, y = x[..., 0], x[..., 1]
        return _at(picture, x, y, "bicubic", "border")  # the cubic that OpenCV has: a = -0.75

    def blur(self, picture: Tensor, sigma: float) -> Tensor:
        down, across = (self.put(_weights(n, sigma)) for n in picture.shape[:2])
        return torch.einsum("ij,jkc,lk->ilc", down, picture, across)

    def run(self, work: Callable[[], T]) -> T:
        try:
            with torch.inference_mode():
                return work()
        except torch.OutOfMemoryError:
            pass
        # Out here the traceback no longer holds the tensors, so that their memory is free when the ladder goes on.
        torch.cuda.empty_cache()
        raise OutOfMemoryError(f"a face does not fit {self.device}")


def _at(picture: Tensor, x: Tensor, y: Tensor, mode: str, border: str) -> Tensor:
    height, width = picture.shape[:2]
    # From pixels to -1 … 1, the middle of the first to that of the last.
    grid = torch.stack([x * (2 / max(1, width - 1)) - 1, y * (2 / max(1, height - 1)) - 1], dim=-1)
    planes = picture[None, None] if picture.dim() == 2 else picture.permute(2, 0, 1)[None]
    out = grid_sample(planes, grid[None], mode=mode, padding_mode=border, align_corners=True)[0]
    return out[0] if picture.dim() == 2 else out.permute(1, 2, 0)


def _weights(length: int, sigma: float) -> NDArray[np.float32]:
    """(length, length): what each place of a blurred row takes of each; OpenCV's own, its edges included."""
    out: NDArray[np.float32] = cv2.GaussianBlur(np.eye(length, dtype=np.float32), (1, 0), 1.0, sigmaY=sigma)
    return out
