"""Pass 2 of `rewrite`: one frame's mouth, warped to what the motion says. A pure function of its arguments."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box, VideoInfo
from heygemd.engines.base import Analysis, Patch, Region
from heygemd.engines.rewrite.interior import Interior, pose
from heygemd.engines.rewrite.material import KEY_BOX
from heygemd.engines.rewrite.motion import Commands
from heygemd.engines.rewrite.shape import FIELD_BOX, STEP, Fields, MouthShape, fields, jaw_drop
from heygemd.faces import canon
from heygemd.faces.track import FaceTrack

Picture = NDArray[np.float32]
_TO_GRID = np.array([[1 / STEP, 0.0, -FIELD_BOX[0] / STEP], [0.0, 1 / STEP, -FIELD_BOX[1] / STEP]])
_COARSE = (44, 40)
"""Size of the picture in which colours of reference and frame are compared."""


class _Shot:
    """What is needed of one shot, unpacked."""

    def __init__(self, arrays: dict[str, NDArray[np.generic]], number: int) -> None:
        name = f"shot{number}_"
        reference, scale, split, opening = (float(v) for v in np.asarray(arrays[name + "numbers"], np.float64))
        self.shape = MouthShape.from_row(np.asarray(arrays[name + "shape"], np.float32))
        self.reference = reference > 0.5
        self.scale = scale
        self.picture = np.asarray(arrays[name + "picture"], np.float32)
        self.interior = Interior(np.asarray(arrays[name + "inside"], np.float32), split, opening)
        self.coarse = cv2.resize(self.picture, _COARSE, interpolation=cv2.INTER_AREA)
        self.mask = _lip_mask(self.shape)
        self.ring = _ring(self.shape)


class RewriteRenderer:
    """Draws mouths. `analysis`, `motion`: from the analyser and from `drive`."""

    def __init__(self, analysis: Analysis, motion: Analysis, video: VideoInfo) -> None:
        arrays = analysis.arrays
        self._frame = (video.width, video.height)
        self._track = FaceTrack.from_arrays(arrays)
        self._shift = np.asarray(arrays["mouth_shift"], np.float64)
        self._opening = np.asarray(arrays["mouth_opening"], np.float64)
        self._trust = np.asarray(arrays["mouth_trust"], np.float64)
        self._commands = Commands.from_arrays(motion.arrays)
        self._shots = {
            int(name[4:-6]): _Shot(arrays, int(name[4:-6])) for name in arrays if name.startswith("shot") and name.endswith("_shape")
        }

    def box(self, index: int, source_index: int) -> Box | None:
        if not self._track.found[source_index] or self._strength(index, source_index) <= 0.004:
            return None
        if int(self._track.shot[source_index]) not in self._shots:
            return None
        x0, y0, x1, y1 = FIELD_BOX
        corners = canon.apply(self._matrix(source_index), np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
        low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
        box = Box(int(low[0]), int(low[1]), int(high[0]), int(high[1])).clamped(*self._frame)
        return box if box.width >= 8 and box.height >= 8 else None

    def render(self, regions: Sequence[Region]) -> list[Patch]:
        return [self._one(region) for region in regions]

    def close(self) -> None:
        self._shots.clear()

    def _strength(self, index: int, source_index: int) -> float:
        return float(self._trust[source_index] * self._commands.gate[index])

    def _matrix(self, source_index: int) -> canon.Affine:
        """Canonical→source, moved so that the mouth is where the shot's shape has it."""
        matrix = self._track.canonical[source_index].astype(np.float64)
        return np.hstack([matrix[:, :2], matrix[:, :2] @ self._shift[source_index][:, None] + matrix[:, 2:]])

    def _one(self, region: Region) -> Patch:
        shot = self._shots[int(self._track.shot[region.source_index])]
        strength = self._strength(region.index, region.source_index)
        matrix = self._matrix(region.source_index)
        matrix[:, 2] -= region.box.x0, region.box.y0
        opening = float(self._commands.opening[region.index])
        width = float(self._commands.width[region.index])
        warp = fields(shot.shape, opening, width)
        image = region.image
        height, wide = image.shape[:2]
        size = (wide, height)
        grid_to_region = canon.compose(matrix, canon.invert(_TO_GRID))
        four = np.stack([warp.dy_upper, warp.dy_lower, warp.below_upper, warp.above_lower], axis=-1)
        sampled = cv2.warpAffine(four, grid_to_region, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        dx = cv2.warpAffine(warp.dx, grid_to_region, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        below, above = sampled[..., 2], sampled[..., 3]
        dy = np.where(below < above, sampled[..., 0], sampled[..., 1])
        back = canon.invert(matrix)
        xs, ys = np.arange(wide, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
        x = np.float32(back[0, 0]) * xs + np.float32(back[0, 1]) * ys + np.float32(back[0, 2])
        y = np.float32(back[1, 0]) * xs + np.float32(back[1, 1]) * ys + np.float32(back[1, 2])
        if shot.reference:
            outer = self._from_reference(shot, region, matrix, (x, y, dx, dy), opening)
        else:
            outer = _moved(image, matrix, dx, dy)
        per_pixel = canon.scale_of(matrix)
        # Zero on the line itself, so that closed lips and skin beyond the corners show none of it.
        alpha = np.clip(np.minimum(below, above) * np.float32(per_pixel), 0.0, 1.0)
        if opening > 0.05:
            inner = pose(shot.interior, shot.shape, x, y, below, above, opening)
            outer = outer + (alpha * min(1.0, opening / 1.5))[..., None] * (inner - outer)
        mask = _border(x, y) * np.float32(strength)
        return Patch(np.clip(outer, 0.0, 255.0).astype(np.float32), mask)

    def _from_reference(
        self, shot: _Shot, region: Region, matrix: canon.Affine, at: tuple[Picture, Picture, Picture, Picture], opening: float
    ) -> Picture:
        """The frame with its jaw moved along, and over it the resting lips of the reference, in the frame's light."""
        x, y, dx, dy = at
        shape = shot.shape
        own = float(self._opening[region.source_index])
        drop = 0.78 * (opening - max(own, 0.0))
        grid_to_region = canon.compose(matrix, canon.invert(_TO_GRID))
        size = (region.image.shape[1], region.image.shape[0])
        jaw = cv2.warpAffine(jaw_drop(shape, drop), grid_to_region, size, flags=cv2.INTER_LINEAR)
        frame = _moved(region.image, matrix, dx, -jaw)
        left = (x + dx - KEY_BOX[0]) * np.float32(shot.scale)
        top = (y + dy - KEY_BOX[1]) * np.float32(shot.scale)
        lips = cv2.remap(shot.picture, left, top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # Colours are compared where both show skin: on the ring around the lips, in the reference's own pose.
        coarse_step = (KEY_BOX[2] - KEY_BOX[0]) / _COARSE[0], (KEY_BOX[3] - KEY_BOX[1]) / _COARSE[1]
        coarse_to_region = canon.compose(
            matrix,
            np.array(
                [
                    [coarse_step[0], 0.0, KEY_BOX[0] + coarse_step[0] / 2],
                    [0.0, coarse_step[1], KEY_BOX[1] + coarse_step[1] / 2],
                ]
            ),
        )
        soft = cv2.blur(region.image, (max(1, round(coarse_step[0] * canon.scale_of(matrix))),) * 2)
        seen = cv2.warpAffine(
            soft, coarse_to_region, _COARSE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        change = _light(seen - shot.coarse, shot.ring)
        to_coarse_x = (x + dx - KEY_BOX[0]) / np.float32(coarse_step[0]) - 0.5
        to_coarse_y = (y + dy - KEY_BOX[1]) / np.float32(coarse_step[1]) - 0.5
        both = np.dstack([change, shot.mask])
        fine = cv2.remap(both, to_coarse_x, to_coarse_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return np.asarray(frame + fine[..., 3:] * (lips + fine[..., :3] - frame), np.float32)


def _moved(image: Picture, matrix: canon.Affine, dx: Picture, dy: Picture) -> Picture:
    height, width = image.shape[:2]
    a = matrix.astype(np.float32)
    xs, ys = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    out: Picture = cv2.remap(
        image,
        xs + a[0, 0] * dx + a[0, 1] * dy,
        ys + a[1, 0] * dx + a[1, 1] * dy,
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return out


def _coarse_points() -> tuple[Picture, Picture]:
    x = KEY_BOX[0] + (np.arange(_COARSE[0], dtype=np.float32)[None] + 0.5) * (KEY_BOX[2] - KEY_BOX[0]) / _COARSE[0]
    y = KEY_BOX[1] + (np.arange(_COARSE[1], dtype=np.float32)[:, None] + 0.5) * (KEY_BOX[3] - KEY_BOX[1]) / _COARSE[1]
    return x, y


def _distance(shape: MouthShape) -> Picture:
    """0 in the middle of the mouth, 1 on the rim of what the reference replaces."""
    x, y = _coarse_points()
    across = np.abs(x - shape.centre) / (1.42 * shape.half)
    level = y - shape.c0
    tall = np.where(level < 0, -level / (shape.upper + 13.0), level / (shape.gap + shape.lower + 24.0))
    return np.asarray((across**2.6 + tall**2.6) ** (1 / 2.6), np.float32)


def _lip_mask(shape: MouthShape) -> Picture:
    t = np.clip((1.0 - _distance(shape)) / 0.32, 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _ring(shape: MouthShape) -> Picture:
    d = _distance(shape)
    return np.asarray(np.exp(-0.5 * ((d - 0.88) / 0.14) ** 2), np.float32)


def _light(difference: Picture, ring: Picture) -> Picture:
    """A smooth field that has the ring's colour differences, without what is not skin on either side."""
    far = np.abs(difference).mean(axis=2)
    weight = ring * np.exp(-((far / 22.0) ** 2))
    stacked = np.dstack([difference * weight[..., None], weight])
    wide = cv2.GaussianBlur(stacked, (0, 0), 5.0, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(wide[..., :3] / (wide[..., 3:] + 0.02), np.float32)


def _border(x: Picture, y: Picture) -> Picture:
    """1 inside FIELD_BOX, feathered to 0 at its edge, where nothing is displaced."""
    x0, y0, x1, y1 = FIELD_BOX
    edge = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y))
    return np.asarray(np.clip(edge / 8.0, 0.0, 1.0), np.float32)


__all__ = ["Fields", "RewriteRenderer"]
