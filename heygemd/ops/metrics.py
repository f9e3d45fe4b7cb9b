"""Every metric that heygemd exposes: one table, the contract with dashboards and alerts.

`docs/metrics.md` is generated from it, the samples in `config/` are tested against it, `heygemd.ops.exposition` makes
the real metrics of it. Labels are bounded by the configuration or by the code: never a job, a file or a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

_DURATIONS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 300.0, 900.0, 3600.0)
_RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Metric:
    """One metric. `source`: the events that it counts, or "" for what the loop measures every half second."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    source: str = ""
    buckets: tuple[float, ...] = ()


LABELS: dict[str, str] = {
    "action": "an event of [events.md](events.md)",
    "cause": "`operator` (`heygemd pause`), `file` (PAUSE), `disk`, `share`, `input`",
    "code": "an error code of [troubleshooting.md](troubleshooting.md)",
    "device": "`cpu`, `cuda:0`, …: what the configuration names, and the host",
    "disk": "`state`, `share`",
    "level": "`debug`, `info`, `warning`, `error`",
    "outcome": "`done`, `failed`; of jobs also `cancelled`",
    "python": "version of Python",
    "reason": "`idle`, `evicted`, `cancelled`, `closed`, `exit`: as meant; `died`, `hung`: not",
    "rung": "`retry` (the same again) and the out-of-memory ladder: `smaller`, `split`, `alone`",
    "stage": "`staging`, `preparing`, `rendering` (one segment), `finishing`, `publishing`",
    "state": "`queued`, `staging`, `preparing`, `rendering`, `finishing`, `publishing`",
    "step": "what rendering consists of: `decode`, `generate`, `encode`, …; the engine names them",
    "version": "version of heygemd",
}

_METRICS = (
    # the daemon
    Metric("heygemd_build_info", "gauge", "Always 1; the labels say what runs.", ("version", "python")),
    Metric("heygemd_ready", "gauge", "1 since the inbox was seen for the first time."),
    Metric("heygemd_degraded", "gauge", "1 while the share or the inbox cannot be used."),
    Metric(
        "heygemd_watchdog_ping_timestamp_seconds",
        "gauge",
        "When the loop and the workers last showed that they advance (Unix time).",
    ),
    Metric("heygemd_events_total", "counter", "Events, whether the log level shows them or not.", ("action", "level")),
    # jobs
    Metric("heygemd_jobs", "gauge", "Jobs that are not over.", ("state",)),
    Metric(
        "heygemd_jobs_ended_total",
        "counter",
        "Jobs that are over.",
        ("outcome",),
        "job.finished, job.failed, job.cancelled",
    ),
    Metric("heygemd_job_failures_total", "counter", "Failed jobs by error.", ("code",), "job.failed"),
    Metric(
        "heygemd_job_duration_seconds",
        "histogram",
        "From the first work on a job to its receipt, of those that are done.",
        (),
        "job.finished",
        _DURATIONS,
    ),
    Metric("heygemd_queue_age_seconds", "gauge", "How long the oldest queued job has waited; 0 when none waits."),
    Metric("heygemd_queue_paused", "gauge", "1 while the queue is paused for that.", ("cause",)),
    # the work
    Metric(
        "heygemd_stage_duration_seconds",
        "histogram",
        "Seconds of a stage of a job.",
        ("stage",),
        "job.staged, job.prepared, segment.finished, job.assembled, job.published",
        _DURATIONS,
    ),
    Metric("heygemd_step_seconds_total", "counter", "Seconds within segments.", ("step",), "segment.finished"),
    Metric("heygemd_frames_total", "counter", "Output frames rendered.", ("device",), "segment.finished"),
    Metric("heygemd_frames_per_second", "gauge", "Speed of the last segment.", ("device",), "segment.finished"),
    Metric(
        "heygemd_segments_total",
        "counter",
        "Tries of segments.",
        ("device", "outcome"),
        "segment.finished, segment.failed",
    ),
    Metric("heygemd_segment_retries_total", "counter", "Tries after a failure.", ("rung",), "segment.retried"),
    Metric(
        "heygemd_out_of_memory_total",
        "counter",
        "Segments that did not fit into the device's memory.",
        ("device",),
        "segment.failed",
    ),
    Metric(
        "heygemd_segment_predicted_bytes",
        "gauge",
        "Peak memory predicted for the last segment.",
        ("device",),
        "segment.finished",
    ),
    Metric(
        "heygemd_segment_measured_bytes",
        "gauge",
        "Peak memory measured of the last segment.",
        ("device",),
        "segment.finished",
    ),
    Metric(
        "heygemd_segment_memory_ratio",
        "histogram",
        "Measured by predicted peak memory; above 1 the prediction was too low.",
        (),
        "segment.finished",
        _RATIOS,
    ),
    # workers and devices
    Metric("heygemd_workers", "gauge", "Worker processes.", ("device",)),
    Metric("heygemd_worker_starts_total", "counter", "Worker processes started.", ("device",), "worker.started"),
    Metric(
        "heygemd_worker_ends_total",
        "counter",
        "Worker processes ended.",
        ("device", "reason"),
        "worker.ended, worker.died, worker.hung",
    ),
    Metric("heygemd_device_up", "gauge", "1 while the device may be given work; 0: away or set aside.", ("device",)),
    Metric("heygemd_device_memory_bytes", "gauge", "Memory that the device has.", ("device",)),
    Metric("heygemd_device_used_bytes", "gauge", "Memory in use on the device, by anybody.", ("device",)),
    Metric("heygemd_device_budget_bytes", "gauge", "Memory that renders may reserve.", ("device",)),
    Metric("heygemd_device_reserved_bytes", "gauge", "Memory that is reserved for running tasks.", ("device",)),
    Metric("heygemd_device_slots", "gauge", "Tasks that may run at once.", ("device",)),
    Metric("heygemd_device_slots_used", "gauge", "Tasks that run.", ("device",)),
    # the inbox and the disks
    Metric("heygemd_scan_timestamp_seconds", "gauge", "When the inbox was last seen whole (Unix time)."),
    Metric("heygemd_scan_duration_seconds", "gauge", "How long that scan took.", (), "scan.finished"),
    Metric("heygemd_inbox_files", "gauge", "Files in the inbox.", (), "scan.finished"),
    Metric("heygemd_inbox_waiting_drops", "gauge", "Drops that are not yet complete.", (), "scan.finished"),
    Metric("heygemd_inbox_ignored_files", "gauge", "Files that are ignored.", (), "scan.finished"),
    Metric("heygemd_disk_free_bytes", "gauge", "Room on the disk.", ("disk",)),
    Metric("heygemd_disk_min_free_bytes", "gauge", "Room below which the queue pauses.", ("disk",)),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def series_names() -> frozenset[str]:
    """Every name that a query may use: a histogram has three."""
    names = set(METRICS)
    for metric in _METRICS:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
            names.discard(metric.name)
    return frozenset(names)


def document() -> str:
    """The table of docs/metrics.md, between its two marks."""
    lines = ["| Metric | Kind | Labels | Meaning | From |", "|---|---|---|---|---|"]
    for metric in _METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        source = metric.source or "the loop"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} | {source} |")
    lines += ["", "| Label | Values |", "|---|---|"]
    lines += [f"| `{label}` | {values} |" for label, values in LABELS.items()]
    return "\n".join(lines) + "\n"
