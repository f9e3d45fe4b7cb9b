"""The tracker on a public-domain portrait that is moved in a known way."""

import cv2
import numpy as np
import pytest
from skimage import data

from heygemd.core.clip import Box
from heygemd.faces import canon
from heygemd.faces.detect import CascadeDetector, EyeFinder
from heygemd.faces.track import FaceTrack, FaceTracker

PUPILS = np.array([[207.0, 100.0], [252.0, 103.0]])  # of the portrait, by eye


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def moved(portrait: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
    matrix = cv2.getRotationMatrix2D((230, 120), 4 * np.sin(i / 6), 1 + 0.05 * np.sin(i / 9))
    matrix[:, 2] += [12 * np.sin(i / 7), 6 * np.cos(i / 5)]
    image = cv2.warpAffine(portrait, matrix, (512, 400), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return image, matrix


def run(frames: list[np.ndarray], choice: str | Box = "largest", scale: float = 1.0) -> FaceTrack:
    tracker = FaceTracker(CascadeDetector(), choice, 512, 400, 25.0)
    for i, frame in enumerate(frames):
        tracker.update(i, frame, scale)
    return tracker.finish()


def test_pupils_are_found_near_where_they_are(portrait: np.ndarray) -> None:
    faces = CascadeDetector().detect(portrait)
    assert faces
    eyes = EyeFinder().find(portrait, faces[0].box)
    assert eyes is not None
    assert np.abs(eyes - PUPILS).max() < 6


def test_a_tilted_face_is_found(portrait: np.ndarray) -> None:
    turn = cv2.getRotationMatrix2D((230, 120), 28, 1.0)
    tilted = cv2.warpAffine(portrait, turn, (512, 400), borderMode=cv2.BORDER_REPLICATE)
    faces = CascadeDetector().detect(tilted)
    assert faces
    assert np.linalg.norm(faces[0].centre - [228, 118]) < 40


def test_nothing_is_found_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    assert CascadeDetector().detect(noise) == []


def test_the_track_follows_to_a_pixel_and_does_not_drift(portrait: np.ndarray) -> None:
    steps = [moved(portrait, i) for i in range(45)]
    track = run([image for image, _ in steps])
    assert track.found.all()
    first = canon.apply(canon.invert(steps[0][1]), canon.apply(track.canonical[0].astype(float), canon.EYES))
    for i, (_, matrix) in enumerate(steps):
        here = canon.apply(track.canonical[i].astype(float), canon.EYES)
        assert np.abs(here - canon.apply(matrix, first)).max() < 1.2
    assert track.turn.max() < 0.05


def test_scaled_pictures_give_source_pixels(portrait: np.ndarray) -> None:
    large = cv2.resize(portrait, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    a = run([portrait] * 3)
    b = run([portrait] * 3, scale=2.0)
    c = run([large] * 3)
    np.testing.assert_allclose(b.box, 2 * a.box + 0.5, atol=0.6)
    assert np.abs(b.box - c.box).max() < 8


def test_gaps_and_cuts(portrait: np.ndarray) -> None:
    grey = np.full_like(portrait, 90)
    track = run([portrait] * 8 + [grey] * 10 + [portrait[:, ::-1].copy()] * 12)
    assert track.found[:8].all()
    assert not track.found[8:18].any()
    assert track.found[-6:].all()
    assert track.shot[0] != track.shot[-1]


def test_leftmost_and_rightmost(portrait: np.ndarray) -> None:
    face = portrait[:256, 100:356]
    pair = np.hstack([face, cv2.resize(face, None, fx=1.25, fy=1.25)[:256, :256]])
    left, right, largest = (run([pair] * 2, choice) for choice in ("leftmost", "rightmost", "largest"))
    assert left.box[0, 2] < 256 < right.box[0, 0]
    np.testing.assert_allclose(largest.box, right.box)


def test_a_fixed_box_is_obeyed(portrait: np.ndarray) -> None:
    face = portrait[:256, 100:356]
    pair = np.hstack([face, face])
    track = run([pair] * 2, Box(270, 20, 500, 230))
    assert track.box[0, 0] > 256


def test_arrays_survive_npz_without_pickle(portrait: np.ndarray, tmp_path) -> None:
    track = run([portrait] * 2)
    np.savez(tmp_path / "t.npz", **track.to_arrays())
    with np.load(tmp_path / "t.npz", allow_pickle=False) as stored:
        again = FaceTrack.from_arrays(dict(stored))
    np.testing.assert_array_equal(again.canonical, track.canonical)
