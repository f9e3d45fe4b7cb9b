"""Pass 2: crop, generate, put back. Nothing is kept from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box
from heygemd.engines.base import Analysis, Computed, Patch, Region
from heygemd.engines.wav2lip import blend
from heygemd.engines.wav2lip.variants import MEL_COLUMNS

LEAST_WEIGHT = 0.004
"""Below this a frame would change by less than one step of 8 bits: it passes through."""


class Network(Protocol):
    """What the renderer needs of `runtime.Runtime`. The blend asks it for the rows from `blend.first_row` on alone."""

    def __call__(self, mel: NDArray[np.float32], crops: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def computed(self) -> Computed: ...


class _Base:
    """Boxes and windows, common to both modes."""

    def __init__(
        self, analysis: Analysis, motion: Analysis, width: int, height: int, network: Network, size: int
    ) -> None:
        self._found = analysis.arrays["found"]
        self._boxes = analysis.arrays["box"]
        self._mel = motion.arrays["mel"]
        self._first = motion.arrays["first_column"]
        self._weight = motion.arrays["weight"]
        self._frame = (width, height)
        self._network = network
        self._size = size

    def computed(self) -> Computed:
        return self._network.computed()

    def close(self) -> None:
        del self._network

    def _row(self, source_index: int) -> int:
        """A fixed box has one row for all frames."""
        return 0 if len(self._found) == 1 else source_index

    def _window(self, index: int) -> NDArray[np.float32]:
        first = int(self._first[index])
        return np.asarray(self._mel[:, first : first + MEL_COLUMNS], np.float32)

    def _generate(self, regions: Sequence[Region], crops: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        mel = np.stack([self._window(region.index) for region in regions])
        return self._network(mel, np.stack(crops))


class BlendRenderer(_Base):
    """The mouth alone changes: cropped to a fraction of a pixel, matched in colour, faded at its border."""

    def box(self, index: int, source_index: int) -> Box | None:
        row = self._row(source_index)
        if not self._found[row] or self._weight[index] < LEAST_WEIGHT:
            return None
        x0, y0, x1, y1 = (float(value) for value in self._boxes[row])
        # One pixel more on each side for the bilinear taps.
        whole = Box(int(np.floor(x0)) - 1, int(np.floor(y0)) - 1, int(np.ceil(x1)) + 1, int(np.ceil(y1)) + 1)
        return whole.clamped(*self._frame)

    def render(self, regions: Sequence[Region]) -> list[Patch]:
        """One patch for each region."""
        if not regions:
            return []
        matrices = []
        crops = []
        for region in regions:
            box = self._boxes[self._row(region.source_index)]
            matrices.append(blend.crop_matrix(box, (region.box.x0, region.box.y0), self._size))
            crop = blend.take(region.image, matrices[-1], self._size)[..., ::-1]
            crops.append(np.clip(crop / np.float32(255.0), 0.0, 1.0))
        generated = self._generate(regions, crops)
        patches = []
        for region, matrix, crop, made in zip(regions, matrices, crops, generated, strict=True):
            whole = np.concatenate([crop[: len(crop) - len(made)], made])
            matched = np.clip(blend.match_colour(whole, crop), 0.0, 1.0)
            rgb = np.ascontiguousarray(matched[..., ::-1]) * np.float32(255.0)
            image, mask = blend.put(rgb, matrix, region.box.width, region.box.height)
            patches.append(Patch(image, mask * np.float32(self._weight[region.index])))
        return patches


class ReferenceRenderer(_Base):
    """Whole-number boxes, 8-bit steps and a pasted rectangle, as in the published code."""

    def box(self, index: int, source_index: int) -> Box | None:
        row = self._row(source_index)
        if not self._found[row]:
            return None
        x0, y0, x1, y1 = (int(value) for value in self._boxes[row])
        return Box(x0, y0, x1, y1).clamped(*self._frame)

    def render(self, regions: Sequence[Region]) -> list[Patch]:
        """One patch for each region; its mask is 1 in the face box, 0 in what the region has more than that."""
        if not regions:
            return []
        crops = []
        for region in regions:
            face = _inside(region.image, self._place(region))
            pixels = np.rint(np.clip(face, 0.0, 255.0)).astype(np.uint8)[..., ::-1]
            small = cv2.resize(np.ascontiguousarray(pixels), (self._size, self._size), interpolation=cv2.INTER_LINEAR)
            crops.append(small.astype(np.float32) / np.float32(255.0))
        patches = []
        for region, made in zip(regions, self._generate(regions, crops), strict=True):
            place = self._place(region)
            pixels = (made * np.float32(255.0)).astype(np.uint8)
            pasted = cv2.resize(pixels, (place.width, place.height), interpolation=cv2.INTER_LINEAR)
            image = region.image.copy()
            mask = np.zeros(image.shape[:2], np.float32)
            _inside(image, place)[...] = pasted[..., ::-1]
            _inside(mask, place)[...] = 1.0
            patches.append(Patch(image, mask))
        return patches

    def _place(self, region: Region) -> Box:
        """The face box in pixels of the region."""
        box = self.box(region.index, region.source_index)
        if box is None:
            raise ValueError(f"frame {region.source_index} has no face")
        x, y = region.box.x0, region.box.y0
        return Box(box.x0 - x, box.y0 - y, box.x1 - x, box.y1 - y)


def _inside(image: NDArray[np.float32], place: Box) -> NDArray[np.float32]:
    return image[place.y0 : place.y1, place.x0 : place.x1]
