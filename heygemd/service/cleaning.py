"""Retention on demand: the plan as it is now, for `heygemd clean` and for the operators' page."""

from __future__ import annotations

import time
from pathlib import Path

from heygemd.config import Settings
from heygemd.core.job import JobState
from heygemd.ops.retention import Kind, Outcome, Plan, execute, free_bytes, plan, survey
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout


def roots(layout: Layout) -> dict[Kind, Path]:
    return {"archive": layout.archive, "failed": layout.failed, "outbox": layout.outbox}


def plan_now(settings: Settings, layout: Layout) -> Plan:
    """What retention would remove. Raises ShareAwayError: what cannot be seen is not old."""
    layout.check_share()
    busy: frozenset[str] = frozenset()
    unfinished = [state for state in JobState if not state.final]
    # What a job that is tried again still needs lies in failed/: without the journal it could not be told.
    if layout.journal.exists():
        with Journal(layout.journal, readonly=True) as journal:
            busy = frozenset(job.id for job in journal.jobs(unfinished))
    folders = [folder for kind, root in roots(layout).items() for folder in survey(root, kind)]
    return plan(folders, settings.retention, now_seconds=time.time(), free_bytes=free_bytes(layout.root), busy=busy)


def clean_now(todo: Plan, layout: Layout) -> Outcome:
    return execute(todo, roots(layout))
