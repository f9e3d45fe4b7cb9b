"""Cutting the inside of drawn mouths out, and making one interior of several."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from heygemd.engines.rewrite.cavity import Cut, Tints, cut
from heygemd.engines.rewrite.compose import compose
from heygemd.engines.rewrite.inside import KEY_BOX, OpenMouths, interior_of
from heygemd.engines.rewrite.interior import ORIGIN, SCALE, SIZE, painted
from heygemd.engines.rewrite.light import even_gain
from heygemd.engines.rewrite.shape import MouthShape
from heygemd.faces.lips import LipCurves

W, H = int(SIZE[0] * SCALE), int(SIZE[1] * SCALE)
CENTRE, HALF = ORIGIN[0] * SCALE, 58.0
SKIN, LIP, TOOTH, DARK = (200, 160, 145), (170, 95, 90), (225, 215, 195), (45, 20, 18)
TINTS = Tints(*(np.array(c, np.float32) for c in (SKIN, LIP, LIP)))
SHAPE = MouthShape(98.0, 156.0, 150.0, 0.0, 0.0, 0.0, 0.0, 8.0, 11.0)
COLUMNS = np.arange(W, dtype=float)
U = (COLUMNS - CENTRE) / HALF
TOP = 50 - 5 * np.sqrt(np.clip(1 - U * U, 0, 1))


def mouth(height: float = 34.0, edge: float = 64.0, hidden: tuple[int, int] = (0, 0), teeth: bool = True) -> np.ndarray:
    """RGB texture: lips around an opening whose upper teeth end at row `edge`; in the columns `hidden` the upper lip
    hangs over them."""
    image = np.full((H, W, 3), SKIN, np.uint8)
    arch = np.sqrt(np.clip(1 - U * U, 0, 1))
    rows = np.arange(H)[:, None]
    bottom = TOP + height * arch
    image[(rows > TOP - 18 * arch) & (rows < bottom + 22 * arch)] = LIP
    inside = (rows >= TOP) & (rows <= bottom) & (np.abs(U) < 1)[None]
    image[inside] = DARK
    if teeth:
        image[inside & (rows < edge)] = TOOTH
    image[inside & (rows < edge + 1) & (hidden[0] <= COLUMNS)[None] & (hidden[1] > COLUMNS)[None]] = LIP
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def taken(image: np.ndarray, height: float = 34.0, off: float = 0.0) -> Cut:
    arch = np.sqrt(np.clip(1 - U * U, 0, 1))
    return cut(image, TOP + off, TOP + height * arch + off, TINTS, CENTRE, HALF, 0.0)


@pytest.mark.parametrize("off", [-4.0, 0.0, 4.0])
def test_the_edges_of_lips_and_teeth_are_found(off: float) -> None:
    found = taken(mouth(), off=off)
    here = np.abs(U) < 0.7
    assert np.abs(found.top - TOP)[here].max() < 3
    assert np.abs(found.bottom - (TOP + 34 * np.sqrt(np.clip(1 - U * U, 0, 1))))[here].max() < 3
    assert found.edge[0] == pytest.approx(64, abs=2)
    assert found.whole > 0.85
    assert found.drop > 0.5
    inside = found.texture[found.known & here[None]]
    assert np.abs(inside.astype(int) - LIP).sum(axis=1).min() > 20, "no lip comes along"


def test_a_whole_row_is_worth_more_than_half_of_one_and_that_more_than_none() -> None:
    whole, half = taken(mouth()), taken(mouth(hidden=(40, 104)))
    none = taken(mouth(teeth=False))
    assert whole.worth > half.worth + 0.2
    assert half.worth > none.worth
    assert none.whole < 0.2


def test_skin_beyond_the_corners_is_not_taken_for_teeth() -> None:
    found = taken(mouth())
    assert not found.known[:, np.abs(U) > 1.05].any()
    assert (found.bottom - found.top).max() < 40


def painting() -> object:
    return painted(SHAPE, TINTS.skin, TINTS.lower, upper_teeth=False)


def tooth_share(image: np.ndarray, columns: slice) -> float:
    """Of the rows 48 to 60, where teeth are: how much is as bright as a tooth."""
    return float((image[48:60, columns].mean(axis=2) > 140).mean())


def test_what_a_lip_hides_comes_from_another_frame_or_from_the_other_side() -> None:
    hidden = taken(mouth(hidden=(60, 96)))
    gap = slice(64, 92)
    assert tooth_share(hidden.texture.astype(np.float32), gap) < 0.1
    other = compose(hidden, [taken(mouth())], HALF, painting())
    assert other.used == 1
    assert tooth_share(other.interior.image, gap) > 0.9
    alone = compose(hidden, [], HALF, painting())
    assert alone.used == 0
    assert tooth_share(alone.interior.image, gap) > 0.9
    # A frame in another light is not used.
    dim = replace(taken(mouth()), texture=(mouth() * 0.5).astype(np.uint8))
    assert compose(hidden, [dim], HALF, painting()).used == 0


def test_teeth_end_where_the_interior_splits_and_it_is_dark_there() -> None:
    # Both rows of teeth, closed: nothing dark is seen between them.
    closed = compose(taken(mouth(height=30.0, edge=200.0), height=30.0), [], HALF, painting()).interior
    row = round((closed.split + ORIGIN[1]) * SCALE)
    middle = slice(int(CENTRE) - 20, int(CENTRE) + 20)
    assert closed.image[row - 1 : row + 1, middle].mean() < 0.6 * closed.image[row - 14 : row - 8, middle].mean()


def test_a_mouth_without_teeth_gets_none() -> None:
    dark = compose(taken(mouth(teeth=False)), [], HALF, painting()).interior
    assert dark.image[50:70, int(CENTRE) - 40 : int(CENTRE) + 40].mean() < 70


class Picture:
    """A key frame made of `image` (BGR of KEY_BOX, one pixel each)."""

    index, scale = 0, 1.0

    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def image(self) -> np.ndarray:
        return self._image


def painted_in(strong: float) -> tuple[np.ndarray, float]:
    """What is painted into a closed mouth whose left side has `strong` times the light of its right one."""
    height, width = KEY_BOX[3] - KEY_BOX[1], KEY_BOX[2] - KEY_BOX[0]
    ramp = strong ** (-0.5 * np.tanh((np.arange(width) + KEY_BOX[0] - SHAPE.centre) / 40.0))
    face = np.full((height, width, 3), SKIN[::-1], float) * 0.6 * ramp[None, :, None]
    key = Picture(face.astype(np.uint8))
    curves = LipCurves(np.linspace(98, 156, 13), np.zeros((1, 13, 4)), np.zeros((1, 13), np.float32), np.zeros(2))
    closed = OpenMouths([key], np.array([0]), np.zeros(1), np.zeros((1, 2)), np.zeros(1, np.float32), curves)
    made = interior_of(closed, SHAPE, key, "auto", 0.15)
    assert made.source == "painted" and made.why == "no frame shows a mouth open enough"
    return made.interior.image[round((ORIGIN[1] + 3) * SCALE)].mean(axis=1), made.side_light


def test_what_is_painted_follows_light_from_one_side() -> None:
    (even, alike), (lit, darker) = painted_in(1.0), painted_in(4.0)
    assert alike > 0.95 and darker < 0.4
    gain = lit / even
    left, right = gain[int(CENTRE) - 40 : int(CENTRE) - 20].mean(), gain[int(CENTRE) + 20 : int(CENTRE) + 40].mean()
    assert left > 1.4 * right


def test_a_change_of_light_is_told_from_what_is_not_skin() -> None:
    rows, columns = np.mgrid[0:40, 0:44] / 42.0 * 2 - 1
    ring = np.exp(-0.5 * ((np.hypot(rows, columns) - 0.7) / 0.15) ** 2).astype(np.float32)
    then = np.full((40, 44, 3), 120.0, np.float32)
    change = np.exp(0.5 * columns - 0.1)[..., None].astype(np.float32)
    now = then * change
    now[28:, 30:] = 15.0  # a dark collar where there was skin
    got = even_gain(now, then, ring)
    clear = (ring > 0.5) & ~((rows > 0.3) & (columns > 0.3))
    assert np.abs(got[clear] / change[clear] - 1).max() < 0.12
    np.testing.assert_allclose(even_gain(then, then, ring), 1.0, atol=1e-5)
