"""A card that disappears while real workers render on it, and comes back: the job goes on where there is one."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.capacity import Device
from heygemd.core.job import JobState
from heygemd.core.settings import InboxSettings, LimitSettings, MediaSettings, SchedulerSettings
from heygemd.gpu.devices import MemoryNow
from heygemd.service.dispatcher import Dispatcher
from heygemd.service.share_door import ShareDoor
from heygemd.service.tasks import TaskSettings
from heygemd.spool.inbox import Inbox
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.work.local import LocalExecutor
from tests import media

pytestmark = pytest.mark.slow
CARDS = tuple(Device(f"sim:{number}", "cpu", 2 << 30, 2 << 30, 1) for number in (0, 1))


class Watch:
    """Tells of the cards that the test has left in place."""

    elastic = False
    problem = None
    age_seconds = 0.0
    memory: Mapping[str, MemoryNow] = {}

    def __init__(self) -> None:
        self.here = list(CARDS)
        self._told: list[Device] | None = None

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def moved(
        self, reserved: Mapping[str, int], own_pids: Collection[int]
    ) -> tuple[list[Device], dict[str, str]] | None:
        if self._told == self.here:
            return None
        self._told = list(self.here)
        return self._told, {card.name: "it fell off the bus" for card in CARDS if card not in self.here}


def test_a_lost_cards_segments_are_done_on_the_other_and_it_is_used_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "share", tmp_path / "state")
    layout.ensure()
    shutil.copy(media.moving_portrait(tmp_path / "clip.mp4", seconds=1.0, size=256), layout.inbox / "talk.mp4")
    media.speech(layout.inbox / "talk.wav", "One two three four five six seven eight.")
    (drop,) = Inbox(layout, InboxSettings(settle_scans=1, settle_seconds=0), LimitSettings()).scan(frozenset()).ready
    events: list[tuple[str, dict[str, Any]]] = []
    first: list[int] = []  # the first worker of the second card: it stands still before it is given anything

    def stand_still(name: str, fields: dict[str, object]) -> None:
        if name == "worker.started" and fields["device"] == "sim:1" and not first:
            first.append(int(str(fields["worker"])))
            os.kill(first[0], signal.SIGSTOP)

    watch, executor = Watch(), LocalExecutor(on_event=stand_still)
    with Journal(layout.journal) as journal:
        job = drop.to_job("a" * 20, "talk", time.time())
        journal.add(job)
        dispatcher = Dispatcher(
            journal=journal,
            executor=executor,
            door=ShareDoor(layout, reserve_bytes=0),
            devices=CARDS,
            host=Device("cpu", "cpu", 8 << 30, 8 << 30, slots=1),
            settings=TaskSettings(
                SchedulerSettings(segment_seconds=0.4),
                LimitSettings(),
                MediaSettings(preset="ultrafast"),
                "rewrite",
                layout.state / "checkpoints",
            ),
            work=layout.work,
            log=lambda name, **fields: events.append((name, fields)),
            watch=watch,
        )

        def seen(name: str, device: str) -> int:
            return sum(event == name and fields.get("device") == device for event, fields in events)

        def until(condition: Callable[[], bool]) -> None:
            end = time.monotonic() + 180
            while not condition():
                assert time.monotonic() < end, events[-8:]
                assert not dispatcher.ended, "the job was over before the card came into it"
                dispatcher.step(0.05)

        try:
            dispatcher.submit(job)
            until(lambda: seen("segment.started", "sim:1") > 0)
            watch.here.remove(CARDS[1])
            os.kill(first[0], signal.SIGKILL)  # as a driver that has lost its card ends them
            until(lambda: seen("segment.failed", "sim:1") > 0)
            started = seen("segment.started", "sim:1")
            done = seen("segment.finished", "sim:0")
            until(lambda: seen("segment.finished", "sim:0") >= done + 2)
            assert seen("segment.started", "sim:1") == started, "nothing is placed on a card that is away"
            watch.here.append(CARDS[1])
            until(lambda: seen("segment.started", "sim:1") > started)
            while not dispatcher.ended:
                dispatcher.step(0.05)
        finally:
            dispatcher.close()
    assert [ended.state for ended in dispatcher.ended] == [JobState.DONE]
    told = [fields["reason"] for name, fields in events if name in ("daemon.degraded", "daemon.recovered")]
    assert told == ["sim:1 is away: it fell off the bus", "sim:1 is back"]
    numbers = [fields["segment"] for name, fields in events if name == "segment.finished"]
    assert sorted(numbers) == list(range(len(numbers))), "each segment once"
    video = layout.root / "outbox/talk/talk.mp4"
    assert int(media.probe(video)["nb_read_frames"]) == sum(
        fields["frames"] for name, fields in events if name == "segment.finished"
    )
