import numpy as np
import pytest

from heygemd.engines.rewrite.canvas import HOST
from heygemd.engines.rewrite.interior import painted, pose
from heygemd.engines.rewrite.motion import commands
from heygemd.engines.rewrite.shape import FIELD_BOX, STEP, MouthShape, fields, fit_shape
from heygemd.faces.lips import LipCurves

CLOSED = MouthShape(98.0, 158.0, 150.0, 0.5, 1.0, 0.0, 0.0, 8.0, 11.0)
OPEN = MouthShape(98.0, 158.0, 150.0, 0.5, -1.5, 0.0, 8.0, 8.0, 11.0)
XS = np.arange(FIELD_BOX[0], FIELD_BOX[2] + 1, STEP)


@pytest.mark.parametrize("shape", [CLOSED, OPEN])
@pytest.mark.parametrize("opening", [0.0, 3.0, 9.0, 18.0])
@pytest.mark.parametrize("width", [0.8, 1.0, 1.1])
def test_nothing_moves_on_the_edge_and_nothing_tears(shape: MouthShape, opening: float, width: float) -> None:
    warp = fields(shape, opening, width, 1.5)
    used = np.where(warp.below_upper < warp.above_lower, warp.dy_upper, warp.dy_lower)
    for field in (used, warp.dx):
        edge = np.concatenate([field[0], field[-1], field[:, 0], field[:, -1]])
        assert np.abs(edge).max() < 0.35
    # Folding would show a part of the face twice: the map must stay monotonic on both sides of the lips.
    above = warp.below_upper < 0
    below = warp.above_lower < 0
    for field, side in ((warp.dy_upper, above), (warp.dy_lower, below)):
        slope = np.diff(field, axis=0) / STEP
        assert slope[side[1:] & side[:-1]].min() > -0.9
    # Beyond the corners the two sides agree: no slit.
    outside = np.abs(XS - shape.centre) > 1.03 * shape.half * max(width, 1.0)
    line = np.argmin(np.abs(warp.below_upper + 0.0), axis=0)
    jump = (warp.dy_upper - warp.dy_lower)[line, np.arange(len(XS))]
    assert np.abs(jump[outside]).max() < 0.3


def test_the_inside_is_as_high_as_commanded() -> None:
    warp = fields(CLOSED, 12.0, 1.0, 1.5)
    middle = int(np.argmin(np.abs(XS - CLOSED.centre)))
    height = (warp.below_upper + warp.above_lower)[:, middle]
    np.testing.assert_allclose(height, 12.0, atol=0.01)


def test_unchanged_opening_moves_nothing() -> None:
    warp = fields(OPEN, OPEN.gap, 1.0, 0.0)
    assert max(np.abs(f).max() for f in (warp.dx, warp.dy_lower, warp.dy_upper)) < 1e-5


def test_teeth_hang_from_the_skull() -> None:
    skin, lip = np.array([200.0, 160, 140], np.float32), np.array([170.0, 90, 90], np.float32)
    inside = painted(CLOSED, skin, lip)
    y, x = (v.astype(np.float32) for v in np.mgrid[148:164, 118:138])
    far = np.full_like(x, 9.0)
    small = pose(HOST, inside, CLOSED, x, y, far, far, 16.0, 0.5)
    large = pose(HOST, inside, CLOSED, x, y, far, far, 20.0, 0.5)
    # The rows of the upper teeth are the same in any open mouth, but for the light.
    ratio = small[2:4] / large[2:4]
    assert ratio.std() < 0.02
    assert large[3].mean() > 1.7 * large[-2].mean()


def test_lips_that_part_little_hide_most_of_the_teeth_unless_it_hisses_or_smiles() -> None:
    skin, lip = np.array([200.0, 160, 140], np.float32), np.array([170.0, 90, 90], np.float32)
    inside = painted(CLOSED, skin, lip)
    y, x = (v.astype(np.float32) for v in np.mgrid[150:160, 120:136])
    far = np.full_like(x, 9.0)

    def rows_of_teeth(shape: MouthShape, teeth: float) -> int:
        light = pose(HOST, inside, shape, x, y, far, far, 9.0, teeth).mean(axis=(1, 2))
        return int((light > 0.7 * light[0]).sum())

    assert rows_of_teeth(CLOSED, 0.0) < rows_of_teeth(CLOSED, 1.0)
    assert rows_of_teeth(CLOSED, 0.0) < rows_of_teeth(OPEN, 0.0)


def test_a_nearly_closed_mouth_is_dark_inside_unless_the_sound_shows_teeth() -> None:
    skin, lip = np.array([200.0, 160, 140], np.float32), np.array([170.0, 90, 90], np.float32)
    inside = painted(CLOSED, skin, lip)
    y, x = (v.astype(np.float32) for v in np.mgrid[150:153, 118:138])
    far = np.full_like(x, 2.0)
    vowel, hiss = (float(pose(HOST, inside, CLOSED, x, y, far, far, 2.0, teeth).mean()) for teeth in (0.0, 1.0))
    assert vowel < 0.8 * hiss


def test_commands_close_widen_and_gate() -> None:
    one = np.ones(4, np.float32)
    made = commands(
        opening=one * [1, 0.5, 0.5, 0],
        width=one * [0, 1, -1, 0],
        closure=one * [0, 0, 1, 0],
        teeth=0 * one,
        activity=one * [1, 1, 1, 0],
        full=16.0,
        follow=True,
    )
    np.testing.assert_allclose(made.opening, [16, 8, 0, 0])
    assert made.width[1] > 1 > made.width[2]
    np.testing.assert_allclose(made.gate, [1, 1, 1, 0])


def test_known_corners_bend_the_ends_of_the_line_and_leave_its_middle() -> None:
    columns = np.linspace(98, 158, 13)
    rows = np.repeat(np.array([[[140.0, 147.0, 156.0, 166.0]]]), 13, axis=1)
    curves = LipCurves(columns, rows, np.full((1, 13), 20, np.float32), np.array([94.0, 162.0]))
    level = fit_shape(curves, np.array([0]))
    smile = fit_shape(curves, np.array([0]), np.array([141.0, 142.0]))
    at = np.array([94.0, 128.0, 162.0], np.float32)
    assert np.ptp(level.line(at)) < 1.0
    np.testing.assert_allclose(smile.line(at)[[0, 2]], [141.0, 142.0], atol=0.6)
    assert abs(float(smile.line(at)[1] - level.line(at)[1])) < 0.1
    assert MouthShape.from_row(smile.to_row()).c4 == pytest.approx(smile.c4)
    old = MouthShape.from_row(smile.to_row()[:9])
    assert old.c4 == 0 and old.gap == pytest.approx(smile.gap), "jobs prepared before the ends were known go on"
