import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heygemd.faces import canon

NUMBER = st.floats(-50, 50)


@given(st.floats(0.2, 4), st.floats(-1.5, 1.5), NUMBER, NUMBER)
def test_from_eyes_puts_the_pupils_where_they_are(scale: float, angle: float, dx: float, dy: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    eyes = canon.EYES @ turn.T + [dx, dy]
    matrix = canon.from_eyes(eyes)
    np.testing.assert_allclose(canon.apply(matrix, canon.EYES), eyes, atol=1e-9)
    assert abs(canon.scale_of(matrix) - scale) < 1e-9


@given(NUMBER, NUMBER, st.floats(0.5, 2))
def test_compose_and_invert_undo_each_other(dx: float, dy: float, scale: float) -> None:
    matrix = np.array([[scale, 0.2, dx], [-0.1, scale, dy]])
    np.testing.assert_allclose(canon.compose(matrix, canon.invert(matrix)), np.eye(2, 3), atol=1e-9)


def test_eyes_from_box_are_level_enough_and_inside() -> None:
    eyes = canon.eyes_from_box(np.array([10, 20, 110, 120], np.float32))
    assert 10 < eyes[0, 0] < eyes[1, 0] < 110
    assert 40 < eyes[0, 1] < 80
