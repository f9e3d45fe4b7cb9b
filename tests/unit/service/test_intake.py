"""What the log says of drops that are no jobs yet: each thing once, as long as it stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heygemd.service.calls import Calls
from heygemd.service.intake import Intake, settled
from heygemd.spool.drops import Ignored, Scan, Waiting, Why
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from tests.unit.service.fakes import Rig


class Desk:
    def __init__(self, folder: Path, journal: Journal) -> None:
        self.rig = Rig(folder / "work")
        self.told: list[tuple[str, str | None]] = []
        layout = Layout(folder / "share", folder / "state")
        self.intake = Intake(journal, self.rig.dispatcher, layout, Calls(), self._log)

    def _log(self, name: str, **fields: Any) -> None:
        self.told.append((name, fields.get("path")))

    def take(self, **found: Any) -> list[tuple[str, str | None]]:
        self.told.clear()
        assert self.intake.take(Scan(**found)) == 0
        return list(self.told)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "work").mkdir()
    with Journal(tmp_path / "journal.sqlite3") as journal:
        made = Desk(tmp_path, journal)
        yield made
        made.rig.dispatcher.close()


def test_an_unreadable_folder_is_told_once_until_it_can_be_read(desk: Desk) -> None:
    locked = (Ignored("sub", "Permission denied"),)
    assert desk.take(unreadable=locked) == [("input.unreadable", "sub")]
    assert desk.take(unreadable=locked) == [], "not at every scan"
    assert desk.take(unreadable=(Ignored("sub", "Input/output error"),)) == [("input.unreadable", "sub")]
    assert desk.take() == []
    assert desk.take(unreadable=locked) == [("input.unreadable", "sub")]


def test_what_may_not_be_read_is_a_warning_and_what_settles_is_nothing(desk: Desk) -> None:
    waits = (
        Waiting("a.mp4", Why.DENIED, 9.0, "a.wav: the daemon may not read it"),
        Waiting("b.mp4", Why.PARTNER, 9.0, "waits for a recording"),
        Waiting("c.mp4", Why.SETTLING, 1.0, "unchanged for 1 of 5 s"),
        Waiting("d.mp4", Why.PRESET, 9.0, ".heygemd.toml: options.qualty: unknown key"),
    )
    expected = [("input.unreadable", "a.mp4"), ("input.waiting", "b.mp4"), ("input.waiting", "d.mp4")]
    assert desk.take(waiting=waits) == expected
    assert desk.take(waiting=waits) == []


def test_an_inbox_with_more_files_than_a_scan_looks_at_is_told_once(desk: Desk) -> None:
    assert desk.take(truncated=True, num_files=200_000) == [("scan.truncated", None)]
    assert desk.take(truncated=True, num_files=200_000) == []
    assert desk.take(num_files=10) == []
    assert desk.take(truncated=True, num_files=200_000) == [("scan.truncated", None)]


@pytest.mark.parametrize(("why", "passes"), [(Why.SETTLING, True), (Why.PRESET, False), (Why.DENIED, False)])
def test_once_waits_only_for_what_passes_by_itself(why: Why, passes: bool) -> None:
    assert settled(Scan(waiting=(Waiting("a.mp4", why, 1.0, "…"),))) is not passes
