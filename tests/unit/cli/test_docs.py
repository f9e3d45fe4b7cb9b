"""The words say what the code does: every code, option, command and table of the configuration has its place."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from typer.main import get_command

import heygemd.service.door
import heygemd.spool.staging
from heygemd.cli import app
from heygemd.config import sections
from heygemd.core.errors import HeygemdError
from heygemd.core.manifest import Manifest
from heygemd.core.options import Options
from heygemd.spool.ignore import KINDS

REPO = Path(__file__).resolve().parents[3]
assert heygemd.service.door, heygemd.spool.staging  # they define errors of their own


def page(name: str) -> str:
    return (REPO / name).read_text(encoding="utf-8")


def all_errors(cls: type[HeygemdError] = HeygemdError) -> set[type[HeygemdError]]:
    return {cls}.union(*(all_errors(sub) for sub in cls.__subclasses__() if sub.__module__.startswith("heygemd.")))


def test_every_error_code_has_an_entry_with_cause_and_remedy() -> None:
    parts = re.split(r"^### (HG-\d{4}) · (\w+)$", page("docs/troubleshooting.md"), flags=re.MULTILINE)
    entries = {code: (name, text) for code, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}
    known: dict[str, set[str]] = {}
    for cls in all_errors():
        known.setdefault(cls.code, set()).add(cls.__name__)
    assert set(entries) == set(known), "docs/troubleshooting.md has an entry too many or too few"
    for code, (name, text) in entries.items():
        assert name in known[code], f"{code} is {known[code]}"
        assert "**Cause.** " in text, code
        assert "**Do.** " in text, code


def test_codes_tell_classes_apart() -> None:
    """A subclass may share its parent's code; two classes that are not related may not."""
    for cls in all_errors():
        for other in all_errors():
            if cls is not other and cls.code == other.code:
                assert issubclass(cls, other) or issubclass(other, cls) or cls.__base__ is other.__base__


def test_exit_codes() -> None:
    assert {cls.exit_code for cls in all_errors()} == {1, 2, 75}
    for cls in all_errors():
        assert re.fullmatch(r"HG-\d{4}", cls.code)
        assert cls.default_remedy.endswith(".")


@pytest.mark.parametrize("option", Options.model_fields)
def test_every_option_is_in_the_manual(option: str) -> None:
    assert f"\n| `{option}` |" in page("docs/manual.md")


def test_the_manual_knows_no_other_option() -> None:
    table = page("docs/manual.md").split("\n## Options\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(Options.model_fields)


@pytest.mark.parametrize("key", Manifest.model_fields)
def test_every_key_of_a_manifest_is_in_the_manual(key: str) -> None:
    table = page("docs/manual.md").split("\n## Manifests\n")[1].split("\n## ")[0]
    assert f"`{key}`" in table


def test_every_command_is_in_the_manual() -> None:
    table = page("docs/manual.md").split("\n## Commands\n")[1].split("\n## ")[0]
    command = get_command(app)
    for name in command.commands:  # type: ignore[attr-defined]
        assert f"`{name}" in table, f"docs/manual.md does not tell of `heygemd {name}`"


def test_every_table_of_the_configuration_is_in_the_manual() -> None:
    for name in sections():
        assert f"`[{name}]`" in page("docs/manual.md")


def test_the_kinds_of_files_in_the_manual_are_real() -> None:
    told = page("docs/manual.md").split("- Videos: ")[1].split("Texts:")[0]
    suffixes = set(re.findall(r"\b[a-z][a-z0-9]{1,3}\b", told)) - {"and", "more"}
    assert suffixes <= {kind.removeprefix(".") for kind in KINDS}


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/manual.md",
        "docs/architecture.md",
        "docs/troubleshooting.md",
        "docs/provenance.md",
        "docs/sizing.md",
        "docs/operating.md",
        "docs/zh/quickstart.md",
        "docs/zh/troubleshooting.md",
    ],
)
def test_links_lead_somewhere(name: str) -> None:
    here = (REPO / name).parent
    for target in re.findall(r"\]\(([^)#\s]+)", page(name)):
        if target.startswith("http") or target.endswith("demo.jpg"):  # the picture is made from the demo's own result
            continue
        assert (here / target).exists(), f"{name}: {target}"


def test_the_rooms_in_the_architecture_are_there() -> None:
    for name in re.findall(r"^\| `(\w+)` \|", page("docs/architecture.md").split("\n## Rooms\n")[1], re.MULTILINE):
        if name not in ("rewrite", "wav2lip"):
            importlib.import_module(f"heygemd.{name}")


def test_the_readme_names_commands_that_exist() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for name in re.findall(r"^heygemd ([a-z-]+)", page("README.md"), re.MULTILINE):
        assert name in known


def test_the_chinese_pages_know_every_code() -> None:
    """The same codes, classes and order as the English page, each with cause and remedy."""
    heading = re.compile(r"^### (HG-\d{4} · \w+)$", re.MULTILINE)
    chinese = page("docs/zh/troubleshooting.md")
    assert heading.findall(chinese) == heading.findall(page("docs/troubleshooting.md"))
    for entry in heading.split(chinese)[2::2]:
        assert "**原因。** " in entry
        assert "**处理。** " in entry


def test_the_chinese_pages_name_options_and_commands_that_exist() -> None:
    text = page("docs/zh/quickstart.md") + page("docs/zh/troubleshooting.md")
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"heygemd ([a-z][a-z-]+)", text)) <= known
    for table, key in re.findall(r"`(\w+)\.(\w+)`", text):
        if table in sections():
            assert key in sections()[table].model_fields, f"{table}.{key}"
