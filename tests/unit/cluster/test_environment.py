"""Nodes and the bridge ask for a token where the head does: half of it refuses them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from heygemd.cluster.executor import ray_environment


@pytest.mark.parametrize("place", ["home", "path", "variable"])
def test_whoever_has_a_token_shows_it(tmp_path: Path, place: str) -> None:
    found = {"HOME": str(tmp_path)}
    assert "RAY_AUTH_MODE" not in ray_environment(found), "none is there, and none is asked for"
    if place == "variable":
        found["RAY_AUTH_TOKEN"] = "abc"  # noqa: S105 - no secret
    else:
        file = tmp_path / (".ray/auth_token" if place == "home" else "elsewhere")
        file.parent.mkdir(exist_ok=True)
        file.write_text("abc")
        found |= {} if place == "home" else {"RAY_AUTH_TOKEN_PATH": str(file)}
    assert ray_environment(found)["RAY_AUTH_MODE"] == "token"
    assert ray_environment({**found, "RAY_AUTH_MODE": "disabled"})["RAY_AUTH_MODE"] == "disabled", (
        "the operator decides"
    )


def test_nothing_about_the_machine_leaves_it() -> None:
    assert ray_environment({"RAY_USAGE_STATS_ENABLED": "1"})["RAY_USAGE_STATS_ENABLED"] == "0"
