"""Mouths to be drawn by `rewrite` on any canvas, and how far two canvases may differ."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from heygemd.core.clip import VideoInfo
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame, Patch, Region, Speech
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.canvas import HOST, Canvas
from heygemd.engines.rewrite.motion import commands, full_opening
from heygemd.engines.rewrite.render import RewriteRenderer
from heygemd.faces.detect import CascadeDetector

FRAMES = 24
LEAST_DB = 48.0
"""OpenCV samples at steps of 1/32 of a pixel, torch anywhere: 51 to 72 dB on real clips and on the portrait."""
MOST_MEAN = 0.2
"""Grey levels."""


@dataclass(frozen=True)
class Scene:
    """What a renderer is made of, and the frames that it draws on (BGR)."""

    analysis: Analysis
    motion: Analysis
    video: VideoInfo
    frames: list[NDArray[np.uint8]]

    def renderer(self, canvas: Canvas = HOST) -> RewriteRenderer:
        return RewriteRenderer(self.analysis, self.motion, self.video, canvas)

    def regions(self) -> list[Region]:
        renderer, found = self.renderer(), []
        for index in range(len(self.motion.arrays["opening"])):
            source = min(index, len(self.frames) - 1)
            box = renderer.box(index, source)
            assert box is not None
            image = self.frames[source][box.y0 : box.y1, box.x0 : box.x1, ::-1].astype(np.float32)
            found.append(Region(index, source, box, image))
        return found


def _sweep(analysis: Analysis) -> dict[str, NDArray[np.float32]]:
    """Shut, open, wide and round, with and without teeth, half let go of at the end."""
    t = np.arange(FRAMES, dtype=np.float32)
    made = commands(
        opening=np.clip(0.45 - 0.55 * np.cos(t / 3), 0, 1).astype(np.float32),
        width=(0.9 * np.sin(t / 5)).astype(np.float32),
        closure=t * 0,
        teeth=np.clip(np.sin(t / 4), 0, 1).astype(np.float32),
        activity=np.where(t < 20, 1, 0.6).astype(np.float32),
        full=full_opening(analysis),
        follow=True,
    )
    return made.to_arrays()


def _analysed(frames: list[NDArray[np.uint8]], video: VideoInfo, options: Options, work: Path) -> Analysis:
    analyser = RewriteEngine().analyser(video, options, None, work, CascadeDetector())
    for index, frame in enumerate(frames):
        analyser.update(AnalysisFrame(index, frame, 1.0))
    return analyser.finish()


def smile(work: Path, *, alive: bool) -> Scene:
    """A public-domain portrait whose own lips are moved; `alive`: she blinks and breathes too."""
    frame = np.ascontiguousarray(data.astronaut()[:400, :, ::-1])
    video = VideoInfo(512, 400, Fraction(25), 1, 0.04, "yuv420p", still=True)
    options = Options(liveliness="on" if alive else "off")
    analysis = _analysed([frame], video, options, work)
    silence = np.random.default_rng(1).normal(0, 1e-4, 16000).astype(np.float32)
    life = RewriteEngine().drive(Speech(silence, FRAMES, Fraction(25)), analysis, options).arrays
    motion = {**life, **_sweep(analysis)}
    if alive:
        motion["life_blink"] = np.clip(np.sin(np.arange(FRAMES, dtype=np.float32) / 2), 0, 1)
    return Scene(analysis, Analysis(motion), video, [frame])


def speaker() -> Scene:
    """A speaking mouth that nobody has, in a tilted head: its lips are taken from a reference, in another light."""
    rng = np.random.default_rng(4)
    video = VideoInfo(320, 260, Fraction(25), 1, 0.04, "yuv420p")
    analysis, _ = RewriteEngine().stand_in(video, (200, 190), FRAMES)

    def texture(height: int, width: int, level: float) -> NDArray[np.uint8]:
        soft = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 3.0)
        return np.clip(level + 60 * soft / np.abs(soft).max(), 0, 255).astype(np.uint8)

    arrays = dict(analysis.arrays)
    for name, level in (("shot0_picture", 110.0), ("shot0_inside", 70.0)):
        arrays[name] = texture(*arrays[name].shape[:2], level)
    turn = np.hstack([cv2.getRotationMatrix2D((160, 130), 8.0, 1.0)[:, :2], np.zeros((2, 1))])
    for name, values in arrays.items():
        if values.shape[1:] == (2, 3):
            middle = np.array([160, 130]) @ (np.eye(2) - turn[:, :2].T)
            turned = np.einsum("ij,njk->nik", turn[:, :2], values)
            turned[:, :, 2] += middle
            arrays[name] = turned.astype(np.float32)
    found = Analysis(arrays)
    return Scene(found, Analysis(_sweep(found)), video, [texture(260, 320, 150.0)])


def clip(path: Path, work: Path) -> Scene:
    capture = cv2.VideoCapture(str(path))
    frames = [frame for ok, frame in (capture.read() for _ in range(50)) if ok]
    height, width = frames[0].shape[:2]
    video = VideoInfo(width, height, Fraction(25), len(frames), len(frames) / 25, "yuv420p")
    analysis = _analysed(frames, video, Options(), work)
    return Scene(analysis, Analysis(_sweep(analysis)), video, frames)


def assert_alike(ours: Patch, exact: Patch) -> None:
    """Where the mask shows the picture. A pixel on the line between the lips may fall to the other lip."""
    assert ours.image.shape == exact.image.shape and ours.image.dtype == np.float32
    assert ours.mask.shape == exact.mask.shape and ours.mask.dtype == np.float32
    assert ours.image.flags.c_contiguous and ours.mask.flags.c_contiguous
    assert ours.image.min() >= 0 and ours.image.max() <= 255
    np.testing.assert_allclose(ours.mask, exact.mask, atol=1e-3)
    difference = (ours.image - exact.image)[exact.mask > 0]
    assert 10 * np.log10(255**2 / np.mean(difference**2)) >= LEAST_DB
    assert np.abs(difference).mean() <= MOST_MEAN
