"""Workers that die by SIGKILL at each transition: the job ends whole, no finished segment is made twice."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.capacity import Device
from heygemd.core.job import JobState
from heygemd.core.settings import InboxSettings, LimitSettings, MediaSettings, SchedulerSettings
from heygemd.failpoints import NAMES, ONCE_VARIABLE
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.share_door import ShareDoor
from heygemd.service.tasks import TaskSettings
from heygemd.spool.inbox import Inbox
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.work.local import LocalExecutor
from tests import media

POINTS = [name for name in NAMES if name.partition(".")[0] in ("worker", "prepare", "render", "finish")]
FASTER = 200
"""The dispatcher's clock against ours: what it waits between two tries passes at once."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_each_transition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "share", tmp_path / "state")
    layout.ensure()
    marks = tmp_path / "marks"
    marks.mkdir()
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=0.3, size=96)
    shutil.copy(clip, layout.inbox / "talk.mp4")
    media.speech(layout.inbox / "talk.wav", "Bob.")
    (drop,) = Inbox(layout, InboxSettings(settle_scans=1, settle_seconds=0), LimitSettings()).scan(frozenset()).ready
    began = time.time()
    events: list[tuple[str, dict[str, Any]]] = []
    # each worker meets one of them and is gone: the next one meets the next
    monkeypatch.setenv("HEYGEMD_FAILPOINT", ",".join(f"{point}=kill" for point in POINTS))
    monkeypatch.setenv(ONCE_VARIABLE, str(marks))
    host = Device("cpu", "cpu", 8 << 30, 8 << 30, slots=1, threads=1)
    with Journal(layout.journal) as journal:
        job = drop.to_job("a" * 20, "talk", time.time())
        journal.add(job)
        dispatcher = Dispatcher(
            journal=journal,
            executor=LocalExecutor(),
            door=ShareDoor(layout, reserve_bytes=0),
            devices=[host],
            host=host,
            settings=TaskSettings(
                SchedulerSettings(segment_seconds=0.4, attempts=1000),
                LimitSettings(),
                MediaSettings(preset="ultrafast"),
                "rewrite",
                tmp_path / "none",
            ),
            work=layout.work,
            log=lambda name, **fields: events.append((name, fields)),
            clock=lambda: began + (time.time() - began) * FASTER,
        )
        try:
            dispatcher.submit(job)
            until = time.monotonic() + 500
            while not dispatcher.idle and time.monotonic() < until:
                dispatcher.step()
        finally:
            dispatcher.close()
        assert {path.name for path in marks.iterdir()} == set(POINTS), "every transition was met"
        assert [one.state for one in journal.jobs()] == [JobState.DONE]
    finished = [fields["segment"] for name, fields in events if name == "segment.finished"]
    assert sorted(finished) == [0, 1]
    done: set[int] = set()
    for name, fields in events:
        if name == "segment.finished":
            done.add(fields["segment"])
        assert not (name == "segment.started" and fields["segment"] in done), "a finished segment was started again"
    (receipt,) = layout.outbox.glob("talk/talk.json")
    assert receipt.read_text().count('"outcome": "done"') == 1
    assert not list(layout.work.iterdir())
