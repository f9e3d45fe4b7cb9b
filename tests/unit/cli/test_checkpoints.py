"""`checkpoints` on the command line; what it calls is tested in tests/unit/work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heygemd.core.errors import CheckpointError

from .conftest import Run


def test_list_names_every_known_file_and_what_auto_takes(heygemd: Run, tmp_path: Path) -> None:
    result = heygemd("checkpoints", "list", "--json", "--root", str(tmp_path))
    document = json.loads(result.stdout)
    assert "wav2lip_gan.pth" in [row["known"]["name"] for row in document["files"]]
    assert document["auto"]["path"] is None
    assert str(tmp_path) in document["auto"]["reason"]


def test_a_text_file_is_no_checkpoint(heygemd: Run, tmp_path: Path) -> None:
    fake = tmp_path / "wav2lip_gan.pth"
    fake.write_text("<html>not found</html>")
    assert heygemd("checkpoints", "verify", str(fake), "--root", str(tmp_path)).returncode == 1
    result = heygemd("checkpoints", "import", str(fake), "--json", "--root", str(tmp_path))
    assert result.returncode == CheckpointError.exit_code
    assert json.loads(result.stdout)["error"]["code"] == CheckpointError.code


@pytest.mark.parametrize("arguments", [("fetch", "wav2lip_gam.pth"), ("import", "nowhere.pth"), ("lst",)])
def test_mistakes_are_usage_errors_with_a_hint(heygemd: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = heygemd("checkpoints", *arguments, "--root", str(tmp_path))
    assert result.returncode == 2
    assert "wav2lip_gan.pth" in result.stderr or "nowhere.pth" in result.stderr or "'list'" in result.stderr
