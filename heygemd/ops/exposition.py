"""The metrics of the table, filled: from every event that is logged, and by the loop; shown on a port and in a file.

Events are the one source of what is counted: `log_event` tells them here, so that log and metrics cannot disagree.
Threads: prometheus-client's metrics may be touched from any; the port and the file have a thread of their own each,
and neither ever waits for the loop or makes it wait.
"""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.process_collector import ProcessCollector

from heygemd import __version__
from heygemd.core.errors import ConfigError, HeygemdError
from heygemd.core.settings import MetricsSettings
from heygemd.files import explained, write_atomic
from heygemd.ops import logs
from heygemd.ops.events import EVENTS
from heygemd.ops.metrics import METRICS, Metric

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series, and nothing reads them

Fields = Mapping[str, Any]

_OUTCOMES = {"job.finished": "done", "job.failed": "failed", "job.cancelled": "cancelled"}
_STAGES = {
    "job.staged": "staging",
    "job.prepared": "preparing",
    "segment.finished": "rendering",
    "job.assembled": "finishing",
    "job.published": "publishing",
}
_WORKER_ENDS = {"worker.died": "died", "worker.hung": "hung"}
CAUSES = ("operator", "file", "disk", "share", "input")


class Figures:
    """The metrics, by the names of the table. `hear` is given every event; `set` is the loop's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._made = {metric.name: _make(metric, self.registry) for metric in METRICS.values()}
        self.set("heygemd_build_info", 1, version=__version__, python=platform.python_version())
        # A series that appears with its first increment hides that increment from rate().
        for event in EVENTS.values():
            self._at("heygemd_events_total", action=event.name, level=event.level)
        for outcome in _OUTCOMES.values():
            self._at("heygemd_jobs_ended_total", outcome=outcome)
        for rung in ("retry", "smaller", "split", "alone"):
            self._at("heygemd_segment_retries_total", rung=rung)
        for stage in _STAGES.values():
            self._at("heygemd_stage_duration_seconds", stage=stage)
        for cause in CAUSES:
            self._at("heygemd_queue_paused", cause=cause)

    def add_device(self, name: str) -> None:
        """Begin its counters at 0."""
        for metric in ("heygemd_frames_total", "heygemd_out_of_memory_total", "heygemd_worker_starts_total"):
            self._at(metric, device=name)
        for reason in _WORKER_ENDS.values():
            self._at("heygemd_worker_ends_total", device=name, reason=reason)
        for outcome in ("done", "failed"):
            self._at("heygemd_segments_total", device=name, outcome=outcome)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._at(name, **labels).set(value)

    def follow(self, name: str, value: Callable[[], float]) -> None:
        """Let a gauge ask whenever somebody looks: what must be true even while the loop stands still."""
        self._at(name).set_function(value)

    def hear(self, action: str, fields: Fields) -> None:
        """Take in one event: its name and all its fields, bound ones included."""
        self._count("heygemd_events_total", action=action, level=EVENTS[action].level)
        if (stage := _STAGES.get(action)) and (seconds := fields.get("duration_seconds")) is not None:
            self._at("heygemd_stage_duration_seconds", stage=stage).observe(seconds)
        if (outcome := _OUTCOMES.get(action)) is not None:
            self._job_over(outcome, fields)
        elif action.startswith("segment."):
            self._segment(action, fields)
        elif action.startswith("worker."):
            self._worker(action, fields)
        elif action == "scan.finished":
            self.set("heygemd_scan_duration_seconds", fields.get("duration_seconds") or 0.0)
            self.set("heygemd_inbox_files", fields["files"])
            self.set("heygemd_inbox_waiting_drops", fields.get("waiting") or 0)
            self.set("heygemd_inbox_ignored_files", fields.get("ignored") or 0)

    def values(self) -> dict[str, float]:
        """Series → value, as a query would name them; without buckets and the process's own."""
        found: dict[str, float] = {}
        for family in self.registry.collect():
            for sample in family.samples:
                if sample.name.startswith("heygemd_") and not sample.name.endswith("_bucket"):
                    labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                    found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
        return found

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    # ---- one kind of event each ----

    def _job_over(self, outcome: str, fields: Fields) -> None:
        self._count("heygemd_jobs_ended_total", outcome=outcome)
        if outcome == "failed":
            self._count("heygemd_job_failures_total", code=_code(fields.get("error")))
        elif outcome == "done" and (seconds := fields.get("duration_seconds")) is not None:
            self._at("heygemd_job_duration_seconds").observe(seconds)

    def _segment(self, action: str, fields: Fields) -> None:
        device = str(fields.get("device") or "unknown")
        if action == "segment.retried":
            self._count("heygemd_segment_retries_total", rung=str(fields.get("rung") or "retry"))
        elif action == "segment.failed":
            self._count("heygemd_segments_total", device=device, outcome="failed")
            if _type(fields.get("error")) == "OutOfMemoryError":
                self._count("heygemd_out_of_memory_total", device=device)
        elif action == "segment.finished":
            self._count("heygemd_segments_total", device=device, outcome="done")
            frames, seconds = fields.get("frames") or 0, fields.get("duration_seconds")
            self._count("heygemd_frames_total", frames, device=device)
            if seconds:
                self.set("heygemd_frames_per_second", frames / seconds, device=device)
            for step, taken in (fields.get("step_seconds") or {}).items():
                self._count("heygemd_step_seconds_total", taken, step=step)
            predicted, measured = fields.get("predicted_bytes"), fields.get("measured_bytes")
            if predicted and measured:
                self.set("heygemd_segment_predicted_bytes", predicted, device=device)
                self.set("heygemd_segment_measured_bytes", measured, device=device)
                self._at("heygemd_segment_memory_ratio").observe(measured / predicted)

    def _worker(self, action: str, fields: Fields) -> None:
        device = str(fields.get("device") or "unknown")
        if action == "worker.started":
            self._count("heygemd_worker_starts_total", device=device)
        else:
            reason = _WORKER_ENDS.get(action) or str(fields["reason"])
            self._count("heygemd_worker_ends_total", device=device, reason=reason)

    def _count(self, name: str, amount: float = 1, **labels: str) -> None:
        self._at(name, **labels).inc(amount)

    def _at(self, name: str, **labels: str) -> Any:
        made = self._made[name]
        return made.labels(**labels) if labels else made


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind == "counter":
        return Counter(metric.name, metric.meaning, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.meaning, metric.labels, registry=registry)
    return Histogram(metric.name, metric.meaning, metric.labels, registry=registry, buckets=metric.buckets)


def _type(error: Any) -> str:
    return str(error.get("type")) if isinstance(error, dict) else type(error).__name__


def _code(error: Any) -> str:
    code = error.get("code") if isinstance(error, dict) else getattr(error, "code", None)
    return str(code or HeygemdError.code)


# ------------------------------------------------------------------------------------------------ where they go


@contextlib.contextmanager
def exposed(settings: MetricsSettings, log: Callable[..., None]) -> Iterator[Figures]:
    """Count events, and show what was counted on the port and in the file of the settings, until left.

    Raises ConfigError when the port cannot be had.
    """
    figures = Figures()
    with contextlib.ExitStack() as stack:
        stack.enter_context(logs.told_to(figures.hear))
        if settings.port:
            stack.enter_context(_port(settings, figures))
        if settings.textfile:
            stack.enter_context(_textfile(settings, figures, log))
        yield figures


@contextlib.contextmanager
def _port(settings: MetricsSettings, figures: Figures) -> Iterator[None]:
    where = f"{settings.address}, port {settings.port}"
    try:
        server: WSGIServer
        server, thread = start_http_server(settings.port, settings.address, figures.registry)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be shown on {where}: {(error.strerror or str(error)).lower()}",
            remedy="Set metrics.port to a free port, or to 0 for none; `ss -ltnp` tells who has it.",
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _textfile(settings: MetricsSettings, figures: Figures, log: Callable[..., None]) -> Iterator[None]:
    stop = threading.Event()
    path = Path(settings.textfile).expanduser()
    work = partial(_write_again_and_again, path, settings.textfile_seconds, figures, log, stop)
    # A daemon thread: where the disk hangs, the end of the service does not wait for it.
    thread = threading.Thread(target=work, name="metrics-file", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)


def _write_again_and_again(
    path: Path, seconds: float, figures: Figures, log: Callable[..., None], stop: threading.Event
) -> None:
    failing = False
    while True:
        try:
            write_textfile(path, figures)
            failing = False
        except HeygemdError as error:
            if not failing:  # once, not every few seconds
                log("metrics.failed", path=str(path), error=error)
            failing = True
        if stop.wait(seconds):
            return


def write_textfile(path: Path, figures: Figures) -> None:
    """Replace the file at once, readable by node_exporter's user. Raises HeygemdError."""
    with explained(f"metrics file {path}"):
        write_atomic(path, figures.text(), durable=False, mode=0o644)
