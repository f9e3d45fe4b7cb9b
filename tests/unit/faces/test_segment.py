import numpy as np
import pytest

from heygemd.faces.segment import Colours, bell, boundaries, learn, likelihoods

MEAN = np.array([[0.3, 5.0], [0.6, 4.7], [0.6, 3.9], [0.25, 4.9], [0.55, 4.8], [0.3, 4.9]])
START = Colours(MEAN, np.tile([0.08, 0.15], (6, 1)))
TICKS = np.arange(61.0)
PLACES = [bell(TICKS, m, 10.0)[None] for m in (18.0, 26.0, 30.0, 42.0)]
GAP = np.asarray(-0.12 * TICKS - np.where(TICKS > 0, 0.5, 0.0), np.float32)
LENGTHS = [bell(TICKS, 8.0, 3.0), GAP, bell(TICKS, 11.0, 4.0)]


def column(rng: np.random.Generator, opening: int, teeth: bool) -> np.ndarray:
    label = np.repeat([0, 1, 3 if teeth else 2, 4, 5], [18, 8, opening, 11, 60 - 37 - opening])
    return (MEAN[label] + rng.normal(0, [0.04, 0.08], (60, 2))).astype(np.float32)


@pytest.mark.parametrize("teeth", [False, True])
@pytest.mark.parametrize("opening", [0, 3, 8, 15, 22])
def test_the_boundaries_are_found_to_a_pixel(opening: int, teeth: bool) -> None:
    rng = np.random.default_rng(opening)
    lines = np.stack([column(rng, opening, teeth) for _ in range(30)])
    colours, lengths = learn(lines, START, PLACES, LENGTHS)
    found, gain = boundaries(likelihoods(lines, colours)[0], PLACES, lengths)
    truth = np.array([18, 26, 26 + opening, 37 + opening])
    assert np.median(np.abs(found - truth)) <= 1
    assert (np.abs(found - truth).max(axis=1) <= 3).mean() > 0.9
    assert gain.min() > 0


def test_bare_skin_gains_nothing() -> None:
    rng = np.random.default_rng(1)
    skin = (MEAN[0] + rng.normal(0, [0.04, 0.08], (20, 60, 2))).astype(np.float32)
    _, gain = boundaries(likelihoods(skin, START)[0], PLACES, LENGTHS)
    assert gain.max() < 0
