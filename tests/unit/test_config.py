"""Settings: who wins, what a typo says, and that config/heygemd.toml tells the truth."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from heygemd.config import Settings, all_keys, document, load_settings, sections
from heygemd.core.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("HEYGEMD_") or name == "STATE_DIRECTORY":
            monkeypatch.delenv(name)
    monkeypatch.setattr("heygemd.config.DEFAULT_FILE", tmp_path / "absent.toml")


def write(folder: Path, text: str) -> Path:
    path = folder / "heygemd.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(config: Path | None = None, overrides: dict[str, Any] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_settings(config, overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value


def test_each_layer_beats_the_one_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().inbox.scan_seconds == 5.0
    file = write(tmp_path, "[inbox]\nscan_seconds = 4\nsettle_scans = 7\n")
    assert load_settings(file).inbox.scan_seconds == 4
    monkeypatch.setenv("HEYGEMD_INBOX__SCAN_SECONDS", "3")
    assert load_settings(file).inbox.scan_seconds == 3
    settings = load_settings(file, {"inbox": {"scan_seconds": 2}})
    assert settings.inbox.scan_seconds == 2
    assert settings.inbox.settle_scans == 7, "a stronger layer must not wipe the rest of the table"
    assert load_settings(file, {"inbox": {"scan_seconds": None}}).inbox.scan_seconds == 3


def test_lists_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEYGEMD_SCHEDULER__DEVICES", "cuda:0, cuda:1")
    assert load_settings().scheduler.devices == ("cuda:0", "cuda:1")
    monkeypatch.setenv("HEYGEMD_SCHEDULER__DEVICES", '["cpu"]')
    assert load_settings().scheduler.devices == ("cpu",)


def test_one_value_is_a_list_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEYGEMD_SCHEDULER__SIMULATED_GPUS_MIB", "200")
    monkeypatch.setenv("HEYGEMD_SCHEDULER__DEVICES", '"cpu"')
    scheduler = load_settings().scheduler
    assert (scheduler.simulated_gpus_mib, scheduler.devices) == ((200,), ("cpu",))


def test_the_file_is_found_by_variable_and_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "[log]\nlevel = 'debug'\n")
    monkeypatch.setattr("heygemd.config.DEFAULT_FILE", file)
    assert load_settings().log.level == "debug"
    other = tmp_path / "other.toml"
    other.write_text("[log]\nlevel = 'error'\n")
    monkeypatch.setenv("HEYGEMD_CONFIG", str(other))
    assert load_settings().log.level == "error"


def test_state_belongs_to_its_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "root = '/srv/a'\nstate = '/var/lib/a'\n")
    assert load_settings(file).state == Path("/var/lib/a")
    other = load_settings(file, {"root": tmp_path / "b"})
    assert other.state == tmp_path / "b" / ".state", "the journal of one share must never serve another"
    assert load_settings(file, {"root": "/srv/a"}).state == Path("/var/lib/a")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/heygemd:/var/lib/more")
    assert load_settings(None, {"root": tmp_path}).state == Path("/var/lib/heygemd")
    assert load_settings(None, {"state": tmp_path}).state == tmp_path


def test_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {"root": "demo"}).root == tmp_path / "demo"
    folder = tmp_path / "etc"
    folder.mkdir()
    assert load_settings(write(folder, "root = 'share'\n")).root == folder / "share"


def test_a_typo_in_the_file_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    file = write(tmp_path, "[inbox]\nscan_second = 4\n")
    message = refused(file).message
    assert str(file) in message
    assert "inbox.scan_second: unknown key; did you mean inbox.scan_seconds?" in message


def test_a_key_in_the_wrong_table_is_found(tmp_path: Path) -> None:
    assert "did you mean inbox.ignore?" in refused(write(tmp_path, "[limits]\nignore = ['x']\n")).message
    assert "did you mean scheduler?" in refused(write(tmp_path, "[schedular]\nattempts = 2\n")).message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "must name each device once"),
        ('["cpu", "cpu"]', "must name each device once"),
        ('["gpu0"]', "'gpu0' is no device"),
        ('["CPU"]', "'CPU' is no device"),
        ('["auto", "cpu"]', '"auto" stands alone'),
        ('"cpu"', "must be a list, in brackets, not 'cpu'"),
    ],
)
def test_devices_that_cannot_be_are_refused_before_the_daemon_starts(tmp_path: Path, value: str, message: str) -> None:
    assert message in refused(write(tmp_path, f"[scheduler]\ndevices = {value}\n")).message


@pytest.mark.parametrize(
    ("variable", "suggestion"),
    [
        ("HEYGEMD_INBOX__SCAN_SECOND", "HEYGEMD_INBOX__SCAN_SECONDS"),
        ("HEYGEMD_INBX__SCAN_SECONDS", "HEYGEMD_INBOX__SCAN_SECONDS"),
        ("HEYGEMD_ROOTS", "HEYGEMD_ROOT"),
    ],
)
def test_an_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, variable: str, suggestion: str) -> None:
    monkeypatch.setenv(variable, "1")
    message = refused().message
    assert variable in message
    assert f"did you mean {suggestion}?" in message


def test_variables_of_the_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEYGEMD_TEST_ANYTHING", "1")
    assert load_settings().inbox.scan_seconds == 5.0


def test_a_wrong_value_names_key_place_and_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "[log]\nlevel = 'loud'\n[inbox]\nsettle_scans = 0\n")
    error = refused(file)
    assert error.message.startswith(f"{file}: ")
    problems = error.details["problems"]
    assert len(problems) == 2
    assert any("log.level: must be 'debug', 'info', 'warning' or 'error', not 'loud'" in p for p in problems)
    assert any("inbox.settle_scans: must be greater than or equal to 1, not 0" in p for p in problems)
    monkeypatch.setenv("HEYGEMD_LOG__LEVEL", "louder")
    message = refused().message
    assert message.startswith("the environment: HEYGEMD_LOG__LEVEL: ")
    assert "'louder'" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[inbox\n", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"inbox = 3\n", "inbox"),
        (b"[inbox]\nscan_seconds = nan\n", "finite"),
    ],
)
def test_a_broken_file(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "heygemd.toml"
    file.write_bytes(content)
    message = refused(file).message
    assert str(file) in message
    assert words in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "no.toml").message


def test_the_documented_file_is_in_step() -> None:
    text = (REPO / "config" / "heygemd.toml").read_text(encoding="utf-8")
    assert text == document(), "run: .venv/bin/python -c 'import heygemd.config as c; print(c.document(), end=\"\")'"


def test_the_documented_file_holds_every_key_with_its_default(tmp_path: Path) -> None:
    live = re.sub(r"^#(?=\w+ = )", "", document(), flags=re.MULTILINE)
    values = tomllib.loads(live)
    for keys in all_keys():
        here: Any = values
        for key in keys:
            assert key in here, f"{'.'.join(keys)} is not documented"
            here = here[key]
    settings = load_settings(write(tmp_path, live))
    assert settings == Settings(root=settings.root, state=settings.state)


def test_every_key_has_words() -> None:
    for name, table in sections().items():
        for key, field in table.model_fields.items():
            assert field.description, f"{name}.{key} has no description"
