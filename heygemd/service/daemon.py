"""The loop: scan → claim → dispatch, for months. It never touches the share and never sleeps long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from heygemd.config import Settings
from heygemd.core.errors import DiskFullError, HeygemdError, InputBusyError, ShareAwayError
from heygemd.core.job import JobState
from heygemd.ops import systemd
from heygemd.ops.exposition import Figures
from heygemd.service.calls import Calls
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.housekeeping import Housekeeping
from heygemd.service.intake import Intake, settled
from heygemd.service.notify import Notifier
from heygemd.service.pulse import Watchdog
from heygemd.service.reload import change
from heygemd.service.setup import make_calibration, make_rig, task_settings
from heygemd.service.share_door import ShareDoor
from heygemd.service.signals import Signals
from heygemd.service.standby import Ownership
from heygemd.service.telemetry import Telemetry
from heygemd.spool.drops import Scan
from heygemd.spool.inbox import Inbox
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.staging import sweep_parts, sweep_work
from heygemd.spool.watch import Watch

_PAUSE_SECONDS = 5.0
_REQUESTS_SECONDS = 0.5
_SILENT_SECONDS = 20.0  # a scan that takes longer, and as long as many scans should take: the share hangs
_PAUSE_FILE = "a PAUSE file lies on the share"

Reload = Callable[[], Settings]
"""Reads the configuration again. Raises ConfigError."""


class Daemon:
    """The loop and its parts. One thread; `run` returns the exit code."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        journal: Journal,
        stop: Signals,
        log: Callable[..., None],
        reload: Reload | None,
        watchdog: Watchdog,
        figures: Figures,
        ownership: Ownership | None,
        *,
        notice: Callable[[str | None], None],
    ) -> None:
        """`notice`: gets the reason while nothing new starts, for `heygemd status`, and None when it has gone."""
        self._settings = settings
        self._layout = layout
        self._journal = journal
        self._stop = stop
        self._log = log
        self._reload = reload
        self._ownership = ownership
        self._watchdog = watchdog
        self._notice = notice
        self._calls = Calls()
        rig = make_rig(settings, layout.root, log)
        self._device_names = rig.names
        self._device_watch = rig.watch
        calibration = make_calibration(layout.state)
        if calibration.dropped_reason is not None:
            log("library.message", reason=f"the calibration is not used: {calibration.dropped_reason}")
        self._dispatcher = Dispatcher(
            journal=journal,
            executor=rig.executor,
            door=ShareDoor(
                layout,
                reserve_bytes=settings.service.min_free_state_bytes,
                max_work_bytes=settings.service.max_work_bytes,
                fence=_free if ownership is None else ownership.fence,
            ),
            devices=rig.devices,
            host=rig.host,
            settings=task_settings(settings),
            work=layout.work,
            log=log,
            status_seconds=settings.service.status_seconds,
            calibration=calibration,
            watch=self._device_watch,
        )
        self._intake = Intake(journal, self._dispatcher, layout, self._calls, log, ownership=ownership)
        self._notifier = Notifier(settings.service.notify_hosts, log)
        self._housekeeping = Housekeeping(settings, layout, journal, self._calls, log)
        self._inbox = Inbox(layout, settings.inbox, settings.limits)
        self._telemetry = Telemetry(figures, layout, self._calls, log)
        self._hint = threading.Event()
        self._watch = Watch(layout.inbox, self._hint.set, wanted=settings.inbox.watch)
        self._next_scan_seconds = 0.0  # monotonic
        self._scan_since = 0.0
        self._next_requests_seconds = 0.0
        self._last_scan: Scan | None = None
        self._ended_jobs = 0
        self._scan_after_jobs = -1  # jobs that had ended when the last complete scan began
        self._degraded: str | None = None
        self._failed_jobs = 0
        self._ready = False
        self._greets = True

    def run(self, once: bool) -> int:
        self._greets = not once  # nobody waits to hear that it is ready
        unfinished = self._intake.resume()
        sweep_work(self._layout, unfinished)
        sweep_parts(self._layout.state)
        if self._journal.setting("paused"):
            self._dispatcher.pauses.pause("`heygemd pause` was called", cause="operator")
        self._device_watch.start()
        self._housekeeping.begin()
        self._watch.start()
        self._log("watch.started", path=str(self._layout.inbox), reason=self._watch.problem or self._watch.mode)
        while self._stop.reason is None and not (once and self._drained()):
            if self._ownership is not None:
                self._ownership.turn()
            self._round(once)
            self._notice(self._degraded or self._dispatcher.pauses.reason)
        return self._finish(once)

    def close(self) -> None:
        self._watch.stop()
        self._notifier.close()
        self._telemetry.close()
        self._calls.close()
        self._dispatcher.close()

    # ---- one round ----

    def _round(self, once: bool) -> None:
        """A full or absent disk is a reason to wait, never to end: what failed is due again in the next round."""
        try:
            self._step()
        except (DiskFullError, ShareAwayError, InputBusyError) as error:
            self._dispatcher.pauses.pause_for(error, _PAUSE_SECONDS)
        timeout_seconds = self._settings.scheduler.heartbeat_timeout_seconds
        self._watchdog.feed(self._dispatcher.pulse.silent_seconds, timeout_seconds)
        systemd.status(self._status())

    def _step(self) -> None:
        self._dispatcher.step()
        self._calls.collect()
        now = time.monotonic()
        if self._hint.is_set() or now >= self._next_scan_seconds:
            self._scan(now)
        if now >= self._next_requests_seconds:
            self._next_requests_seconds = now + _REQUESTS_SECONDS
            self._intake.serve_requests()
            self._housekeeping.step(now, self._dispatcher)
            self._become_ready()
            self._tell_figures(now)
            if self._watch.check():
                self._log("watch.restarted", path=str(self._layout.inbox), reason="its thread had died")
        if self._stop.reload:
            self._stop.reload = False
            self._stop.woken.clear()
            self._reload_settings()
        if self._dispatcher.ended:
            self._end_jobs()
            self._next_scan_seconds = 0.0  # room in the queue; and `--once` wants to know whether that was all

    def _end_jobs(self) -> None:
        for job in self._dispatcher.ended:
            self._ended_jobs += 1
            self._failed_jobs += job.state is JobState.FAILED
            self._notifier.tell(job)
            self._intake.let_go(job)
        self._dispatcher.ended.clear()

    def _scan(self, now: float) -> None:
        if self._calls.running("scan"):
            self._listen_for_scan(now)
            return
        claimed, pending = self._journal.claimed_identities(), self._dispatcher.pending_by_folder()
        handle = partial(self._scanned, self._ended_jobs)
        if self._calls.start("scan", partial(self._inbox.scan, claimed, pending), handle):
            self._hint.clear()
            self._scan_since = now
            self._next_scan_seconds = now + self._settings.inbox.scan_seconds

    def _listen_for_scan(self, now: float) -> None:
        """A mount whose server is dead answers nothing at all: the thread waits for ever, and people must know."""
        usual_seconds = 0.0 if self._last_scan is None else self._last_scan.duration_seconds
        most_seconds = max(_SILENT_SECONDS, 12 * self._settings.inbox.scan_seconds, 4 * usual_seconds)
        if now - self._scan_since > most_seconds:
            self._degrade(ShareAwayError(f"{self._layout.inbox} does not answer, for more than {most_seconds:.0f} s"))

    def _scanned(self, ended_jobs: int, scan: Scan | None, error: HeygemdError | None) -> None:
        if error is not None or scan is None:
            self._degrade(error)
            return
        self._recover()
        self._last_scan, self._scan_after_jobs = scan, ended_jobs
        self._log(
            "scan.finished",
            files=scan.num_files,
            waiting=len(scan.waiting),
            ignored=len(scan.ignored),
            duration_seconds=scan.duration_seconds,
        )
        if scan.paused:
            self._dispatcher.pauses.pause(_PAUSE_FILE, cause="file")
        else:
            self._dispatcher.pauses.resume(_PAUSE_FILE)
        self._intake.take(scan)
        if scan.waiting and not settled(scan):
            # Something settles: look again as soon as it can be complete, not only at the next full scan.
            soon = max(0.2, self._settings.inbox.settle_seconds / max(1, self._settings.inbox.settle_scans))
            self._next_scan_seconds = min(self._next_scan_seconds, time.monotonic() + soon)

    def _become_ready(self) -> None:
        """READY once the inbox was seen and a worker answers."""
        answers = not self._greets or self._dispatcher.pulse.answers()
        if not self._ready and answers and self._last_scan is not None:
            self._ready = True
            self._log("daemon.ready", devices=self._device_names, queued=self._dispatcher.counts["queued"])
            systemd.ready()

    def _tell_figures(self, now: float) -> None:
        self._telemetry.step(
            now,
            self._dispatcher,
            ready=self._ready,
            degraded=self._degraded is not None,
            scanned_seconds=self._last_scan.at_seconds if self._last_scan is not None else None,
            room=self._housekeeping.room,
        )

    def _degrade(self, error: HeygemdError | None) -> None:
        reason = error.message if error is not None else "the inbox could not be scanned"
        if self._degraded != reason:
            self._degraded = reason
            self._log("daemon.degraded", reason=reason, error=error)
        if isinstance(error, ShareAwayError):
            self._dispatcher.pauses.pause(reason, cause="share", for_seconds=2 * self._settings.inbox.scan_seconds)

    def _recover(self) -> None:
        if self._degraded is not None:
            self._log("daemon.recovered", reason=self._degraded)
            self._degraded = None

    def _reload_settings(self) -> None:
        if self._reload is None:
            return
        systemd.reloading()
        try:
            new = self._reload()
        except HeygemdError as error:
            self._log("config.refused", error=error, path=error.path)
        else:
            made = change(self._settings, new)
            self._settings = made.settings
            self._inbox.configure(new.inbox, new.limits)
            self._dispatcher.settings = task_settings(made.settings)
            self._housekeeping.settings = made.settings
            self._notifier.hosts = new.service.notify_hosts
            self._log("config.reloaded", keys=list(made.keys))
            if made.waiting:
                self._log("config.waiting", reason=", ".join(made.waiting))
        systemd.ready()

    def _status(self) -> str:
        counts = self._dispatcher.counts
        text = f"{counts['active']} in work, {counts['queued']} queued, on {self._device_names}"
        paused = self._dispatcher.pauses.reason
        if self._degraded:
            text = f"degraded: {self._degraded}; {text}"
        elif paused:
            text = f"paused: {paused}; {text}"
        elif self._dispatcher.problem:
            text = f"waiting: {self._dispatcher.problem}; {text}"
        return text

    # ---- the end ----

    def _drained(self) -> bool:
        if self._dispatcher.pauses.reason is not None and self._dispatcher.counts["tasks"] == 0:
            return self._last_scan is not None
        fresh = self._last_scan is not None and self._scan_after_jobs == self._ended_jobs
        return self._dispatcher.idle and fresh and self._last_scan is not None and settled(self._last_scan)

    def _finish(self, once: bool) -> int:
        if self._stop.reason is not None:
            self._log("daemon.stopping", reason=f"signal {self._stop.reason}", signal=self._stop.reason)
            systemd.stopping()
            self._drain()
            return 0
        if once and not self._dispatcher.idle:
            self._log("daemon.stopping", reason=f"paused: {self._dispatcher.pauses.reason}")
            return ShareAwayError.exit_code
        return 1 if self._failed_jobs else 0

    def _drain(self) -> None:
        """Let running segments end, for a while; what is cut off is rendered again after the restart."""
        self._dispatcher.draining = True
        until = time.monotonic() + self._settings.service.drain_seconds
        systemd.extend_timeout(self._settings.service.drain_seconds + 5)
        while self._dispatcher.counts["tasks"] and time.monotonic() < until:
            self._dispatcher.step()
            self._watchdog.feed(0.0, 0.0)  # bounded by drain_seconds


def _free() -> None:
    """Nobody else works on the share."""
