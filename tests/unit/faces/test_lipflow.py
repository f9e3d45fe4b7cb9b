"""The motion of a mouth that is drawn to open and to widen."""

import cv2
import numpy as np

from heygemd.faces import canon
from heygemd.faces.lipflow import mouth_motion
from heygemd.faces.lips import CROP_BOX, HEIGHT, WIDTH, measure


def drawn(opening: float, half: float) -> np.ndarray:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (120, 150, 200)
    centre = (WIDTH // 2, 42)
    lips, inside = (90, 85, 185), (20, 15, 35)
    cv2.ellipse(
        image, (centre[0], centre[1] + round(opening / 2)), (round(half), round(9 + opening / 2)), 0, 0, 360, lips, -1
    )
    if opening >= 2:
        size = (round(half * 0.9), round(opening / 2))
        cv2.ellipse(image, (centre[0], centre[1] + round(opening / 2)), size, 0, 0, 360, inside, -1)
    rng = np.random.default_rng(3)
    grain = cv2.GaussianBlur(rng.normal(0, 30, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 2)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1).astype(np.float32) + grain[..., None], 0, 255).astype(np.uint8)


def test_opening_and_width_are_followed() -> None:
    t = np.arange(50)
    opening = 7 + 7 * np.sin(t / 4)
    half = 28 + 4 * np.sin(t / 7)
    crops = np.stack([drawn(o, h) for o, h in zip(opening, half, strict=True)])
    assert crops.shape[1:] == (CROP_BOX[3] - CROP_BOX[1], CROP_BOX[2] - CROP_BOX[0], 3)
    curves = measure(crops, canon.EYES)
    made = mouth_motion(np.arange(50), lambda i: crops[i], curves)
    assert np.corrcoef(made.opening, opening)[0, 1] > 0.9
    assert np.corrcoef(made.width, half)[0, 1] > 0.7
    assert made.opening.min() >= 0 and np.isfinite(made.width).all()


def test_one_frame_and_a_mouth_that_does_not_move() -> None:
    for count in (1, 20):
        crops = np.stack([drawn(0, 28)] * count)
        made = mouth_motion(np.arange(count), crops.__getitem__, measure(crops, canon.EYES))
        assert made.opening.shape == made.width.shape == (count,)
        assert np.isfinite(made.opening).all() and np.ptp(made.opening) < 0.1 and np.abs(made.width).max() < 1e-3
