"""install.sh without installing: what it refuses, what it would do, and how it tells torch's builds apart."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = [CHECKOUT / "install.sh", CHECKOUT / ".ci/run", *sorted((CHECKOUT / "scripts").glob("**/*.sh"))]


def install(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(CHECKOUT / "install.sh"), *arguments], check=False, capture_output=True, text=True)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


torch_build = _load(CHECKOUT / "scripts/torch_build.py")


def test_help_names_every_command() -> None:
    done = install("--help")
    assert done.returncode == 0
    for command in ("demo", "test", "dev", "install", "uninstall", "--wheelhouse", "--share-group"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["fly"], "no such command: fly"),
        (["--fly"], "no such option: --fly"),
        (["--torch", "gpu", "dev"], "--torch gpu"),
        (["--wheelhouse"], "--wheelhouse needs a value"),
        (["--dry-run", "--wheelhouse", "/no/such/folder", "dev"], "no such folder"),
        (["dev", "more"], "dev takes no arguments"),
        (["--dry-run", "--root", "relative"], "--root relative"),
        (["--dry-run", "--root", "/srv/a b"], "--root /srv/a b"),
        (["--dry-run", "--root", "/tmp/x"], "does not last"),
        (["--dry-run", "--root", "/"], "--root /:"),
        (["--dry-run", "--root", "/etc/"], "belongs to the system"),
        (["--dry-run", "--root", "/srv/../usr/lib"], "belongs to the system"),
        (["install", "--dry-run", "--root", "/var/lib/heygemd"], "belongs to the system"),
        (["--dry-run", "--root", str(Path("~root").expanduser())], "the share needs a folder of its own"),
        (["--dry-run", "--share-group", "a:b"], "--share-group a:b"),
    ],
)
def test_wrong_usage_exits_2_and_says_what(arguments: list[str], complaint: str) -> None:
    if "--root" in arguments or "--share-group" in arguments:
        _needs_systemd()
    done = install(*arguments)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr


def test_a_dry_run_of_the_service_changes_nothing() -> None:
    _needs_systemd()
    watched = [Path("/opt/heygemd"), Path("/etc/heygemd"), Path("/usr/local/lib/sysusers.d/heygemd.conf")]
    before = [path.exists() for path in watched]
    done = install("install", "--dry-run", "--root", "/srv/elsewhere", "--share-group", "studio")
    assert done.returncode == 0, done.stderr
    assert "Would make the environment" in done.stdout or "is in place" in done.stdout
    assert [path.exists() for path in watched] == before
    assert not Path("/srv/elsewhere").exists()


def _needs_systemd() -> None:
    for tool in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here")


@pytest.mark.parametrize(
    ("version", "requirements", "expected"),
    [
        ("2.13.0+cpu", ["filelock", "sympy"], False),
        ("2.13.0", ["filelock", 'triton; extra == "compile"'], False),
        ("2.13.0", ["nvidia-cublas==13.1; platform_system == 'Linux'"], True),
        ("2.13.0", ["filelock", "triton==3.7.1"], True),
        ("2.13.0+cu130", ["filelock"], True),
        ("2.13.0+rocm7", [], True),
    ],
)
def test_builds_with_an_accelerator_are_known(version: str, requirements: list[str], expected: bool) -> None:
    assert torch_build.carries_accelerator(version, requirements) is expected


def test_pips_choice_is_read_from_its_report(tmp_path: Path) -> None:
    def report(version: str, *requires: str) -> Path:
        item = {
            "metadata": {"name": "torch", "version": version, "requires_dist": list(requires)},
            "download_info": {"url": f"https://wheels.invalid/torch-{version}.whl"},
        }
        (tmp_path / "report.json").write_text(json.dumps({"install": [item]}), encoding="utf-8")
        return tmp_path / "report.json"

    assert torch_build.without_cuda(report("2.13.0+cpu", "filelock")) == "https://wheels.invalid/torch-2.13.0+cpu.whl"
    assert torch_build.without_cuda(report("2.13.0", "cuda-toolkit")) is None


def test_an_index_that_is_not_there_does_not_answer() -> None:
    assert torch_build.answers("http://127.0.0.1:9/simple/") is False


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = {_name(line) for line in project["dependencies"] + extras} - {project["name"]}
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert wanted - {_name(line) for line in lines} == set()
    assert [line for line in lines if "==" not in line or "+" in line.partition("#")[0]] == []


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
def test_scripts_pass_shellcheck() -> None:
    subprocess.run(["shellcheck", "-x", *map(str, SCRIPTS)], check=True, cwd=CHECKOUT)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("name", ["heygemd", "heygemd-web"])
def test_the_units_exposure_stays_low(name: str) -> None:
    unit = CHECKOUT / f"systemd/{name}.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=15", str(unit)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if "--offline" in done.stderr:
        pytest.skip("this systemd-analyze cannot work offline")
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_torch_build_prints_its_usage() -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "scripts/torch_build.py")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "without-cuda REPORT" in done.stderr
