"""Landmarks: which are believed, which frames are looked at, what the fit makes of them, and the network's child."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from heygemd.core.errors import CheckpointError, OutOfMemoryError, RenderError
from heygemd.faces import canon
from heygemd.faces.landmarks import FACE_PX, Landmarker, face_picture, implausible, opening_of, to_canonical
from heygemd.faces.landmarks_fan import FanLandmarker
from heygemd.faces.landmarks_fit import fit_opening, frames_to_look_at
from heygemd.faces.landmarks_network import require_network, unlike_network
from heygemd.faces.landmarks_process import load_network, peaks, points_in
from heygemd.faces.lipflow import MouthMotion
from tests.landmarks import face_with, seeded_weights, to_picture

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
MOUTH = (128.0, 154.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_weights(tmp_path_factory.mktemp("weights") / "2DFAN4-11f355bf06.pth.tar")


def noise_faces(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (FACE_PX, FACE_PX, 3), np.uint8) for _ in range(count)]


# --- the picture and what is believed ---------------------------------------------------------------------------------


def test_a_point_of_the_face_is_found_again_through_its_picture() -> None:
    image = np.zeros((700, 900, 3), np.uint8)
    matrix = canon.from_eyes(np.array([[400.0, 300.0], [560.0, 340.0]]))
    place = np.array([[128.0, 154.0]])
    x, y = np.rint(canon.apply(matrix, place)[0]).astype(int)
    image[y - 5 : y + 6, x - 5 : x + 6] = 255
    seen = face_picture(image, matrix)
    assert seen.shape == (FACE_PX, FACE_PX, 3)
    rows, columns = np.nonzero(seen[..., 0] > 100)
    np.testing.assert_allclose(to_canonical(np.array([[columns.mean(), rows.mean()]])), place, atol=0.7)
    np.testing.assert_allclose(to_canonical(to_picture(face_with(MOUTH, 5.0))), face_with(MOUTH, 5.0))


@pytest.mark.parametrize("opening", [0.0, 6.0, 25.0])
def test_a_face_is_plausible_and_its_opening_is_read(opening: float) -> None:
    face = face_with(MOUTH, opening)
    assert implausible(face, canon.EYES) == ""
    assert opening_of(face[None])[0] == pytest.approx(opening)


def mirrored(face: np.ndarray) -> np.ndarray:
    return np.array([256.0, 0.0]) + face * np.array([-1.0, 1.0])


def mouth_of(other: np.ndarray, face: np.ndarray) -> np.ndarray:
    return np.where(np.arange(68)[:, None] >= 48, other, face)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda f: f * np.nan, "missing"),
        (lambda f: f + 300.0, "outside"),
        (lambda f: f + np.array([30.0, 0.0]), "eyes"),
        (mirrored, "eyes"),
        (lambda f: mouth_of(mirrored(f), f), "wrong way round"),
        (lambda f: f * 0.0 + 128.0, "eyes"),
        (lambda f: mouth_of(f - np.array([0.0, 50.0]), f), "under the nose"),
        (lambda f: mouth_of(f * np.array([2.2, 1.0]) - np.array([153.6, 0.0]), f), "wide"),
        (lambda f: np.where(np.arange(68)[:, None] >= 60, f + np.array([0.0, 30.0]), f), "one above the other"),
    ],
    ids=["nan", "outside", "beside", "mirrored", "mouth mirrored", "one point", "mouth on the nose", "wide", "chin"],
)
def test_what_is_not_this_face_is_told(spoil, word: str) -> None:
    assert word in implausible(spoil(face_with(MOUTH, 6.0)), canon.EYES)


# --- the fit ----------------------------------------------------------------------------------------------------------


def spoken(frames: int = 200) -> tuple[np.ndarray, MouthMotion]:
    """A mouth and what colours and flow say of it: a third too small, two pixels off, trembling."""
    rng = np.random.default_rng(1)
    true = np.clip(8 + 9 * np.sin(np.arange(frames) / 3) * np.sin(np.arange(frames) / 17 + 1), 0, None)
    curves = np.maximum(0.66 * true + 2 + rng.normal(0, 1.5, frames), 0)
    flow = true + rng.normal(0, 1.0, frames) - 20
    even = (curves - curves.mean()) / curves.std() + (flow - flow.mean()) / flow.std()
    opening = np.maximum(curves.mean() + curves.std() * even / even.std(), 0)
    return true, MouthMotion(opening, np.zeros(frames), curves, flow)


def test_the_fit_brings_pixels_and_leaves_wild_frames_aside() -> None:
    true, motion = spoken()
    frames = frames_to_look_at(np.arange(0, 200, 2), motion.opening, [4, 8], 24)
    seen = true[frames] + np.random.default_rng(2).normal(0, 1.0, len(frames))
    seen[5] += 30.0
    held = np.setdiff1d(np.arange(200), frames)
    before, after = (np.abs(o - true)[held].mean() for o in (motion.opening, fit_opening(motion, frames, seen).opening))
    assert after < 0.7 * before
    clean = fit_opening(motion, frames, true[frames])
    assert clean.r > 0.9 and clean.error < 1.5
    assert np.corrcoef(clean.opening, true)[0, 1] > 0.9 and clean.opening.min() >= 0


def test_frames_are_spread_over_time_and_openings_and_hold_the_likely_ones() -> None:
    opening = np.concatenate([np.zeros(150), np.linspace(0, 20, 50)])
    at = np.arange(0, 200, 2)
    frames = frames_to_look_at(at, opening, [2, 198], 16)
    assert len(frames) == len(set(frames)) == 16 and set(frames) <= set(at.tolist()) and {2, 198} <= set(frames)
    first = np.sort(frames[:5])
    assert first[0] == 0 and np.diff(first).max() < 60
    assert 3 <= (opening[frames] > 0).sum() <= 8
    assert frames_to_look_at(at[:9], opening, [2], 16) == at[:9].tolist()


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_table_of_shapes_is_the_librarys() -> None:
    from face_alignment.models import FAN

    shapes = {name: tuple(tensor.shape) for name, tensor in FAN(4).state_dict().items()}
    assert unlike_network(shapes) == ""
    assert "missing" in unlike_network({k: v for k, v in shapes.items() if k != "l3.bias"})
    assert "is not of it" in unlike_network(shapes | {"extra": (1,)})
    assert "68x128x1x1, not 68x256x1x1" in unlike_network(shapes | {"l0.weight": (68, 128, 1, 1)})
    assert "and" in unlike_network({})


def test_a_peak_is_read_between_the_cells() -> None:
    ys, xs = np.mgrid[:64, :64]
    at = np.array([[20.3, 31.7], [0.0, 63.0], [40.5, 12.0]])
    heat = np.stack([np.exp(-0.5 * ((xs - x) ** 2 + (ys - y) ** 2) / 1.4**2) for x, y in at]).astype(np.float32)
    found = peaks(heat)
    np.testing.assert_allclose(found[[0, 2]], (at[[0, 2]] + 0.5) * 4 - 0.5, atol=0.8)
    np.testing.assert_allclose(found[1], (at[1] + 0.5) * 4 - 0.5, atol=3.5)
    assert np.isfinite(peaks(np.zeros((2, 64, 64), np.float32) - 1)).all()


def test_the_child_answers_as_the_network_does_twice_the_same_and_downloads_nothing(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_named: object) -> NoReturn:
        raise AssertionError("a network call")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    threads = torch.get_num_threads()
    try:
        network = load_network(weights)
        here = points_in(network, noise_faces(1)[0])
    finally:
        torch.set_num_threads(threads)
    landmarker: Landmarker = FanLandmarker(weights)
    try:
        there = landmarker.locate(noise_faces(2))
        landmarker.close()
        landmarker.close()
        again = landmarker.locate(noise_faces(2)[:1])
    finally:
        landmarker.close()
    assert there.shape == (2, 68, 2)
    np.testing.assert_array_equal(there[0], again[0])
    np.testing.assert_allclose(there[0], here, atol=1e-3)
    assert implausible(to_canonical(there[0]), canon.EYES)


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_files_that_are_something_else_are_refused_before_anything_runs(tmp_path: Path, weights: Path) -> None:
    evil, cut, other, absent = (tmp_path / name for name in ("evil.pth", "cut.pth", "other.pth", "absent.pth"))
    evil.write_bytes(pickle.dumps({"conv1.weight": Evil()}, protocol=2))
    cut.write_bytes(weights.read_bytes()[:5_000_000])
    torch.save({"conv1.weight": torch.zeros(3)}, other)
    for path, word in ((evil, "evil"), (cut, "cut"), (other, "missing"), (absent, "not there")):
        with pytest.raises(CheckpointError, match=word):
            require_network(path)


def test_an_archive_of_torchscript_with_code_is_only_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "2DFAN4.zip", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(), protocol=2))
        archive.writestr("x/constants.pkl", pickle.dumps((), protocol=2))
    with pytest.raises(CheckpointError, match="code or objects"):
        require_network(tmp_path / "2DFAN4.zip")


def test_numbers_that_are_none_are_one_clear_error(tmp_path: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["l3.bias"][0] = float("nan")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "nan.pth")
    landmarker = FanLandmarker(tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"nan\.pth: l3\.bias holds numbers that are not finite"):
        landmarker.locate(noise_faces(1))
    landmarker.close()


@pytest.mark.parametrize(
    ("program", "error", "word"),
    [
        ("import sys; sys.exit('the roof fell in')", RenderError, "the roof fell in"),
        ("print('{\"ok\": true}', flush=True)", RenderError, "exit code 0"),
        ("import os; os.kill(os.getpid(), 9)", OutOfMemoryError, "memory"),
    ],
    ids=["at once", "after the greeting", "killed"],
)
def test_a_child_that_dies_is_told(program: str, error: type[Exception], word: str) -> None:
    landmarker = FanLandmarker(Path("x"), (sys.executable, "-c", program))
    with pytest.raises(error, match=word):
        landmarker.locate(noise_faces(3))
    landmarker.close()


def test_looking_for_the_file_loads_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, heygemd.work.landmarks; print([m for m in ('torch', 'cv2', 'face_alignment') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
