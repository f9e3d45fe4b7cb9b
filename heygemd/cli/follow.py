"""Finding one job among the status files, and following it until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from heygemd.cli.common import did_you_mean
from heygemd.cli.foreground import Bar
from heygemd.core.errors import CancelledError, HeygemdError, TryLaterError, UsageError
from heygemd.spool.layout import Layout
from heygemd.spool.viewing import FINAL_STATES, all_views, read_view


def find_view(layout: Layout, job: str) -> dict[str, Any]:
    """The status of a job by name or id. Raises UsageError with what is alike."""
    views = all_views(layout)
    for view in views:
        if job in (view["job"], view.get("job_id")):
            return view
    names = [view["job"] for view in views]
    hint = did_you_mean(job, names) if names else "; there are no jobs"
    raise UsageError(f"there is no job {job}{_short(hint)}", remedy="`heygemd status` lists the jobs.")


def _short(hint: str) -> str:
    """With hundreds of jobs, naming them all helps nobody."""
    return hint if len(hint) < 200 else ""


def follow(
    layout: Layout,
    job: str,
    bar: Bar,
    *,
    timeout_seconds: float | None = None,
    alive: Callable[[], bool] = lambda: True,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until the job has ended; its last status. Raises TryLaterError when the time is over or nobody works.

    `alive` tells whether somebody works; when it turns false, one last look decides.
    """
    until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    while True:
        working = alive()
        view = read_view(layout.status / f"{job}.json")
        if view is None:
            bar.show("waits to be noticed", 0.0, None)
        else:
            if view.get("state") in FINAL_STATES:
                return view
            stage = str(view.get("stage") or view.get("state"))
            bar.show(stage, float(view.get("percent") or 0.0) / 100, view.get("eta_seconds"))
        if not working:
            raise HeygemdError(f"the daemon ended before {job} was done", remedy="Its log says why.")
        if until is not None and time.monotonic() >= until:
            state = view.get("state") if view else "not noticed yet"
            raise TryLaterError(
                f"{job} is not done in time ({state})",
                remedy=f"It goes on by itself; `heygemd status {job}` tells how far it is.",
            )
        sleep(0.3)


def raise_unless_done(view: dict[str, Any]) -> None:
    """Raise the error that the job ended with."""
    if view["state"] == "done":
        return
    error = view.get("error")
    if view["state"] == "cancelled":
        raise CancelledError(f"{view['job']} was cancelled")
    if isinstance(error, dict):
        raise HeygemdError.from_dict(error)
    raise HeygemdError(f"{view['job']} failed: {view.get('reason', 'no reason is given')}")
