"""A user's own jobs: what the page remembers of them, with what their status files say now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from heygemd.spool.layout import Layout
from heygemd.spool.viewing import FINAL_STATES, read_view
from heygemd.web.board import Board, View
from heygemd.web.identity import User
from heygemd.web.records import Record, Records
from heygemd.web.refusal import Discretion, Refused
from heygemd.web.telling import told
from heygemd.web.uploads import Uploads

SUBMITTED = "submitted"
"""The state of a job whose drop no daemon has noticed yet."""


@dataclass(frozen=True)
class Mine:
    """One job of a user. `record`: None where the page's memory was lost; the job's folder tells whose it is."""

    name: str
    record: Record | None
    view: View | None
    state: str

    @property
    def over(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def id(self) -> str | None:
        return None if self.view is None else self.view.get("job_id")

    @property
    def title(self) -> str:
        return self.name if self.record is None else self.record.title

    @property
    def batch(self) -> str | None:
        return None if self.record is None else self.record.batch


class MyJobs:
    """Blocking; called from threads."""

    def __init__(
        self, layout: Layout, board: Board, records: Records, uploads: Uploads, discretion: Discretion
    ) -> None:
        self._layout = layout
        self._board = board
        self._records = records
        self._uploads = uploads
        self._discretion = discretion

    def all(self, user: User) -> list[Mine]:
        """The newest first. Raises ShareAwayError."""
        folder = f"web/{user.folder}"
        views = {name: view for name, view in self._board.views().items() if view.get("folder") == folder}
        records = self._records.all_of(user.folder)
        known = {record.job for record in records}
        strays = {name: view for name, view in views.items() if name not in known}
        found = []
        for record in records:
            view = views.get(record.job)
            state = str(view["state"]) if view else self._state_without_view(user, record)
            if not state and (renamed := _renamed(record, strays)):
                view = strays.pop(renamed)
                state = str(view["state"])
            if state:
                found.append(Mine(str(view["job"]) if view else record.job, record, view, state))
        rest = sorted(strays.values(), key=lambda view: str(view.get("created")), reverse=True)
        return [*found, *(Mine(str(v["job"]), None, v, str(v["state"])) for v in rest)]

    def _state_without_view(self, user: User, record: Record) -> str:
        """Empty for what is gone altogether."""
        if (self._layout.inbox / "web" / user.folder / f"{record.job}.job.json").exists():
            return SUBMITTED
        return "done" if self.receipt(record.job) is not None else ""

    def one(self, user: User, name: str) -> Mine:
        """Raises Refused (404): of others' jobs nothing is told."""
        for mine in self.all(user):
            if mine.name == name:
                return mine
        raise Refused(404, "no_job")

    def active(self, user: User) -> int:
        """How many wait or run."""
        return sum(not mine.over for mine in self.all(user))

    def receipt(self, job: str) -> dict[str, Any] | None:
        return read_view(self._layout.outbox / job / f"{job}.json")

    def result(self, job: str, *, sheet: bool = False) -> tuple[Path, str]:
        """Folder of the share and the path below it of a job's video, or its contact sheet. Raises Refused (404)."""
        for entry in (self.receipt(job) or {}).get("files") or ():
            name = PurePath(str(entry.get("name", "")))
            if name.stem == job and name.name == str(name) and (name.suffix == ".jpg") == sheet:
                return self._layout.outbox, f"{job}/{name}"
        raise Refused(404, "no_result")

    def finished(self, user: User, batch: str) -> Iterator[tuple[Mine, Path, str]]:
        """The jobs of a batch that have a result, with its place."""
        for mine in reversed(self.all(user)):
            if mine.batch == batch and mine.state == "done":
                yield mine, *self.result(mine.name)

    def public(self, user: User, mine: Mine, language: str) -> dict[str, Any]:
        """What the browser gets; an error in words of `language`."""
        view, record = mine.view or {}, mine.record
        error = view.get("error") if isinstance(view.get("error"), dict) else None
        shown: dict[str, Any] = {
            "job": mine.name,
            "title": mine.title,
            "batch": mine.batch,
            "batch_title": None if record is None else record.batch_title,
            "state": mine.state,
            "percent": 100 if mine.state == "done" else view.get("percent"),
            "stage": view.get("stage") or mine.state,
            "eta_seconds": view.get("eta_seconds"),
            "position": view.get("position"),
            "frames": view.get("frames"),
            "created": view.get("created"),
            "created_seconds": None if record is None else record.created_seconds,
            "video_name": None if record is None else record.video_name,
            "audio_name": None if record is None else record.audio_name,
            "text": None if record is None or record.text is None else record.text[:200],
            "error": None if error is None else self._public_error(error, record, language),
        }
        if record is not None:
            upload = self._uploads.find(user.folder, record.video)
            if upload is not None and upload.whole:
                shown["source"] = {"id": upload.id, "kind": upload.kind, "poster": upload.poster.exists()}
        return shown

    def _public_error(self, error: dict[str, Any], record: Record | None, language: str) -> dict[str, str]:
        names = {} if record is None else record.names
        message = str(error.get("message") or "")
        for stem, name in names.items():  # the drop's names for the user's own
            message = message.replace(stem, name.rpartition(".")[0])
        place = PurePath(str(error.get("path") or "")).name
        values = {
            "video": None if record is None else record.video_name,
            "file": next((name for stem, name in names.items() if place.startswith(f"{stem}.")), None),
        }
        told_error: dict[str, str] = self._discretion.tree(told(language, error | {"message": message}, values))
        return told_error


def _renamed(record: Record, strays: dict[str, View]) -> str | None:
    """Somebody else dropped a job of the same name at the same moment: the daemon gave ours a counter."""
    names = [name for name in strays if re.fullmatch(re.escape(record.job) + r"-\d+", name)]
    return min(names, key=len, default=None)
