"""`heygemd serve` from its first line to its exit code: signals, figures, the share, the lock, then the loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import heygemd
from heygemd.config import Settings
from heygemd.core.errors import DiskFullError, ShareAwayError
from heygemd.ops import systemd
from heygemd.ops.exposition import exposed
from heygemd.ops.logs import get_logger, log_event
from heygemd.service.daemon import Daemon, Reload
from heygemd.service.pulse import Watchdog
from heygemd.service.signals import Signals
from heygemd.service.standby import in_turn
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.lock import daemon_lock, refuse_a_second

_SHARE_RETRY_SECONDS = 5.0


def serve(settings: Settings, *, once: bool, reload: Reload | None = None) -> int:
    """Run the daemon until a signal ends it, or until the inbox is drained. The exit code: 0, 1, or 75 for `--once`
    when the share is away. Raises HeygemdError when it cannot even start."""
    log = partial(log_event, get_logger())
    layout = Layout(settings.root.absolute(), settings.state.absolute())
    refuse_a_second(layout.lock)  # before it is told that the other one's port is taken
    started = time.monotonic()
    stop = Signals()
    watchdog = Watchdog(log)
    with stop.caught(), exposed(settings.metrics, log) as figures:
        log("daemon.started", version=heygemd.__version__, root=str(layout.root), state=str(layout.state))
        figures.follow("heygemd_watchdog_ping_timestamp_seconds", lambda: watchdog.fed_seconds)
        figures.set("heygemd_degraded", 1)
        if _reach_share(layout, stop, log, once, watchdog):
            figures.set("heygemd_degraded", 0)
            with daemon_lock(layout.lock) as lock, Journal(layout.journal) as journal:
                parts = (settings, layout, journal, stop, log, reload, watchdog, figures)
                make = partial(Daemon, *parts, notice=lock.tell)
                feed = partial(watchdog.feed, 0.0, 0.0)
                code = in_turn(layout, settings.service.takeover_seconds, journal, stop, log, make, once, feed)
        else:  # who stops a daemon that waits for its share gets what he asked for: systemd would call 75 a failure
            code = ShareAwayError.exit_code if stop.reason is None else 0
    log("daemon.stopped", duration_seconds=round(time.monotonic() - started, 1), exit_code=code)
    return code


def _reach_share(layout: Layout, stop: Signals, log: Callable[..., None], once: bool, watchdog: Watchdog) -> bool:
    """Wait until the share is there. A share outage is a state, not an exit; only `--once` gives up."""
    degraded = False
    while stop.reason is None:
        try:
            layout.ensure()
        except (ShareAwayError, DiskFullError) as error:
            if not degraded:
                log("daemon.degraded", reason=error.message, error=error)
                systemd.status(f"degraded: {error.message}")
                degraded = True
            if once:
                return False
            watchdog.feed(0.0, 0.0)
            stop.woken.wait(_SHARE_RETRY_SECONDS)
        else:
            if degraded:
                log("daemon.recovered", reason="share and state can be used again")
            return True
    return False
