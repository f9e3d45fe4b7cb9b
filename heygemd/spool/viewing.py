"""What the status files tell, read by whoever shows it: commands and the web page. Nothing here writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heygemd.core.errors import HeygemdError, ShareAwayError
from heygemd.files import explained, open_regular
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.lock import daemon_notice, daemon_pid

FINAL_STATES = ("done", "failed", "cancelled")
_MAX_BYTES = 1_000_000


def read_view(path: Path) -> dict[str, Any] | None:
    """A JSON object of ours, or None where there is none (yet)."""
    try:
        with open_regular(path) as file:
            tree = json.loads(file.read(_MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None


def all_views(layout: Layout) -> list[dict[str, Any]]:
    """Every status file: what is being done, what waits in its order, then what ended, the newest first.

    Raises ShareAwayError where the share has no status folder.
    """
    if not layout.status.is_dir():
        raise ShareAwayError(
            f"{layout.status}: there is no such folder",
            remedy="Is the share mounted, and has a daemon run there? --root DIR names another.",
            path=str(layout.status),
        )
    with explained("status folder"):
        found = [read_view(path) for path in layout.status.glob("*.json") if not path.name.startswith(".")]
    return in_order([view for view in found if view and "job" in view and "state" in view])


def in_order(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Unfinished ones by their place in the queue, then the ended, the newest first."""
    unfinished = [view for view in views if view["state"] not in FINAL_STATES]
    ended = [view for view in views if view["state"] in FINAL_STATES]
    unfinished.sort(key=lambda view: (view.get("position") or 0, str(view.get("created")), view["job"]))
    ended.sort(key=lambda view: str(view.get("updated")), reverse=True)
    return unfinished + ended


def daemon_state(layout: Layout) -> dict[str, Any]:
    """Whether a daemon runs with this state folder. `running` is None where we may not look."""
    try:
        pid = daemon_pid(layout.lock)
    except OSError:
        return {"running": None, "pid": None}
    return {"running": pid is not None, "pid": pid}


def pause_asked_for(layout: Layout) -> str | None:
    """How somebody asked for the queue to pause, as far as one may see; None where nobody did."""
    if layout.pause_file.exists():
        return f"a file {layout.pause_file.name} lies on the share"
    try:
        if not layout.journal.exists():
            return None
        with Journal(layout.journal, readonly=True) as journal:
            return "by `heygemd pause`" if journal.setting("paused") else None
    except (HeygemdError, OSError):
        return None  # an ordinary user may not read the state folder; the status files say it as well


def paused(layout: Layout) -> str | None:
    """Why the queue is paused, as far as one may see; None when it is not."""
    try:
        return pause_asked_for(layout) or daemon_notice(layout.lock)
    except OSError:
        return None  # as above
