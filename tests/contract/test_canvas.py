"""What every canvas of `rewrite` must do. A card's is tested with torch on the CPU here, on a card in tests/gpu."""

import cv2
import numpy as np
import pytest

from heygemd.engines.rewrite.canvas import HOST, Canvas

PICTURE = np.random.default_rng(2).uniform(0, 255, (17, 23, 3)).astype(np.float32)


@pytest.fixture(params=["opencv", "torch"])
def canvas(request: pytest.FixtureRequest) -> Canvas:
    if request.param == "opencv":
        return HOST
    pytest.importorskip("torch")
    from heygemd.engines.rewrite.torch_canvas import TorchCanvas

    return TorchCanvas("cpu")


def at(canvas: Canvas, x: float, y: float) -> list:
    """The same place for a picture of one pixel."""
    return [canvas.put(np.full((1, 1), v, np.float32)) for v in (x, y)]


def test_what_is_put_comes_back_and_a_copy_is_its_own(canvas: Canvas) -> None:
    flipped = PICTURE[:, :, ::-1]
    there = canvas.put(flipped)
    copied = canvas.copy(there)
    copied[2:4, 5:7] = 0.0
    copied += 1.0
    np.testing.assert_array_equal(canvas.get(there), flipped)
    assert canvas.get(copied)[3, 6].tolist() == [1.0, 1.0, 1.0]
    read_only = np.zeros((2, 2), np.float64)
    read_only.flags.writeable = False
    assert canvas.get(canvas.put(read_only)).dtype == np.float32


def test_places_are_columns_and_rows(canvas: Canvas) -> None:
    x, y = canvas.places(4, 3)
    np.testing.assert_array_equal(canvas.get(x + 10 * y), np.arange(4) + 10 * np.arange(3)[:, None])


@pytest.mark.parametrize("way", ["linear", "cubic"])
def test_a_pixel_is_itself_and_the_edge_goes_on(canvas: Canvas, way: str) -> None:
    there = canvas.put(PICTURE)
    for x, y, expected in ((5, 7, PICTURE[7, 5]), (-9, 3, PICTURE[3, 0]), (30, 40, PICTURE[16, 22])):
        found = canvas.get(getattr(canvas, way)(there, *at(canvas, x, y)))
        np.testing.assert_allclose(found[0, 0], expected, atol=0.01)


def test_beyond_the_edge_there_may_be_nothing(canvas: Canvas) -> None:
    there = canvas.put(PICTURE)
    assert canvas.get(canvas.linear(there, *at(canvas, -1.5, 3), beyond=False)).max() == 0
    half = canvas.get(canvas.linear(there, *at(canvas, -0.5, 3), beyond=False))[0, 0]
    np.testing.assert_allclose(half, PICTURE[3, 0] / 2, atol=0.01)


def test_between_pixels_it_is_opencv_s_linear_and_cubic(canvas: Canvas) -> None:
    there = canvas.put(PICTURE)
    x, y = np.float32([[4.25, 0.5]]), np.float32([[6.5, 0.25]])  # where OpenCV's steps of 1/32 fall
    for way, flag in (("linear", cv2.INTER_LINEAR), ("cubic", cv2.INTER_CUBIC)):
        expected = cv2.remap(PICTURE, x, y, flag, borderMode=cv2.BORDER_REPLICATE)
        places = canvas.put(x), canvas.put(y)
        np.testing.assert_allclose(canvas.get(getattr(canvas, way)(there, *places)), expected, atol=0.02)
    both = canvas.put(np.stack([x, y], axis=-1))
    np.testing.assert_allclose(canvas.get(canvas.cubic(there, both)), expected, atol=0.02)


@pytest.mark.parametrize("channels", [(), (2,), (4,)])
def test_a_small_field_is_sampled_under_a_matrix(canvas: Canvas, channels: tuple[int, ...]) -> None:
    y, x = np.mgrid[0:9, 0:12].astype(np.float32)
    field = np.broadcast_to((2 * x - 3 * y).reshape(9, 12, *(1 for _ in channels)), (9, 12, *channels)).copy()
    matrix = np.array([[3.0, 0.5, 4.0], [-0.5, 3.0, 5.0]])  # field → picture
    found = canvas.get(canvas.sample(field, matrix, (40, 30)))
    assert found.shape == (30, 40, *channels)
    back = np.linalg.inv(matrix[:, :2]) @ (np.array([20.0, 14.0]) - matrix[:, 2])
    np.testing.assert_allclose(found[14, 20], 2 * back[0] - 3 * back[1], atol=0.2)


@pytest.mark.parametrize("sigma", [2.0, 7.3])
def test_blur_is_opencv_s_gaussian_at_the_edges_too(canvas: Canvas, sigma: float) -> None:
    found = canvas.get(canvas.blur(canvas.put(PICTURE), sigma))
    np.testing.assert_allclose(found, cv2.GaussianBlur(PICTURE, (0, 0), sigma), atol=0.01)


def test_the_functions_of_both_are_there(canvas: Canvas) -> None:
    xp, (a, b) = canvas.xp, (canvas.put(np.float32([[v, 2.0], [3.0, -4.0]])) for v in (-1.0, 1.0))
    assert canvas.get(xp.clip(a, 0.0, None)).min() == 0
    assert canvas.get(xp.minimum(a, b))[0, 0] == -1 and canvas.get(xp.maximum(a, b))[0, 0] == 1
    assert canvas.get(xp.where(a < b, a, b))[0, 0] == -1
    assert canvas.get(xp.zeros_like(a)).tolist() == [[0, 0], [0, 0]]
    assert canvas.get(xp.exp(xp.abs(xp.zeros_like(a)))).max() == 1
    assert canvas.get(xp.dstack([canvas.put(PICTURE), canvas.put(PICTURE[..., 0])])).shape == (17, 23, 4)
    assert canvas.get(xp.asarray(a < b, dtype=xp.float32)).tolist() == [[1, 0], [0, 0]]


def test_work_is_done_and_answers(canvas: Canvas) -> None:
    assert canvas.run(lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        canvas.run(lambda: (_ for _ in ()).throw(ValueError("no")))
