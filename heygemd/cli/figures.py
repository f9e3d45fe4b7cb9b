"""What the daemon counts and measures (docs/metrics.md), as `status` shows it: the same figures, for people."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from heygemd.cli.common import plain_table, safe, seconds_in_words

if TYPE_CHECKING:
    from heygemd.spool.layout import Layout

FRESH_SECONDS = 60.0
"""Older figures are not shown: who wrote them does not run, or does not come so far any more."""

_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})?$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Told:
    """One reading. `metrics`: series as a query names them → value; `age_seconds`: since it was written."""

    metrics: Mapping[str, float]
    age_seconds: float

    @property
    def fresh(self) -> bool:
        return self.age_seconds <= FRESH_SECONDS

    def get(self, name: str, **labels: str) -> float | None:
        inner = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        return self.metrics.get(name + (f"{{{inner}}}" if inner else ""))

    def by(self, label: str, name: str) -> dict[str, float]:
        """Value by one label, summed over the others."""
        found: dict[str, float] = {}
        for series, value in self.metrics.items():
            match = _SERIES.match(series)
            if match is not None and match[1] == name:
                key = dict(_LABEL.findall(match[2] or "")).get(label, "")
                found[key] = found.get(key, 0.0) + value
        return found


def read(layout: Layout) -> Told | None:
    """The daemon's newest figures; None where there are none, or none that can be understood."""
    from heygemd.spool.viewing import read_view

    view = read_view(layout.figures)
    if view is None or not isinstance(view.get("metrics"), dict):
        return None
    try:
        written = datetime.fromisoformat(str(view.get("updated"))).timestamp()
        metrics = {str(key): float(value) for key, value in view["metrics"].items()}
    except (TypeError, ValueError):
        return None
    return Told(metrics, max(0.0, time.time() - written))


def document(told: Told | None) -> dict[str, Any] | None:
    """For `--json`."""
    return None if told is None else {"age_seconds": round(told.age_seconds, 1), "metrics": dict(told.metrics)}


def lines(told: Told) -> list[Text | Table]:
    """For a terminal: the inbox and the disks, the devices, what was done since the start."""
    scan = told.get("heygemd_scan_timestamp_seconds")
    parts = []
    if scan:
        parts.append(f"scanned {seconds_in_words(time.time() - scan)} ago")
    waiting = told.get("heygemd_inbox_waiting_drops")
    parts.append(f"{_whole(told.get('heygemd_inbox_files'))} files in the inbox, {_whole(waiting)} drops incomplete")
    if age := told.get("heygemd_queue_age_seconds"):
        parts.append(f"oldest in the queue waits {seconds_in_words(age)}")
    free = told.by("disk", "heygemd_disk_free_bytes")
    parts.append("free: " + ", ".join(f"{disk} {room / 2**30:.1f} GiB" for disk, room in sorted(free.items())))
    inbox = Text("inbox   ").append(" · ".join(parts))
    if told.get("heygemd_degraded"):
        inbox.append("   degraded", style="yellow")
    ends = told.by("outcome", "heygemd_jobs_ended_total")
    workers = told.by("reason", "heygemd_worker_ends_total")
    retries = told.by("rung", "heygemd_segment_retries_total")
    rungs = sum(value for rung, value in retries.items() if rung != "retry")
    done = [f"{_whole(ends.get(outcome))} {outcome}" for outcome in ("done", "failed", "cancelled")]
    done.append(f"{_whole(sum(told.by('device', 'heygemd_frames_total').values()))} frames")
    done.append(f"{_whole(sum(retries.values()))} segments tried again ({_whole(rungs)} for memory)")
    done.append(f"workers died {_whole(workers.get('died'))}, hung {_whole(workers.get('hung'))}")
    return [inbox, Text("so far  ").append(" · ".join(done)), _devices(told)]


def _devices(told: Told) -> Table:
    table = plain_table("Device", "Tasks", "Reserved", "In use", "Frames/s", "Last segment took")
    for device, up in sorted(told.by("device", "heygemd_device_up").items()):

        def of(name: str, device: str = device) -> float | None:
            return told.get(f"heygemd_{name}", device=device)

        speed = of("frames_per_second")
        table.add_row(
            Text(safe(device), style="" if up else "yellow"),
            f"{_whole(of('device_slots_used'))}/{_whole(of('device_slots'))}" if up else Text("away", style="yellow"),
            _of(of("device_reserved_bytes"), of("device_budget_bytes")),
            _of(of("device_used_bytes"), of("device_memory_bytes")),
            "" if speed is None else f"{speed:.1f}",
            _of(of("segment_measured_bytes"), of("segment_predicted_bytes"), " predicted"),
        )
    return table


def _of(part: float | None, whole: float | None, word: str = "") -> str:
    """3.0 of 20.0 GiB."""
    if part is None or whole is None:
        return ""
    unit, name = (2**30, "GiB") if whole >= 2**30 else (2**20, "MiB")
    digits = 1 if unit == 2**30 else 0
    return f"{part / unit:.{digits}f} of {whole / unit:.{digits}f} {name}{word}"


def _whole(value: float | None) -> str:
    return f"{value or 0:.0f}"
