"""Every event that heygemd logs: one table, the contract with whoever reads the logs.

`docs/events.md` is generated from it; `heygemd.ops.logs.log_event` refuses what is not in it. Names and fields may be
added; taking one away or giving it another meaning breaks somebody's alert, so it goes into CHANGELOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["debug", "info", "warning", "error"]
Outcome = Literal["success", "failure", "unknown"]


@dataclass(frozen=True)
class Field:
    """One field: its name in the code, its name in the log line (ECS, or ours below `heygemd.`), and its meaning."""

    name: str
    key: str
    meaning: str


@dataclass(frozen=True)
class Event:
    """One event. `sentence` is a str.format template over its fields; `needs` are required, `may` are optional."""

    name: str
    level: Level
    sentence: str
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    outcome: Outcome | None = None


FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        Field("job", "heygemd.job.name", "the job's name: of its folder in the outbox and of its status file"),
        Field("job_id", "heygemd.job.id", "the job's id in the journal"),
        Field("item", "heygemd.job.item", "the result within a batch"),
        Field("segment", "heygemd.segment.number", "number of the segment, from 0"),
        Field("node", "heygemd.node", "machine of the cluster"),
        Field("device", "heygemd.device", "cpu, cuda:0, …"),
        Field("worker", "heygemd.worker.pid", "process id of the worker"),
        Field("engine", "heygemd.engine.name", "the engine that renders"),
        Field("attempt", "heygemd.attempt", "which try this is, from 1"),
        Field("attempts", "heygemd.attempts", "how many tries there are"),
        Field("folder", "heygemd.folder", "folder of the drop, relative to the inbox"),
        Field("path", "file.path", "the file that it is about"),
        Field("reason", "event.reason", "why, in words"),
        Field("error", "error.*", "error.type, error.code, error.message; error.stack_trace where it helps"),
        Field("duration_seconds", "event.duration", "how long it took; in the line as nanoseconds"),
        Field("frames", "heygemd.frames", "output frames"),
        Field("segments", "heygemd.segments", "number of segments"),
        Field("batch", "heygemd.batch", "frames that the model gets at once"),
        Field("precision", "heygemd.precision", "float32, bfloat16, int8"),
        Field("predicted_bytes", "heygemd.memory.predicted_bytes", "peak memory that was reserved"),
        Field("measured_bytes", "heygemd.memory.measured_bytes", "peak memory that was measured"),
        Field("free_bytes", "heygemd.disk.free_bytes", "room on the named disk"),
        Field("num_bytes", "heygemd.bytes", "size of what it is about"),
        Field("count", "heygemd.count", "how many"),
        Field("files", "heygemd.scan.files", "files seen in the inbox"),
        Field("waiting", "heygemd.scan.waiting", "drops that are not yet complete"),
        Field("ignored", "heygemd.scan.ignored", "files that are ignored"),
        Field("queued", "heygemd.queue.length", "jobs that wait"),
        Field("running", "heygemd.queue.running", "jobs that are being worked on"),
        Field("devices", "heygemd.devices", "devices that render"),
        Field("root", "heygemd.root", "the share"),
        Field("state", "heygemd.state", "the folder of journal and work files"),
        Field("version", "service.version", "version of heygemd"),
        Field("keys", "heygemd.config.keys", "settings that changed"),
        Field("exit_code", "process.exit_code", "exit status; below zero: ended by that signal"),
        Field("signal", "heygemd.signal", "name of the signal"),
        Field("stage", "heygemd.stage", "preparing, rendering, finishing, …"),
        Field("who", "user.name", "who asked for it, where that is known"),
        Field(
            "rung",
            "heygemd.rung",
            "what a try after a failure changes: retry (nothing), smaller, split, alone, software",
        ),
        Field("step_seconds", "heygemd.step_seconds", "seconds of each step within the segment, by name"),
        Field("encoder", "heygemd.encoder", "who encodes: software, nvenc"),
        Field("decoder", "heygemd.decoder", "who decodes in the second pass: software, nvdec"),
        Field("url", "url.full", "address of a webhook, without its query"),
    )
}

COMMON = ("job", "job_id", "item", "segment", "device", "worker", "engine", "attempt", "attempts", "folder")
"""Fields that every event may carry: they are bound to the logger where a job, a segment or a device is at hand."""

_EVENTS = (
    # the daemon
    Event("daemon.started", "info", "heygemd {version} started for {root}", ("version", "root"), ("state", "devices")),
    Event("daemon.ready", "info", "ready: watching the inbox, rendering on {devices}", ("devices",), ("queued",)),
    Event("daemon.degraded", "warning", "degraded: {reason}", ("reason",), ("error", "path")),
    Event("daemon.recovered", "info", "no longer degraded: {reason}", ("reason",), ("duration_seconds",)),
    Event("daemon.standby", "info", "standing by: {reason}", ("reason",)),
    Event("daemon.took_over", "warning", "this daemon works from now on: {reason}", ("reason",)),
    Event("daemon.gave_up", "warning", "this daemon works no more: {reason}", ("reason",), ("error",)),
    Event("daemon.stopping", "info", "stopping: {reason}", ("reason",), ("signal", "running")),
    Event("daemon.stopped", "info", "stopped", (), ("duration_seconds", "queued", "running", "exit_code", "reason")),
    Event("daemon.failed", "error", "cannot go on: {error}", ("error",), (), "failure"),
    Event(
        "watchdog.starved",
        "error",
        "no worker has said a word for {duration_seconds} s: the watchdog is fed no more",
        ("duration_seconds",),
        (),
        "failure",
    ),
    Event("config.reloaded", "info", "configuration reloaded", (), ("keys", "path"), "success"),
    Event("config.waiting", "warning", "only the next start takes over: {reason}", ("reason",)),
    Event(
        "config.refused",
        "error",
        "configuration refused, the old one stays: {error}",
        ("error",),
        ("path",),
        "failure",
    ),
    # the inbox
    Event(
        "scan.finished",
        "debug",
        "inbox scanned: {files} files",
        ("files",),
        ("waiting", "ignored", "duration_seconds", "count"),
    ),
    Event("scan.failed", "warning", "the inbox could not be scanned: {error}", ("error",), ("path",), "failure"),
    Event(
        "scan.truncated",
        "warning",
        "the inbox holds more than a scan looks at: {files} files are seen, the rest when these are done",
        ("files",),
    ),
    Event("watch.started", "info", "watching {path} by {reason}", ("path", "reason")),
    Event("watch.restarted", "warning", "the watch on {path} had ended and runs again: {reason}", ("path", "reason")),
    Event("input.ignored", "debug", "{path} is ignored: {reason}", ("path", "reason")),
    Event("input.waiting", "info", "{path} is no job yet: {reason}", ("path", "reason")),
    Event("input.unreadable", "warning", "{path} is no job yet, it cannot be read: {reason}", ("path", "reason")),
    Event(
        "input.stuck",
        "warning",
        "job {job}: {count} of its inputs could not be moved out of the inbox: {path}",
        ("job", "path", "count"),
    ),
    Event(
        "input.refused",
        "warning",
        "{path} is refused: {error}",
        ("path", "error"),
        ("reason",),
        "failure",
    ),
    # a job
    Event("job.claimed", "info", "job {job} claimed from {path}", ("job", "path"), ("reason", "count", "queued")),
    Event("job.staged", "info", "job {job}: inputs copied", ("job",), ("num_bytes", "duration_seconds"), "success"),
    Event(
        "job.prepared",
        "info",
        "job {job}: {frames} frames analysed",
        ("job", "frames"),
        ("duration_seconds", "reason"),
        "success",
    ),
    Event(
        "job.planned",
        "info",
        "job {job}: {segments} segments planned",
        ("job", "segments"),
        ("frames", "batch", "precision", "predicted_bytes", "reason"),
    ),
    Event(
        "encoder.chosen", "info", "job {job}: encoder {encoder}: {reason}", ("job", "encoder", "reason"), ("decoder",)
    ),
    Event(
        "encoder.replaced",
        "warning",
        "job {job} begins again with encoder {encoder}: {reason}",
        ("job", "encoder", "reason"),
    ),
    Event(
        "job.blocked",
        "warning",
        "job {job} cannot go on for now: {reason}",
        ("job", "reason"),
        ("error", "path"),
    ),
    Event("job.waiting", "info", "job {job} waits: {reason}", ("job", "reason"), ("error", "path")),
    Event(
        "job.assembled",
        "debug",
        "job {job}: segments joined and checked",
        ("job",),
        ("duration_seconds",),
        "success",
    ),
    Event(
        "job.finished",
        "info",
        "job {job} is done",
        ("job",),
        ("duration_seconds", "frames", "path", "count"),
        "success",
    ),
    Event(
        "job.published",
        "debug",
        "job {job}: result in {path}",
        ("job", "path"),
        ("num_bytes", "count", "duration_seconds"),
        "success",
    ),
    Event(
        "job.failed",
        "error",
        "job {job} failed: {error}",
        ("job", "error"),
        ("path", "duration_seconds", "stage"),
        "failure",
    ),
    Event("job.cancelled", "info", "job {job} cancelled", ("job",), ("reason", "who", "duration_seconds"), "unknown"),
    Event("job.retried", "info", "job {job} is tried again", ("job",), ("reason", "who")),
    Event("job.adopted", "info", "job {job} was another daemon's and is rendered here", ("job",), ("reason",)),
    Event("job.handed_over", "info", "job {job} is another daemon's now, or was finished there", ("job",), ("reason",)),
    Event("job.resumed", "info", "job {job} goes on where it stopped", ("job",), ("reason", "segments", "stage")),
    Event("job.archived", "info", "job {job}: inputs archived in {path}", ("job", "path"), ("num_bytes",), "success"),
    Event("job.notified", "info", "job {job}: webhook told", ("job",), ("url", "duration_seconds"), "success"),
    Event(
        "job.notify_failed",
        "warning",
        "job {job}: webhook not told: {reason}",
        ("job", "reason"),
        ("url", "error"),
        "failure",
    ),
    # segments and workers
    Event(
        "segment.started",
        "debug",
        "job {job}: segment {segment} starts on {device}",
        ("job", "segment", "device"),
        ("predicted_bytes", "batch", "precision", "frames"),
    ),
    Event(
        "segment.finished",
        "info",
        "job {job}: segment {segment} done",
        ("job", "segment"),
        ("duration_seconds", "frames", "measured_bytes", "predicted_bytes", "batch", "precision", "step_seconds"),
        "success",
    ),
    Event(
        "precision.changed",
        "info",
        "job {job}: computed in {precision}: {reason}",
        ("job", "precision", "reason"),
        ("segment", "device"),
    ),
    Event(
        "segment.failed",
        "warning",
        "job {job}: segment {segment} failed: {error}",
        ("job", "segment", "error"),
        ("duration_seconds", "batch", "precision", "measured_bytes"),
        "failure",
    ),
    Event(
        "segment.retried",
        "info",
        "job {job}: segment {segment} is tried again: {reason}",
        ("job", "segment", "reason"),
        ("batch", "precision", "predicted_bytes", "rung"),
    ),
    Event(
        "task.failed",
        "warning",
        "job {job}: {stage} failed: {error}",
        ("job", "stage", "error"),
        ("duration_seconds",),
        "failure",
    ),
    Event("task.retried", "info", "job {job}: {stage} is tried again: {reason}", ("job", "stage", "reason"), ("rung",)),
    Event("node.ready", "info", "node {node} can render: {reason}", ("node", "reason")),
    Event("worker.started", "info", "worker {worker} started on {device}", ("worker", "device"), ("duration_seconds",)),
    Event("worker.ended", "info", "worker {worker} ended: {reason}", ("worker", "reason"), ("exit_code",), "success"),
    Event(
        "worker.died",
        "error",
        "worker {worker} died: {reason}",
        ("worker", "reason"),
        ("exit_code", "signal", "error"),
        "failure",
    ),
    Event(
        "worker.hung",
        "error",
        "worker {worker} said nothing for too long and was killed",
        ("worker",),
        ("duration_seconds", "reason"),
        "failure",
    ),
    Event(
        "memory.calibrated",
        "info",
        "memory was measured on {device}: {reason}",
        ("device", "reason"),
        ("precision", "measured_bytes", "duration_seconds"),
        "success",
    ),
    Event(
        "memory.uncalibrated",
        "warning",
        "memory could not be measured on {device}, the formula has to do: {error}",
        ("device", "error"),
        ("precision", "reason"),
        "failure",
    ),
    Event(
        "memory.corrected",
        "info",
        "memory model corrected: predicted {predicted_bytes}, measured {measured_bytes} bytes",
        ("predicted_bytes", "measured_bytes"),
        ("batch", "precision", "reason"),
    ),
    # the queue and the disks
    Event("queue.paused", "warning", "the queue is paused: {reason}", ("reason",), ("who", "queued", "error")),
    Event("queue.resumed", "info", "the queue goes on", (), ("reason", "who", "queued", "duration_seconds")),
    Event("control.received", "info", "asked to {reason}", ("reason",), ("path", "who")),
    Event("control.refused", "warning", "a request is refused: {reason}", ("reason",), ("path", "error"), "failure"),
    Event("disk.low", "warning", "little room on {path}: {free_bytes} bytes", ("path", "free_bytes"), ("reason",)),
    Event("retention.removed", "info", "{path} removed: {reason}", ("path", "reason"), ("num_bytes",), "success"),
    Event(
        "retention.failed",
        "warning",
        "{path} could not be removed: {error}",
        ("path", "error"),
        ("reason",),
        "failure",
    ),
    Event(
        "status.failed",
        "warning",
        "what users see in {path} is no longer true, it cannot be written: {error}",
        ("path", "error"),
        (),
        "failure",
    ),
    Event("metrics.failed", "warning", "metrics could not be written: {error}", ("error",), ("path",), "failure"),
    # the web page
    Event("web.started", "info", "the web page answers at {url}", ("url",)),
    Event("web.stopped", "info", "the web page has stopped"),
    Event("web.uploaded", "info", "{who} uploaded {path}", ("who", "path"), ("num_bytes",), "success"),
    Event("web.submitted", "info", "{who} submitted job {job}", ("who", "job"), (), "success"),
    Event("web.refused", "warning", "refused to {who}: {reason}", ("who", "reason"), ("path",), "failure"),
    Event("web.swept", "info", "{count} old uploads removed", ("count",), (), "success"),
    Event("web.sweep_failed", "warning", "old uploads could not be removed: {error}", ("error",), (), "failure"),
    Event("web.failed", "error", "the web page failed: {error}", ("error",), ("path",), "failure"),
    # what libraries say, through the standard library's logging
    Event("library.message", "warning", "{reason}", ("reason",), ("error",)),
)

EVENTS: dict[str, Event] = {event.name: event for event in _EVENTS}


def document() -> str:
    """docs/events.md."""
    lines = [
        "# Events",
        "",
        "<!-- Generated from heygemd/ops/events.py; a test keeps it in step. -->",
        "",
        "Every line that the daemon logs is one of these events. On a terminal lines are for people; elsewhere each is",
        "one JSON object with flat keys: [Elastic Common Schema](https://www.elastic.co/docs/reference/ecs) names, and",
        "our own below `heygemd.`. Under systemd `<N>` stands before the line on its way to the journal, so",
        "`journalctl -u heygemd -p warning` works, and `journalctl -u heygemd -o cat | jq` gets pure JSON.",
        "",
        "In every line: `@timestamp` (UTC), `log.level`, `message` (the sentence), `ecs.version`, `event.action` (the",
        "event's name), `service.name`, `service.version`, `process.pid`; `event.outcome` (success, failure, unknown)",
        "where something ended. A line is shorter than 48 KiB: long fields are cut and say so.",
        "",
        "Names are a contract: they are added to, not changed. Required fields are **bold**.",
        "",
        "| `event.action` | Level | Outcome | Sentence | Fields |",
        "|---|---|---|---|---|",
    ]
    for event in _EVENTS:
        fields = [f"**{name}**" for name in event.needs] + list(event.may)
        sentence = event.sentence.replace("{", "*").replace("}", "*")
        lines.append(f"| `{event.name}` | {event.level} | {event.outcome or ''} | {sentence} | {', '.join(fields)} |")
    lines += [
        "",
        "Every event may carry: " + ", ".join(COMMON) + ".",
        "",
        "## Fields",
        "",
        "| Field | Key in the line | Meaning |",
        "|---|---|---|",
    ]
    lines += [f"| {field.name} | `{field.key}` | {field.meaning} |" for field in FIELDS.values()]
    return "\n".join(lines) + "\n"
