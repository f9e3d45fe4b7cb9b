"""The line between lips, on drawn mouths whose line is known."""

import cv2
import numpy as np
import pytest

from heygemd.engines.rewrite.shape import MouthShape, along
from heygemd.faces.lipline import LipLine, line_in
from heygemd.faces.lips import CROP_BOX, HEIGHT, WIDTH

SKIN, LIP, LINE, HAIR = (150, 165, 200), (120, 110, 190), (50, 45, 90), (50, 60, 75)
LEFT, RIGHT = 36.0, 92.0


def arch(x: np.ndarray) -> np.ndarray:
    """Crop rows: corners at 48, the middle 4 px higher."""
    u = (x - (LEFT + RIGHT) / 2) / ((RIGHT - LEFT) / 2)
    return 44.0 + 4.0 * u * u


def drawn(moustache: bool = False) -> np.ndarray:
    """A closed mouth of lips 9 and 11 px thick, four times as large, then shrunk; BGR."""
    big = np.full((HEIGHT * 4, WIDTH * 4, 3), SKIN, np.uint8)
    x = np.linspace(LEFT, RIGHT, 60)
    u = (x - 64.0) / 28.0
    top, bottom = arch(x) - 9 * (1 - u * u), arch(x) + 11 * (1 - u * u)
    cv2.fillPoly(big, [np.rint(4 * np.stack([np.r_[x, x[::-1]], np.r_[top, bottom[::-1]]], axis=1)).astype(int)], LIP)
    points = np.rint(4 * np.stack([x, arch(x)], axis=1)).astype(int)
    cv2.polylines(big, [points], False, LINE, 7, cv2.LINE_AA)
    if moustache:
        for sign in (-1, 1):  # hair that hangs down beside the mouth, and the dark under the lower lip
            hair = np.array([[64 + sign * 8, 32], [64 + sign * 30, 34], [64 + sign * 36, 60]])
            cv2.polylines(big, [4 * hair], False, HAIR, 24, cv2.LINE_AA)
        cv2.ellipse(big, (256, 240), (56, 10), 0, 0, 360, HAIR, -1, cv2.LINE_AA)
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 3))
    return np.clip(cv2.resize(big, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) + noise, 0, 255).astype(np.uint8)


def test_a_corner_that_drops_suddenly_is_followed() -> None:
    image = drawn()
    lower = np.roll(image, 5, axis=0)
    image[:, 84:] = lower[:, 84:]
    near = (CROP_BOX[0] + LEFT - 8.0, CROP_BOX[0] + RIGHT - 12.0)
    found = line_in(image[None], straight, near, closed=True)
    assert found.corners[1, 0] - CROP_BOX[0] > 86
    assert abs(found.corners[1, 1] - CROP_BOX[1] - 52) < 3


def straight(x: np.ndarray) -> np.ndarray:
    return np.full(len(x), CROP_BOX[1] + 47.0, np.float32)


@pytest.mark.parametrize("moustache", [False, True])
def test_an_arch_is_followed_from_corner_to_corner(moustache: bool) -> None:
    near = (CROP_BOX[0] + LEFT - 5.0, CROP_BOX[0] + RIGHT - 3.0)
    found = line_in(drawn(moustache)[None], straight, near, closed=True)
    inside = np.abs(found.x - CROP_BOX[0] - 64) < 24
    off = found.y - CROP_BOX[1] - arch(found.x - CROP_BOX[0])
    assert np.abs(off[inside]).max() < 1.5
    np.testing.assert_allclose(found.corners[:, 0] - CROP_BOX[0], [LEFT, RIGHT], atol=4.0)
    assert found.parting < 2.0


def test_the_shape_takes_the_line_and_closes() -> None:
    shape = MouthShape(100.0, 156.0, 158.0, 0.0, 0.0, 0.0, 3.5, 8.0, 11.0)
    x = np.arange(101.0, 156.0)
    u = (x - 128) / 28
    found = LipLine(x, 156.0 + 4 * u * u, np.full(len(x), 0.3), np.array([[100.0, 160.0], [156.0, 160.0]]), 0.5)
    made = along(shape, found)
    assert made.gap == 0
    np.testing.assert_allclose(made.line(x.astype(np.float32)), found.y, atol=0.5)
    open_ = along(shape, LipLine(found.x, found.y, found.strength, found.corners, 3.0))
    assert open_.gap == 3.0
    assert open_.c0 < made.c0, "lips meet above the middle of a gap"
