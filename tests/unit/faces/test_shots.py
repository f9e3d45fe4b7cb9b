import numpy as np
import pytest

from heygemd.faces.shots import CutFinder
from heygemd.faces.smooth import _parabolas, runs, smooth_matrices


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return np.kron(coarse, np.ones((40, 40, 1), np.uint8))


def test_a_cut_is_found_once_and_motion_is_none() -> None:
    finder = CutFinder()
    a, b = picture(1), picture(2)
    seen = [finder.update(np.roll(a, 2 * i, axis=1)) for i in range(10)]
    seen += [finder.update(np.roll(b, 2 * i, axis=1)) for i in range(10)]
    assert [i for i, cut in enumerate(seen) if cut] == [10]


def test_a_flash_is_no_cut() -> None:
    finder = CutFinder()
    a = picture(3) // 2
    frames = [a, a, np.clip(a.astype(int) + 90, 0, 255).astype(np.uint8), a, a]
    assert not any(finder.update(frame) for frame in frames)


def test_runs_stop_at_gaps_and_cuts() -> None:
    found = np.array([0, 1, 1, 0, 1, 1, 1], bool)
    shot = np.array([0, 0, 0, 0, 0, 1, 1], np.int32)
    assert list(runs(found, shot)) == [(1, 3), (4, 5), (5, 7)]


def test_smoothing_keeps_a_steady_pan_and_takes_the_tremble() -> None:
    n = 60
    clean = np.tile(np.eye(2, 3), (n, 1, 1))
    clean[:, 0, 2] = 3.0 * np.arange(n)
    np.testing.assert_allclose(smooth_matrices(clean), clean, atol=1e-6)
    noisy = clean.copy()
    noisy[:, :, 2] += np.random.default_rng(0).normal(0, 1.0, (n, 2))
    error = (smooth_matrices(noisy) - clean)[:, :, 2]
    assert error.std() < 0.75


@pytest.mark.parametrize(("frames", "window"), [(5, 5), (6, 5), (7, 7), (40, 7)])
def test_parabolas_are_those_of_savitzky_and_golay(frames: int, window: int) -> None:
    from scipy.signal import savgol_filter

    paths = np.random.default_rng(frames).normal(size=(frames, 6))
    np.testing.assert_allclose(_parabolas(paths, window), savgol_filter(paths, window, 2, axis=0), atol=1e-12)
