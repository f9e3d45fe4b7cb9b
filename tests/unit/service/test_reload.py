"""A reload: what holds at once, what waits for the next start."""

from __future__ import annotations

from pathlib import Path

from heygemd.config import Settings
from heygemd.core.settings import InboxSettings, SchedulerSettings, ServiceSettings
from heygemd.service.reload import change

OLD = Settings(root=Path("/srv/a"), state=Path("/var/a"))


def test_what_the_parts_were_made_with_waits_and_the_rest_holds_at_once() -> None:
    new = OLD.model_copy(
        update={
            "root": Path("/srv/b"),
            "inbox": InboxSettings(scan_seconds=1.0),
            "scheduler": SchedulerSettings(segment_seconds=5.0, devices=("cpu",), cpu_slots=3, executor="ray"),
            "service": ServiceSettings(takeover_seconds=30.0),
        }
    )
    made = change(OLD, new)
    assert made.keys == ("inbox.scan_seconds", "scheduler.segment_seconds")
    assert made.waiting == (
        "root",
        "scheduler.cpu_slots",
        "scheduler.devices",
        "scheduler.executor",
        "service.takeover_seconds",
    )
    assert made.settings.root == OLD.root
    assert made.settings.scheduler == SchedulerSettings(segment_seconds=5.0)


def test_what_waits_is_told_at_every_reload_until_it_holds() -> None:
    new = OLD.model_copy(update={"scheduler": SchedulerSettings(gpu_memory_fraction=0.5)})
    again = change(change(OLD, new).settings, new)
    assert again.keys == () and again.waiting == ("scheduler.gpu_memory_fraction",)
    assert change(OLD, OLD).waiting == ()
