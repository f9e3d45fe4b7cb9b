"""Landmarkers that tests put behind the Protocol, and the network's file with random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.faces import canon
from heygemd.faces.landmarks import EYES, FACE_CENTRE, FACE_PX, FACE_SIDE, Image, Points


def seeded_weights(path: Path, seed: int = 0) -> Path:
    """A file of the true names, shapes and size, whose network sees nothing."""
    import torch
    from face_alignment.models import FAN

    torch.manual_seed(seed)
    torch.save(FAN(4).state_dict(), path)
    return path


def face_with(mouth: tuple[float, float], opening: float, width: float = 54.0) -> Points:
    """(68, 2) canonical points of a frontal face; `mouth`: the middle of the line between its lips."""
    points = np.tile(np.array([[128.0, 120.0]]), (68, 1))
    angle = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    for part, eye in zip(EYES, canon.EYES, strict=True):
        points[part] = eye + np.stack([-9 * np.cos(angle), -3 * np.sin(angle)], axis=1)
    points[27:36] = np.stack([np.full(9, 128.0), np.linspace(86, mouth[1] - 24, 9)], axis=1)
    u = np.linspace(-1, 1, 7)
    x, arch = mouth[0] + width / 2 * u, np.sqrt(1 - u**2)
    points[48:55] = np.stack([x, mouth[1] - arch * (8 + 0.22 * opening)], axis=1)
    points[55:60] = np.stack([x[5:0:-1], mouth[1] + arch[5:0:-1] * (10 + 0.78 * opening)], axis=1)
    inner, gap = mouth[0] + 0.4 * width * np.linspace(-1, 1, 5), np.array([0, 0.9, 1, 0.9, 0]) * opening
    points[60:65] = np.stack([inner, mouth[1] - 0.22 * gap], axis=1)
    points[65:68] = np.stack([inner[3:0:-1], mouth[1] + 0.78 * gap[3:0:-1]], axis=1)
    return points


def to_picture(points: Points) -> Points:
    """The way back of `landmarks.to_canonical`."""
    corner = np.array(FACE_CENTRE) - FACE_SIDE / 2
    return np.asarray((points + 0.5 - corner) / (FACE_SIDE / FACE_PX) - 0.5, np.float64)


class ToldLandmarker:
    """Says what `tell(picture)` says (canonical points), and remembers how often it was asked and closed."""

    name = "told"

    def __init__(self, tell: Callable[[Image], Points]) -> None:
        self._tell = tell
        self.asked = 0
        self.closed = 0

    def locate(self, faces: Sequence[Image]) -> NDArray[Any]:
        self.asked += len(faces)
        return np.stack([to_picture(self._tell(face)) for face in faces])

    def close(self) -> None:
        self.closed += 1
