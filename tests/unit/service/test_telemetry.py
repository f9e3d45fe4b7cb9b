"""Figures on the share: whoever looks must not take yesterday's for today's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from heygemd.ops.exposition import Figures
from heygemd.service.calls import Calls
from heygemd.service.telemetry import Telemetry
from heygemd.spool.layout import Layout
from tests.unit.service.fakes import Rig


def test_a_status_folder_that_cannot_be_written_is_told_once_each_time(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "share", tmp_path / "state")
    layout.ensure()
    rig, calls = Rig(tmp_path / "work"), Calls()
    told: list[tuple[str, dict[str, Any]]] = []
    telemetry = Telemetry(Figures(), layout, calls, lambda name, **fields: told.append((name, fields)))

    def write(now: float) -> None:
        telemetry.step(now, rig.dispatcher, ready=True, degraded=False, scanned_seconds=None, room={})
        while calls.running("figures"):
            time.sleep(0.002)
            calls.collect()

    aside = tmp_path / "aside"
    try:
        write(0.0)
        assert told == [] and layout.figures.exists()
        layout.status.rename(aside)
        layout.status.write_bytes(b"")  # a file where the folder was
        write(100.0)
        write(200.0)
        ((name, fields),) = told
        assert name == "status.failed" and "Not a directory" in fields["error"].message
        layout.status.unlink()
        aside.rename(layout.status)
        write(300.0)
        layout.status.rename(aside)
        write(400.0)
        assert [name for name, _ in told] == ["status.failed"] * 2
    finally:
        calls.close()
        rig.dispatcher.close()
