"""Models stay loaded between jobs, and go when another one, a failure or nobody wants them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from heygemd.engines import warm


class User: ...


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    warm.drop_unused()
    yield
    gc.collect()
    warm.drop_unused()
    assert warm.loaded() == 0


def use(name: str, loads: list[str]) -> User:
    user = User()
    warm.borrow((name,), lambda: loads.append(name))
    warm.returned_with(user, (name,))
    return user


def test_the_next_job_finds_the_model_loaded() -> None:
    loads: list[str] = []
    first = use("a", loads)
    del first
    second = use("a", loads)
    assert loads == ["a"]
    del second
    assert warm.loaded() == 1, "nobody uses it, and nobody needs its room"


def test_another_model_takes_the_place_of_one_that_nobody_uses() -> None:
    loads: list[str] = []
    first = use("a", loads)
    second = use("b", loads)
    assert warm.loaded() == 2, "the first is in use"
    del first
    third = use("c", loads)
    assert warm.loaded() == 2
    del second, third


def test_after_a_failure_it_is_loaded_anew_but_not_taken_from_its_user() -> None:
    loads: list[str] = []
    first = use("a", loads)
    warm.drop_unused()
    assert warm.loaded() == 1
    del first
    warm.drop_unused()
    second = use("a", loads)
    assert loads == ["a", "a"]
    del second


def test_a_load_that_fails_leaves_nothing() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        warm.borrow(("x",), fail)
    assert warm.loaded() == 0


def test_another_file_of_the_same_name_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"one")
    before = warm.file_key(path)
    os.utime(path, ns=(1, 1))
    assert warm.file_key(path) != before


def test_two_renderers_of_wav2lip_share_one_network(tmp_path: Path) -> None:
    from fractions import Fraction

    from heygemd.core.clip import VideoInfo
    from heygemd.core.options import Options
    from heygemd.engines.wav2lip import Wav2LipEngine
    from heygemd.engines.wav2lip.seeded import save_seeded
    from heygemd.engines.wav2lip.variants import variant_named

    path = save_seeded(variant_named("compressed96"), tmp_path / "w.pth")
    engine, video = Wav2LipEngine(), VideoInfo(320, 240, Fraction(25), 10, 0.4, "yuv420p")
    parts = engine.stand_in(video, (100, 100), 10)

    def renderer() -> object:
        return engine.renderer(*parts, video, Options(), device="cpu", precision="float32", checkpoint=path)

    first = renderer()
    network = first._network  # type: ignore[attr-defined]
    first.close()  # type: ignore[attr-defined]
    del first
    second = renderer()
    assert second._network is network  # type: ignore[attr-defined]
    del second, network
