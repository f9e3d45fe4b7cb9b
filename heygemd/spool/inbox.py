"""The inbox: looked at again and again, what is quiet remembered in between. The scan is the truth.

Used from one thread. It never writes, moves or removes anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from heygemd.core.errors import ShareAwayError
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.files import explained
from heygemd.spool.drops import ClaimKey, Ignored, Scan
from heygemd.spool.fairness import Load, within_limits
from heygemd.spool.ignore import Ignore
from heygemd.spool.layout import Layout
from heygemd.spool.listing import list_inbox
from heygemd.spool.names import fold
from heygemd.spool.settle import Settle
from heygemd.spool.sorting import Sorting
from heygemd.spool.wording import Wording


class Inbox:
    """Scans the inbox and remembers, between scans, since when each file is quiet."""

    def __init__(
        self,
        layout: Layout,
        settings: InboxSettings,
        limits: LimitSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._monotonic = monotonic
        self._settle = Settle(settings.settle_scans, settings.settle_seconds)
        self.configure(settings, limits)

    def configure(self, settings: InboxSettings, limits: LimitSettings) -> None:
        """Take new settings (SIGHUP); what is known of the files stays."""
        self._settings = settings
        self._limits = limits
        self._ignore = Ignore(settings.ignore)
        self._settle.require(settings.settle_scans, settings.settle_seconds)
        self._wording = Wording(self._layout.inbox, settings.max_manifest_bytes)

    def scan(self, claimed: Collection[ClaimKey], pending: Mapping[str, Load] | None = None) -> Scan:
        """Look at everything once.

        `claimed`: a snapshot of `Journal.claimed_identities()`, taken after the last scan's drops were added.
        `pending`: folder → what of it waits already. Raises ShareAwayError when the share is not there.
        """
        start = self._monotonic()
        self._layout.check_share()
        with explained(f"inbox {self._layout.inbox}"):
            try:
                listing = list_inbox(self._layout.inbox, self._ignore)
            except FileNotFoundError:
                raise ShareAwayError(f"{self._layout.inbox} is missing", remedy="Make the folder again.") from None
            paused = self._layout.pause_file.exists()
        self._layout.check_share()  # a mount that went away meanwhile looks like an empty folder
        presets = {seen.path: seen for seen in listing.presets.values()}
        self._settle.observe({**listing.files, **presets}, {i.path for i in listing.unreadable}, start)
        found = Sorting(listing, self._settle, self._wording, self._settings, self._limits, claimed)
        found.run()
        found.hold_back(self._layout.inbox)
        fair = within_limits(found.ready, pending or {}, self._settings)
        ready = fair.ready
        found.waiting += fair.waiting
        found.refused += fair.refused
        taken: frozenset[str] = frozenset()
        if ready or found.refused:
            with explained(f"share {self._layout.root}"):
                folders = (self._layout.outbox, self._layout.failed)
                taken = frozenset(fold(path.name) for folder in folders for path in folder.iterdir())
        return Scan(
            ready=tuple(ready),
            refused=tuple(found.refused),
            waiting=tuple(found.waiting),
            ignored=tuple(Ignored(path, why) for path, why in sorted(listing.ignored.items())),
            unreadable=tuple(listing.unreadable),
            taken_names=taken,
            paused=paused,
            truncated=listing.truncated,
            num_files=len(listing.files),
            num_claimed=found.num_claimed,
            num_bytes=sum(seen.size for seen in listing.files.values()),
            at_seconds=self._clock(),
            duration_seconds=self._monotonic() - start,
        )
