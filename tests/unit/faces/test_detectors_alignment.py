"""face-alignment's detectors: weights by path, nothing from the network, errors that name the file."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from heygemd.core.errors import CheckpointError, ConfigError, EngineUnavailableError
from heygemd.faces import canon
from heygemd.faces.detect import Detection, FaceDetector
from heygemd.faces.detectors_alignment import DETECTORS, AlignmentDetector, FrontalBoxes, alignment_detector
from heygemd.work.detector import make_detector

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Whoever asks for a connection or a download fails, and is remembered."""
    attempts: list[str] = []

    def refuse(*args: object, **_named: object) -> NoReturn:
        attempts.append(repr(args))
        raise AssertionError(f"a network call: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    return attempts


def seeded(name: str, folder: Path) -> Path:
    """A file of the right shapes with random numbers: enough to run the whole path."""
    torch.manual_seed(0)
    net: Any
    if name == "s3fd":
        from face_alignment.detection.sfd.net_s3fd import s3fd

        net = s3fd()
    else:
        from face_alignment.detection.blazeface.net_blazeface import BlazeFace

        net = BlazeFace(back_model=name == "blazeface_back")
        anchors = np.random.default_rng(0).uniform(0.2, 0.8, (896, 4)).astype(np.float32)
        np.save(folder / ("anchorsback.npy" if name == "blazeface_back" else "anchors.npy"), anchors)
    # With random numbers everything looks like a face, and face-alignment goes through its candidates one by one, or
    # for ever: these networks see nothing.
    for key, parameter in net.named_parameters():
        parameter.data.mul_(0.1)
        if key.startswith("classifier") and key.endswith("bias"):
            parameter.data.fill_(-20.0)
    path = folder / f"{name}.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.parametrize("name", ["s3fd", "blazeface", "blazeface_back"])
def test_runs_with_weights_by_path(name: str, tmp_path: Path, no_network: list[str]) -> None:
    detector: FaceDetector = alignment_detector(name, seeded(name, tmp_path), max_side_px=64)
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    found = detector.detect(image)
    scores = [d.score for d in found]
    assert scores == sorted(scores, reverse=True)
    assert no_network == []
    assert not (tmp_path / "hub").exists()


class Stub:
    """Stands for a detector of face-alignment: remembers what it was given."""

    def __init__(self, rows: Any) -> None:
        self.rows, self.given = rows, np.zeros(0)

    def detect_from_image(self, image: Any) -> Any:
        self.given = image
        return self.rows


def test_bounds_the_work_and_gives_source_pixels_best_first() -> None:
    stub = Stub([[10, 20, 50, 60, 0.6], np.array([1, 2, 31, 42, 0.9]), [5, 5, 5, 9, 0.99]])
    image = np.zeros((400, 800, 3), np.uint8)
    image[..., 0] = 255
    found = AlignmentDetector("stub", stub, 200).detect(image)
    assert stub.given.shape == (100, 200, 3)
    assert stub.given[0, 0].tolist() == [0, 0, 255]
    assert [d.score for d in found] == [pytest.approx(0.9), pytest.approx(0.6)]
    np.testing.assert_allclose(found[1].box, [40, 80, 200, 240])
    AlignmentDetector("stub", stub, 200, swapped=True).detect(image)
    assert stub.given[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("rows", [[], [[]], np.array([[]]), np.zeros((0, 5))])
def test_no_face_is_an_empty_list(rows: Any) -> None:
    assert AlignmentDetector("stub", Stub(rows), 200).detect(np.zeros((50, 50, 3), np.uint8)) == []


@pytest.mark.parametrize("name", DETECTORS)
def test_missing_weights_are_an_error_and_never_a_download(name: str, tmp_path: Path, no_network: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"which is not there") as caught:
        alignment_detector(name, tmp_path / "none.pth")
    assert "downloads no weights" in caught.value.remedy
    assert no_network == []


def test_blazeface_needs_its_anchors(tmp_path: Path) -> None:
    path = seeded("blazeface", tmp_path)
    (tmp_path / "anchors.npy").unlink()
    with pytest.raises(CheckpointError, match=r"needs anchors\.npy"):
        alignment_detector("blazeface", path)


@pytest.mark.parametrize("name", ["s3fd", "retinaface", "scrfd", "yunet"])
def test_wrong_weights_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"these are no weights")
    with pytest.raises((CheckpointError, EngineUnavailableError)) as caught:
        alignment_detector(name, path)
    message = str(caught.value)
    assert "\n" not in message
    assert name in message
    if isinstance(caught.value, CheckpointError):
        assert "w.bin" in message
    else:
        assert "needs the package" in message


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="s3fd, retinaface"):
        alignment_detector("nothing", tmp_path)


def test_boxes_become_those_of_the_frontal_cascade() -> None:
    # A face with its pupils 72 px apart, as S3FD draws it (engines.wav2lip.boxes.FACE) and as the cascade does.
    as_published = np.array([50.0, 18.0, 206.0, 202.0], np.float32)

    class One(AlignmentDetector):
        def __init__(self) -> None:
            self.name = "one"

        def detect(self, image: np.ndarray[Any, Any]) -> list[Detection]:
            return [Detection(as_published, 0.9)]

    frontal = FrontalBoxes(One())
    (found,) = frontal.detect(np.zeros((256, 256, 3), np.uint8))
    assert frontal.name == "one"
    assert found.score == 0.9
    np.testing.assert_allclose(canon.eyes_from_box(found.box), canon.EYES, atol=1.0)
    assert found.size == pytest.approx(72 / 0.378, abs=0.5)


def test_the_operator_chooses_the_detector_and_its_file(tmp_path: Path) -> None:
    assert make_detector("cascade", None, tmp_path).name == "opencv cascade"
    path = seeded("s3fd", tmp_path)
    assert make_detector("s3fd", path, tmp_path / "elsewhere").name == "s3fd"
    path.rename(tmp_path / "s3fd-619a316812.pth")
    assert make_detector("s3fd", None, tmp_path).name == "s3fd"
    with pytest.raises(CheckpointError, match=r"needs s3fd-619a316812\.pth, which is not there"):
        make_detector("s3fd", None, tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="yunet needs its weights named"):
        make_detector("yunet", None, tmp_path)
