"""A share in a temporary folder, an inbox with a clock of its own, and jobs made from what lies there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heygemd import failpoints
from heygemd.core.job import Job
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool.drops import ClaimKey, Scan
from heygemd.spool.inbox import Inbox
from heygemd.spool.layout import Layout
from heygemd.spool.names import fold, unique_name


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "share", tmp_path / "state")
    layout.ensure()
    return layout


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    failpoints.arm("")


class Desk:
    """An inbox with a clock that tests turn, and helpers to drop files."""

    def __init__(self, layout: Layout, **settings: object) -> None:
        self.layout = layout
        self.now = 1000.0
        self.claimed: set[ClaimKey] = set()
        self._ids = itertools.count(1)
        self._names: set[str] = set()
        self.inbox = Inbox(
            layout, InboxSettings(**settings), LimitSettings(), clock=lambda: 1e9, monotonic=lambda: self.now
        )

    def put(self, path: str, data: bytes | str = b"x") -> Path:
        target = self.layout.inbox / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data.encode() if isinstance(data, str) else data)
        return target

    def scan(self, after_seconds: float = 0.0) -> Scan:
        self.now += after_seconds
        return self.inbox.scan(frozenset(self.claimed))

    def settled(self) -> Scan:
        """Two scans with enough quiet between them."""
        self.scan()
        return self.scan(10.0)

    def claim(self, scan: Scan) -> list[Job]:
        """Make jobs of all that is ready, as the service does."""
        jobs = []
        for drop in scan.ready:
            name = unique_name(drop.name, self._names | scan.taken_names)
            self._names.add(fold(name))
            self.claimed |= drop.key
            jobs.append(drop.to_job(f"{next(self._ids):032x}", name, 1e9))
        return jobs

    def job(self, stem: str = "lecture", video: bytes = b"video", audio: bytes = b"audio") -> Job:
        """One claimed job from a pair."""
        self.put(f"{stem}.mp4", video)
        self.put(f"{stem}.wav", audio)
        (job,) = self.claim(self.settled())
        return job


@pytest.fixture
def desk(layout: Layout) -> Desk:
    return Desk(layout)


@pytest.fixture
def make_desk(layout: Layout) -> Callable[..., Desk]:
    return lambda **settings: Desk(layout, **settings)


def tree(folder: Path) -> dict[str, bytes]:
    """Every plain file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
