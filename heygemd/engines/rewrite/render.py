"""Pass 2 of `rewrite`: one frame's mouth, warped to what the motion says. A pure function of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box, VideoInfo
from heygemd.engines.base import Analysis, Computed, Patch, Region
from heygemd.engines.rewrite import light
from heygemd.engines.rewrite.canvas import HOST, Canvas, Pixels
from heygemd.engines.rewrite.inside import KEY_BOX
from heygemd.engines.rewrite.interior import Interior, pose
from heygemd.engines.rewrite.lids import breathe, close_lids
from heygemd.engines.rewrite.lively import Life, body_box
from heygemd.engines.rewrite.motion import Commands
from heygemd.engines.rewrite.shape import FIELD_BOX, UPPER_SHARE, Fields, MouthShape, fields, jaw_drop
from heygemd.engines.rewrite.window import Window
from heygemd.faces import canon
from heygemd.faces.track import FaceTrack

Picture = NDArray[np.float32]
_SEALED = 3.0
"""Below this opening, canonical pixels, no teeth may be left between the lips of a smile."""
_PARTED = 1.5
"""Lips of a speaking mouth that are measured to be less apart touch."""


class _Shot:
    """What is needed of one shot, unpacked."""

    def __init__(self, arrays: dict[str, NDArray[np.generic]], number: int) -> None:
        name = f"shot{number}_"
        numbers = [float(v) for v in np.asarray(arrays[name + "numbers"], np.float64)]
        resting, speaks, scale, split, opening = numbers[:5]
        self.shape = MouthShape.from_row(np.asarray(arrays[name + "shape"], np.float32))
        self.resting = resting > 0.5
        self.speaks = speaks > 0.5
        self.scale = scale
        self.picture = np.asarray(arrays[name + "picture"], np.float32)
        self.interior = Interior(np.asarray(arrays[name + "inside"], np.float32), split, opening, *numbers[5:8])
        self.coarse: Picture = cv2.resize(self.picture, light.SIZE, interpolation=cv2.INTER_AREA)
        self.even = cv2.GaussianBlur(self.coarse, (0, 0), 6.0, borderType=cv2.BORDER_REPLICATE)
        self.mask = _lip_mask(self.shape)
        self.ring = _ring(self.shape)


class RewriteRenderer:
    """Draws mouths on a canvas. `analysis`, `motion`: from the analyser and from `drive`."""

    def __init__(self, analysis: Analysis, motion: Analysis, video: VideoInfo, canvas: Canvas = HOST) -> None:
        arrays = analysis.arrays
        self._canvas = canvas
        self._frame = (video.width, video.height)
        self._track = FaceTrack.from_arrays(arrays)
        self._shift = np.asarray(arrays["mouth_shift"], np.float64)
        self._opening = np.asarray(arrays["mouth_opening"], np.float64)
        self._trust = np.asarray(arrays["mouth_trust"], np.float64)
        self._commands = Commands.from_arrays(motion.arrays)
        self._life = Life.from_arrays(arrays, motion.arrays)
        self._shots = {
            int(name[4:-6]): _Shot(arrays, int(name[4:-6]))
            for name in arrays
            if name.startswith("shot") and name.endswith("_shape")
        }

    def box(self, index: int, source_index: int) -> Box | None:
        if not self._track.found[source_index]:
            return None
        if self._life is not None:
            return body_box(self._track.canonical[source_index].astype(np.float64), self._frame)
        return self._mouth_box(source_index) if self._speaks(index, source_index) else None

    def _mouth_box(self, source_index: int) -> Box | None:
        x0, y0, x1, y1 = FIELD_BOX
        corners = canon.apply(
            self._matrix(source_index), np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64)
        )
        low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
        box = Box(int(low[0]), int(low[1]), int(high[0]), int(high[1])).clamped(*self._frame)
        return box if box.width >= 8 and box.height >= 8 else None

    def render(self, regions: Sequence[Region]) -> list[Patch]:
        """Raises OutOfMemoryError."""
        draw = self._speaking if self._life is None else partial(self._alive, self._life)
        return [self._canvas.run(partial(draw, region)) for region in regions]

    def computed(self) -> Computed:
        return Computed("float32")

    def close(self) -> None:
        self._shots.clear()

    def _speaking(self, region: Region) -> Patch:
        image, mask = self._mouth(region, self._canvas.put(region.image))
        return Patch(self._canvas.get(image), self._canvas.get(mask))

    def _alive(self, life: Life, region: Region) -> Patch:
        """The mouth, then the lids over the eyes, then all of it moved a little."""
        canvas = self._canvas
        picture = canvas.copy(canvas.put(region.image))
        if self._speaks(region.index, region.source_index):
            mouth, mask = self._mouth(region, picture)
            picture += mask[..., None] * (mouth - picture)
        matrix = self._track.canonical[region.source_index].astype(np.float64)
        matrix[:, 2] -= region.box.x0, region.box.y0
        closed = float(life.blink[region.index])
        if life.lids is not None and closed > 0.01:
            close_lids(canvas, picture, matrix, life.lids, closed)
        x0, y0 = region.box.x0, region.box.y0
        edges = (-x0, -y0, self._frame[0] - 1 - x0, self._frame[1] - 1 - y0)
        breath, sway = float(life.breath[region.index]), float(life.sway[region.index])
        picture = canvas.xp.clip(breathe(canvas, picture, matrix, edges, breath, sway), 0.0, 255.0)
        return Patch(canvas.get(picture), np.ones(region.image.shape[:2], np.float32))

    def _speaks(self, index: int, source_index: int) -> bool:
        return int(self._track.shot[source_index]) in self._shots and self._strength(index, source_index) > 0.004

    def _strength(self, index: int, source_index: int) -> float:
        return float(self._trust[source_index] * self._commands.gate[index])

    def _matrix(self, source_index: int) -> canon.Affine:
        """Canonical→source, moved so that the mouth is where the shot's shape has it."""
        matrix = self._track.canonical[source_index].astype(np.float64)
        return np.hstack([matrix[:, :2], matrix[:, :2] @ self._shift[source_index][:, None] + matrix[:, 2:]])

    def _mouth(self, region: Region, image: Pixels) -> tuple[Pixels, Pixels]:
        """Picture and mask. `image`: the region's, on the canvas."""
        shot = self._shots[int(self._track.shot[region.source_index])]
        matrix = self._matrix(region.source_index)
        matrix[:, 2] -= region.box.x0, region.box.y0
        opening = float(self._commands.opening[region.index])
        per_pixel = canon.scale_of(matrix)
        own = float(self._opening[region.source_index])
        shape = (
            shot.shape if shot.resting or not shot.speaks else replace(shot.shape, gap=own if own > _PARTED else 0.0)
        )
        warp = fields(shape, opening, float(self._commands.width[region.index]), 1.2 + 1.6 / per_pixel)
        strength = self._strength(region.index, region.source_index)
        outer = self._canvas.copy(image)
        gain: Picture | None = None
        if shot.resting:
            jaw = jaw_drop(shape, (1 - UPPER_SHARE) * (opening - own))
            self._move(outer, image, matrix, np.stack([warp.dx, -jaw], axis=-1))
            change = light.change(light.coarse(region.image, matrix), shot.coarse, shot.ring)
            self._put_lips(outer, shot, matrix, warp, change)
            gain = light.gain(change, shot.even)
        else:
            # Above the mouth one field holds, below the other; on the line itself both are hidden or zero.
            dy = np.where(warp.below_upper < warp.above_lower, warp.dy_upper, warp.dy_lower)
            self._move(outer, image, matrix, np.stack([warp.dx, dy], axis=-1))
            self._put_own_lips(outer, shape, image, matrix, warp)
            if shape.gap > 0 and opening < _SEALED:
                self._seal(outer, shape, matrix, warp, 1.0 - opening / _SEALED)
        if opening > 0.05:
            teeth = float(self._commands.teeth[region.index])
            self._put_inside(outer, shot, matrix, warp, opening, teeth, per_pixel, gain)
        xp = self._canvas.xp
        window = Window(self._canvas, matrix, FIELD_BOX, outer.shape)
        mask = xp.zeros_like(outer[..., 0])
        mask[window.slices] = _border(xp, *window.points()) * strength
        return xp.clip(outer, 0.0, 255.0), mask

    def _move(self, outer: Pixels, image: Pixels, matrix: canon.Affine, displacement: Picture) -> None:
        """Each pixel from where the displacement (canonical pixels, on the grid) points."""
        window = Window(self._canvas, matrix, FIELD_BOX, outer.shape)
        a = matrix[:, :2].astype(np.float32)
        moved = window.sample(np.ascontiguousarray(displacement @ a.T))
        x, y = window.pixels()
        outer[window.slices] = self._canvas.cubic(image, x + moved[..., 0], y + moved[..., 1])

    def _put_own_lips(
        self, outer: Pixels, shape: MouthShape, image: Pixels, matrix: canon.Affine, warp: Fields
    ) -> None:
        """Lips again at full sharpness: around the line the two fields must not be mixed by interpolation."""
        tall = shape.gap + 24.0
        rect = (
            shape.centre - 1.3 * shape.half,
            shape.c0 - tall,
            shape.centre + 1.3 * shape.half,
            shape.c0 + tall + 14.0,
        )
        window = Window(self._canvas, matrix, rect, outer.shape)
        dx, dy = _displacement(window, warp)
        x, y = window.pixels()
        (a, b, _), (c, d, _) = matrix.astype(np.float32).tolist()
        outer[window.slices] = self._canvas.cubic(image, x + a * dx + b * dy, y + c * dx + d * dy)

    def _put_lips(self, outer: Pixels, shot: _Shot, matrix: canon.Affine, warp: Fields, change: Picture) -> None:
        """The lips at rest over the frame, opened, in the frame's light.

        `change`: how much brighter the skin is than in their picture, small, over KEY_BOX: (rows, columns, 3)."""
        window = Window(self._canvas, matrix, KEY_BOX, outer.shape)
        dx, dy = _displacement(window, warp)
        x, y = window.points()
        left, top = x + dx - KEY_BOX[0], y + dy - KEY_BOX[1]
        fine = light.at(self._canvas, np.dstack([change, shot.mask]), left, top, beyond=False)
        # Put there for each frame: a film has hundreds of shots, and they would all stay.
        lips = self._canvas.linear(self._canvas.put(shot.picture), left * shot.scale, top * shot.scale)
        here = outer[window.slices]
        here += fine[..., 3:] * (lips + fine[..., :3] - here)

    def _put_inside(
        self,
        outer: Pixels,
        shot: _Shot,
        matrix: canon.Affine,
        warp: Fields,
        opening: float,
        teeth: float,
        per_pixel: float,
        gain: Picture | None,
    ) -> None:
        canvas, xp = self._canvas, self._canvas.xp
        shape = shot.shape
        rect = (
            shape.centre - 1.2 * shape.half,
            shape.c0 - opening - 8.0,
            shape.centre + 1.2 * shape.half,
            shape.c0 + opening + 8.0,
        )
        window = Window(canvas, matrix, rect, outer.shape)
        edges = window.sample(np.stack([warp.below_upper, warp.above_lower], axis=-1))
        below, above = edges[..., 0], edges[..., 1]
        # Zero on the line itself, so that closed lips and skin beyond the corners show none of it.
        alpha = xp.clip(xp.minimum(below, above) * per_pixel, 0.0, 1.0)
        x, y = window.points()
        inner = pose(canvas, shot.interior, shape, x, y, below, above, opening, teeth)
        if gain is not None:
            inner *= light.at(canvas, gain, x - KEY_BOX[0], y - KEY_BOX[1], beyond=True)
        here = outer[window.slices]
        here += (alpha * min(1.0, opening / 1.5))[..., None] * (inner - here)

    def _seal(self, outer: Pixels, shape: MouthShape, matrix: canon.Affine, warp: Fields, strength: float) -> None:
        """Teeth that the warp left between closing lips, where it has the lips' edges a pixel or so off, become lip."""
        rect = (shape.centre - 1.1 * shape.half, shape.c0 - 14.0, shape.centre + 1.1 * shape.half, shape.c0 + 22.0)
        xp = self._canvas.xp
        window = Window(self._canvas, matrix, rect, outer.shape)
        edges = window.sample(np.stack([warp.below_upper, warp.above_lower], axis=-1))
        away = xp.abs(edges[..., 0] - edges[..., 1]) / 2
        x, _ = window.points()
        here = outer[window.slices]
        lip = (xp.abs(edges[..., 1] + 0.5 * shape.lower) < 2.0) & (xp.abs(x - shape.centre) < 0.5 * shape.half)
        if not lip.any():
            return
        # The lip's colour about there: with light from one side it is not the same all along.
        soft = max(2.0, 0.3 * shape.half * canon.scale_of(matrix))
        weight = xp.asarray(lip, dtype=xp.float32) * 0.98 + 1e-4
        spread = self._canvas.blur(xp.dstack([here * weight[..., None], weight]), soft)
        colour = spread[..., :3] / spread[..., 3:]
        most = colour * (0.62 + 0.38 * xp.clip(away / 3.0, 0.0, 1.0))[..., None]
        across = xp.clip((1.0 - xp.abs(x - shape.centre) / shape.half) / 0.15, 0.0, 1.0)
        share = xp.exp(-0.5 * (away / 2.6) ** 2) * across * strength
        here += share[..., None] * (xp.minimum(here, most) - here)


def _displacement(window: Window, warp: Fields) -> tuple[Pixels, Pixels]:
    """dx, dy at each pixel of a window, in canonical pixels."""
    four = window.sample(np.stack([warp.dy_upper, warp.dy_lower, warp.below_upper, warp.above_lower], axis=-1))
    dy = window.canvas.xp.where(four[..., 2] < four[..., 3], four[..., 0], four[..., 1])
    return window.sample(warp.dx), dy


def _distance(shape: MouthShape) -> Picture:
    """0 in the middle of the mouth, 1 on the rim of what the resting lips replace."""
    x, y = light.points()
    across = np.abs(x - shape.centre) / (1.9 * shape.half)
    level = y - shape.c0
    tall = np.where(level < 0, -level / (shape.upper + 13.0), level / (shape.gap + shape.lower + 24.0))
    return np.asarray((across**2.6 + tall**2.6) ** (1 / 2.6), np.float32)


def _lip_mask(shape: MouthShape) -> Picture:
    t = np.clip((1.0 - _distance(shape)) / 0.32, 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _ring(shape: MouthShape) -> Picture:
    d = _distance(shape)
    return np.asarray(np.exp(-0.5 * ((d - 0.88) / 0.14) ** 2), np.float32)


def _border(xp: Any, x: Pixels, y: Pixels) -> Pixels:
    """1 inside FIELD_BOX, feathered to 0 at its edge, where nothing is displaced."""
    x0, y0, x1, y1 = FIELD_BOX
    edge = xp.minimum(xp.minimum(x - x0, x1 - x), xp.minimum(y - y0, y1 - y))
    return xp.clip(edge / 8.0, 0.0, 1.0)
