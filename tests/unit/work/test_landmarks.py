"""The operator's file for landmarks: found by what is in it, imported, listed, broken, put off."""

from __future__ import annotations

from pathlib import Path

import pytest

from heygemd.core.errors import CheckpointError
from heygemd.work.checkpoints import best_checkpoint, import_file, list_checkpoints, verify
from heygemd.work.landmarks import find_landmarks, why_none
from tests.landmarks import seeded_weights

pytest.importorskip("torch")
PUBLISHED = "2DFAN4-11f355bf06.pth.tar"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded_weights(tmp_path_factory.mktemp("weights") / "anything.pth")


def test_nothing_there_and_off_are_told_apart(tmp_path: Path, weights: Path) -> None:
    assert find_landmarks("auto", None, tmp_path) is None
    assert "no weights for landmarks" in why_none("auto", tmp_path)
    assert find_landmarks("off", weights, weights.parent) is None
    assert "is off" in why_none("off", tmp_path)


def test_the_file_is_found_under_any_name(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "other.pth").write_text("not a checkpoint")
    (tmp_path / "mine.pth.tar").symlink_to(weights)
    assert find_landmarks("auto", None, tmp_path) == tmp_path / "mine.pth.tar"
    assert find_landmarks("auto", weights, tmp_path) == weights
    (tmp_path / PUBLISHED).symlink_to(weights)
    assert find_landmarks("auto", None, tmp_path) == tmp_path / PUBLISHED


def test_a_broken_file_is_an_error_and_no_silent_fallback(tmp_path: Path, weights: Path) -> None:
    (tmp_path / PUBLISHED).write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(CheckpointError, match=PUBLISHED) as caught:
        find_landmarks("auto", None, tmp_path)
    assert "engines.landmarks" in caught.value.remedy
    with pytest.raises(CheckpointError, match="absent"):
        find_landmarks("auto", tmp_path / "absent.pth", tmp_path)


def test_it_is_verified_by_its_shapes_listed_and_is_no_generator(tmp_path: Path, weights: Path) -> None:
    found = verify(weights)
    assert found.ok and (found.kind, found.variant) == ("landmarks", "fan4") and "68 landmarks" in found.reason
    imported = import_file(weights, tmp_path / "folder")
    assert imported.ok and imported.path == tmp_path / "folder" / "anything.pth"
    lines = list_checkpoints(tmp_path / "folder")
    assert [line.found[0].kind for line in lines if line.found] == ["landmarks"]
    assert PUBLISHED in {line.known.name for line in lines if line.known}
    assert not best_checkpoint(tmp_path / "folder").ok


def test_a_file_with_the_right_shapes_and_wrong_numbers_is_not_imported(tmp_path: Path, weights: Path) -> None:
    import torch

    state = torch.load(weights, weights_only=True)
    state["conv1.bias"][0] = float("inf")
    torch.save(state, tmp_path / "inf.pth")
    with pytest.raises(CheckpointError, match=r"inf\.pth: conv1\.bias holds numbers that are not finite"):
        import_file(tmp_path / "inf.pth", tmp_path / "folder")
