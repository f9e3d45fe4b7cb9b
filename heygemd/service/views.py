"""What people read: status files and receipts. Pure: from active jobs to JSON-ready dicts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import heygemd
from heygemd.core.coding import SOFTWARE
from heygemd.core.errors import HeygemdError
from heygemd.core.job import Job, JobState
from heygemd.service.active import ActiveItem, ActiveJob
from heygemd.service.door import ItemOutcome
from heygemd.work.item import Prepared

RECEIPT_VERSION = 1


def iso(seconds: float | None) -> str | None:
    """Unix time → ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def queued(job: Job, position: int, paused_reason: str | None, now: float, held: str | None = None) -> dict[str, Any]:
    """`held`: why its folder has to wait."""
    reason = f"waits as number {position} of the queue" + (f"; {held}" if held else "")
    if paused_reason:
        reason = f"the queue is paused: {paused_reason}"
    return _view(job, job.state, now, percent=0, position=position, reason=reason, next_action="it starts by itself")


def active(
    active: ActiveJob, devices: Sequence[str], paused_reason: str | None, now: float, problem: str | None = None
) -> dict[str, Any]:
    """`problem`: why nothing can render now."""
    job = active.job
    then = "nothing to do"
    reason = f"the queue is paused: {paused_reason}" if paused_reason else _REASONS.get(job.state, "")
    idle = not paused_reason and not devices
    if idle and (problem or active.lacks) and job.state in (JobState.PREPARING, JobState.RENDERING):
        reason = f"it waits: {problem or active.lacks}"
    if active.waits_for and not paused_reason and job.state in (JobState.STAGING, JobState.PUBLISHING):
        reason = f"it waits: {active.waits_for}"
        then = "give the daemon access; it goes on by itself"
    eta = active.eta_seconds(now)
    frames = sum(item.prepared.num_frames for item in active.items if item.prepared is not None)
    return _view(
        job,
        job.state,
        now,
        percent=round(100 * active.fraction, 1),
        eta_seconds=None if eta is None else round(eta, 1),
        stage=active.stage_text,
        frames=frames,
        devices=list(devices),
        items=[{"name": i.item.name, "percent": round(100 * i.fraction, 1)} for i in active.items],
        reason=reason,
        next_action=then,
    )


def final(job: Job) -> dict[str, Any]:
    where = {
        JobState.DONE: (f"outbox/{job.name}/", "take the video; the inputs are in archive/"),
        JobState.FAILED: (f"failed/{job.name}/", f"read error.json, then `heygemd retry {job.name}`"),
        JobState.CANCELLED: (f"failed/{job.name}/", f"`heygemd retry {job.name}` starts it again"),
    }[job.state]
    reason = job.error["message"] if job.error else "done"
    percent = 100 if job.state is JobState.DONE else None
    return _view(
        job,
        job.state,
        job.ended_seconds or 0.0,
        percent=percent,
        reason=reason,
        where=where[0],
        next_action=where[1],
        error=job.error,
    )


def outcome(item: ActiveItem, job_error: HeygemdError | None) -> ItemOutcome:
    """How an item ended: by itself, or with its job."""
    if item.error is not None or item.result is None or item.prepared is None:
        error = item.error or job_error or HeygemdError(f"{item.item.name} ended without a result")
        return ItemOutcome(item.item, None, None, _error_receipt(item, error), error, item.folder.log)
    return ItemOutcome(
        item.item,
        item.folder.result / "video.mp4",
        item.folder.result / "sheet.jpg",
        _item_receipt(item, item.prepared, item.result),
        None,
        item.folder.log,
    )


def job_receipt(job: Job, outcomes: Sequence[ItemOutcome], now: float) -> dict[str, Any]:
    """What stands in <job>.json: enough to know what was made, from what, how, and how long it took."""
    failed = sum(1 for o in outcomes if o.error is not None)
    return {
        "version": RECEIPT_VERSION,
        "job": job.name,
        "job_id": job.id,
        "state": "failed" if failed else "done",
        "heygemd": heygemd.__version__,
        "synthetic": "The mouth in this video was made by AI from the recording.",
        "created": iso(job.created_seconds),
        "started": iso(job.started_seconds),
        "ended": iso(now),
        "seconds": round(now - (job.started_seconds or now), 3),
        "options": job.options.model_dump(exclude_defaults=True),
        "inputs": [{"path": f.path, "role": f.role, "size_bytes": f.size} for f in job.inputs],
        "items": [dict(o.receipt) for o in outcomes],
    }


def _item_receipt(item: ActiveItem, prepared: Prepared, result: dict[str, Any]) -> dict[str, Any]:
    video, plan = prepared.video, item.plan
    # a plan that began again has other numbers, and the figures of what was given up are not the result's
    stats = [s for number, s in item.segment_stats.items() if plan is None or plan.has(number)]
    stages: dict[str, float] = dict(prepared.seconds)
    for segment in stats:
        for stage, seconds in segment["seconds"].items():
            stages[stage] = round(stages.get(stage, 0.0) + seconds, 3)
    return {
        "name": item.item.name,
        "outcome": "done",
        "video": {
            "frames": prepared.num_frames,
            "fps": f"{video.fps.numerator}/{video.fps.denominator}",
            "width": video.width,
            "height": video.height,
            "pix_fmt": video.pix_fmt,
            "duration_seconds": round(float(prepared.num_frames / video.fps), 3),
            "size_bytes": result["size_bytes"],
            "sha256": result["sha256"],
        },
        "provenance": result.get("provenance"),
        "speech_seconds": round(prepared.speech_seconds, 3),
        "engine": prepared.engine,
        "engine_reason": prepared.engine_reason,
        "checkpoint": prepared.checkpoint,
        "analysis": dict(prepared.summary),
        "frames_passed_through": sum(s["passed_frames"] for s in stats),
        "segments": len(item.plan.segments) if item.plan else 0,
        "device": "+".join(sorted({s["device"] for s in stats if s.get("device")})),
        "batch": item.plan.batch if item.plan else None,
        # segments that an older version rendered do not say it
        "precision": "+".join(sorted({s["precision"] for s in stats if s.get("precision")}))
        or (plan.precision if plan else None),
        "precision_why": next((s["precision_why"] for s in stats if s.get("precision_why")), ""),
        "frames_remade": sum(s.get("remade_frames", 0) for s in stats),
        **(plan.coding if plan else prepared.coding).to_dict(),
        "decoder": "+".join(sorted({s.get("decoder", SOFTWARE) for s in stats})) or SOFTWARE,
        "peak_mib": max((s["peak_bytes"] // 2**20 for s in stats if "peak_bytes" in s), default=None),
        "stage_seconds": stages,
        "notes": list(video.notes) + list(prepared.audio.notes),
        "source": video.to_dict(),
    }


def _error_receipt(item: ActiveItem, error: HeygemdError) -> dict[str, Any]:
    return {"name": item.item.name, "outcome": "failed", "error": error.to_dict()}


_REASONS = {
    JobState.STAGING: "its files are being copied and checked",
    JobState.PREPARING: "the face is being followed and the speech listened to",
    JobState.RENDERING: "frames are being made",
    JobState.FINISHING: "segments are being joined and checked",
    JobState.PUBLISHING: "the result is on its way to the outbox",
}


def _view(job: Job, state: JobState, now: float, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "job": job.name,
        "job_id": job.id,
        "state": state.value,
        "updated": iso(now),
        "created": iso(job.created_seconds),
        "folder": job.folder,
        "priority": job.priority,
        **more,
    }
