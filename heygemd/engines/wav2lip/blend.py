"""From the network's crop back to the picture: only the mouth changes, and its border cannot be seen."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

CENTRE = (0.5, 0.725)
RADII = (0.43, 0.255)
FEATHER = 0.34
"""The region in widths and heights of the crop: a rounded rectangle over mouth, lower cheeks and chin, and the share of
its radius that the edge takes to fade. It ends inside the crop on all sides."""
ROUNDNESS = 2.6
MATCH_SIGMA = 0.12
"""How far, in crop widths, a difference of colour at the border is carried into the region."""
MATCH_SIDE = 48


@cache
def region_mask(size: int) -> Image:
    """(size, size) 0..1: how much of the generated crop is taken at each place."""
    places = (np.arange(size) + 0.5) / size
    x = np.abs(places - CENTRE[0]) / RADII[0]
    y = np.abs(places - CENTRE[1]) / RADII[1]
    radius = (x[None, :] ** ROUNDNESS + y[:, None] ** ROUNDNESS) ** (1 / ROUNDNESS)
    ramp = np.clip((1.0 - radius) / FEATHER, 0.0, 1.0)
    mask = (ramp * ramp * (3.0 - 2.0 * ramp)).astype(np.float32)
    mask.setflags(write=False)
    return mask


@cache
def first_row(size: int) -> int:
    """The first row of the generated crop that shows in the picture, the taps of cubic interpolation included."""
    return int(np.flatnonzero(region_mask(size).any(axis=1))[0]) - 2


def match_colour(generated: Image, original: Image) -> Image:
    """`generated` (S, S, 3), its slow differences from `original` at the region's border taken away inside of it too.

    The difference is known where the region fades; it is spread inwards by a wide normalised blur. Skin, light and the
    network's own tint then meet at the border whatever they are, while the lips keep their own colours.
    """
    small = (MATCH_SIDE, MATCH_SIDE)
    difference = cv2.resize(original - generated, small, interpolation=cv2.INTER_AREA)
    mask = region_mask(MATCH_SIDE)
    weight = 4.0 * mask * (1.0 - mask) + np.float32(1e-4)
    sigma = MATCH_SIGMA * MATCH_SIDE
    spread = cv2.GaussianBlur(difference * weight[..., None], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    total = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    size = (generated.shape[1], generated.shape[0])
    correction = cv2.resize(spread / total[..., None], size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(generated + correction, np.float32)


def crop_matrix(box: NDArray[np.float32], origin: tuple[int, int], size: int) -> NDArray[np.float64]:
    """(2, 3): crop pixels → pixels of the region that begins at `origin`. Sub-pixel, so a moving box does not shake."""
    x0, y0, x1, y1 = (float(value) for value in box)
    step_x, step_y = (x1 - x0) / size, (y1 - y0) / size
    return np.array(
        [
            [step_x, 0.0, x0 - origin[0] + 0.5 * step_x - 0.5],
            [0.0, step_y, y0 - origin[1] + 0.5 * step_y - 0.5],
        ]
    )


def take(image: Image, matrix: NDArray[np.float64], size: int) -> Image:
    """(size, size, 3), bilinear as in training; what lies outside of the picture repeats its edge."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def put(crop: Image, matrix: NDArray[np.float64], width: int, height: int) -> tuple[Image, Image]:
    """The crop and the region's mask in the picture's own pixels: (height, width, 3) and (height, width).

    Where the mask is 0 the picture is not drawn.
    """
    mask = region_mask(crop.shape[0])
    shown = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    sides = []
    for axis, length in ((0, width), (1, height)):
        low, high = (
            matrix[axis, axis] * place + matrix[axis, 2] for place in (shown[axis][0] - 1, shown[axis][-1] + 1)
        )
        sides.append(slice(max(0, int(np.floor(low))), max(0, min(length, int(np.ceil(high)) + 1))))
    across, down = sides
    inner = matrix - np.array([[0.0, 0.0, across.start], [0.0, 0.0, down.start]])
    size = (across.stop - across.start, down.stop - down.start)
    image, weights = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    if min(size) > 0:
        back = cv2.invertAffineTransform(inner)
        for source, target, flags, border in (
            (crop, image, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE),
            (mask, weights, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT),
        ):
            target[down, across] = cv2.warpAffine(
                source, back, size, flags=flags | cv2.WARP_INVERSE_MAP, borderMode=border, borderValue=0
            )
    return image, weights
