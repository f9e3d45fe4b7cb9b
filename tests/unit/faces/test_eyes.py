"""Lids measured on a public-domain portrait, and the faces that they are not measured on."""

import cv2
import numpy as np
import pytest
from skimage import data

from heygemd.engines.rewrite.canvas import HOST
from heygemd.engines.rewrite.lids import close_lids
from heygemd.faces import canon
from heygemd.faces.eyes import Lids, eyes_of

PUPILS = np.array([[202.8, 100.9], [247.7, 103.1]])
MATRIX = canon.from_eyes(PUPILS)
# From a landmark network that heygemd does not use, source pixels: y of the lower lid under each pupil, and of the
# upper lid's edge, from which the lashes rise about two pixels more.
LOWER, UPPER = (104.3, 106.7), (97.6 - 1.5, 99.7 - 1.5)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:400, :, ::-1])


@pytest.fixture(scope="module")
def lids(portrait: np.ndarray) -> tuple[Lids, Lids]:
    found = eyes_of(portrait, MATRIX)
    assert not isinstance(found, str), found
    return found


def painted(image: np.ndarray, draw, colour: float) -> np.ndarray:
    """`draw(layer, s)` paints on the canonical face, s pixels each."""
    s = 4
    layer = np.zeros((canon.SIZE * s, canon.SIZE * s), np.uint8)
    draw(layer, s)
    place = canon.compose(MATRIX, np.array([[1 / s, 0, 0], [0, 1 / s, 0]]))
    alpha = cv2.warpAffine(cv2.GaussianBlur(layer, (0, 0), 2.0), place, image.shape[1::-1])[..., None] / 255.0
    return np.asarray(image + alpha * (colour - image), np.uint8)


def rims(layer: np.ndarray, s: int) -> None:
    for x, y in canon.EYES:
        cv2.ellipse(layer, (int(x * s), int((y + 4) * s)), (25 * s, 19 * s), 0, 0, 360, 255, 2 * s)
    cv2.ellipse(layer, (128 * s, 82 * s), (12 * s, 6 * s), 0, 180, 360, 255, 2 * s)


def reflections(layer: np.ndarray, s: int) -> None:
    for x, y in canon.EYES:
        cv2.ellipse(layer, (int(x * s), int(y * s)), (12 * s, 6 * s), -30, 0, 360, 255, -1)


def test_both_lids_are_where_the_picture_has_them(lids: tuple[Lids, Lids]) -> None:
    for eye, low, top in zip(lids, LOWER, UPPER, strict=True):
        at = np.array([[eye.pupil[0]]], np.float32)
        upper, lower = (float(edge[0, 0]) for edge in eye.edges(eye.along(at)))
        points = canon.apply(MATRIX, np.array([[eye.pupil[0], upper], [eye.pupil[0], lower]]))
        assert abs(points[0, 1] - top) < 1.5
        assert abs(points[1, 1] - low) < 1.5
        assert 26 < eye.width < 40


def test_the_same_picture_gives_the_same_lids(portrait: np.ndarray, lids: tuple[Lids, Lids]) -> None:
    again = eyes_of(portrait, MATRIX)
    assert not isinstance(again, str)
    for one, other in zip(lids, again, strict=True):
        np.testing.assert_array_equal(one.to_row(), other.to_row())
        np.testing.assert_array_equal(Lids.from_row(one.to_row()).to_row(), one.to_row())


def test_a_tilted_and_enlarged_head_has_the_same_lids(portrait: np.ndarray, lids: tuple[Lids, Lids]) -> None:
    turn = cv2.getRotationMatrix2D((225.0, 110.0), 12.0, 1.6)
    turned = cv2.warpAffine(portrait, turn, (512, 400), flags=cv2.INTER_CUBIC)
    found = eyes_of(turned, canon.compose(turn, MATRIX))
    assert not isinstance(found, str), found
    for one, other in zip(lids, found, strict=True):
        assert abs(one.opening - other.opening) < 2.0


def test_closed_eyes_are_passed_by(portrait: np.ndarray, lids: tuple[Lids, Lids]) -> None:
    asleep = portrait.astype(np.float32)
    close_lids(HOST, asleep, MATRIX, lids, 1.0)
    assert eyes_of(np.clip(asleep, 0, 255).astype(np.uint8), MATRIX) in (
        "the eyes are closed or nearly so",
        "both eyes are not seen",
    )


@pytest.mark.parametrize(
    ("draw", "colour", "why"),
    [(rims, 40.0, ("glasses",)), (reflections, 255.0, ("bright", "not seen", "stand out"))],
)
def test_glasses_and_glare_are_passed_by(portrait: np.ndarray, draw, colour: float, why: tuple[str, ...]) -> None:
    found = eyes_of(painted(portrait, draw, colour), MATRIX)
    assert isinstance(found, str) and any(word in found for word in why), found


def test_one_hidden_eye_is_passed_by(portrait: np.ndarray) -> None:
    patched = portrait.copy()
    patched[88:116, 186:220] = patched[130:158, 186:220]
    assert isinstance(eyes_of(patched, MATRIX), str)


def test_small_faces_are_passed_by(portrait: np.ndarray) -> None:
    small = cv2.resize(portrait, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert eyes_of(small, MATRIX * 0.5) == "the eyes are too small to be measured"


def test_a_picture_without_eyes_is_passed_by() -> None:
    assert eyes_of(np.full((400, 512, 3), 128, np.uint8), MATRIX) == "both eyes are not seen"
