"""What people ask for, made into inbox drops: checked first, then put where the daemon finds it."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heygemd.core.options import Options
from heygemd.core.settings import LimitSettings
from heygemd.engines.base import engine_names
from heygemd.files import explained
from heygemd.spool.consent import demands_consent
from heygemd.spool.documents import manifest_stem
from heygemd.spool.layout import Layout
from heygemd.spool.names import fold
from heygemd.spool.places import require_room
from heygemd.spool.submission import put, taken_names
from heygemd.web.identity import User
from heygemd.web.records import Record, Records
from heygemd.web.refusal import Refused
from heygemd.web.uploads import Upload, Uploads

NOT_OFFERED = frozenset({"notify"})  # a webhook is the operators' business
_PRIORITIES = {"later": -20, "first": 20}
"""Beside other jobs of the share. Whoever waits gains a step in each `scheduler.aging_seconds`: none waits for ever."""
_UploadId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Pair(BaseModel):
    """One result: who speaks and what. Without `audio` the order's text is spoken; `face`, in place of the order's
    option of that name, is for one video of several."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    video: _UploadId
    audio: _UploadId | None = None
    face: Annotated[str | None, Field(max_length=60)] = None


class Order(BaseModel):
    """A form as the browser sends it. More than one pair makes a batch."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    pairs: Annotated[list[Pair], Field(min_length=1, max_length=10_000)]
    text: Annotated[str | None, Field(max_length=1_000_000)] = None
    title: Annotated[str | None, Field(max_length=200)] = None
    consent: _UploadId | None = None  # of the people in all its videos
    turn: Literal["later", "first"] | None = None  # None: as the folder's preset says; only admins are first
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """A pair whose files are whole and looked at."""

    video: Upload
    audio: Upload | None
    text: str | None

    @property
    def speech_name(self) -> str | None:
        return None if self.audio is None else self.audio.name


def check_options(given: dict[str, Any]) -> Options:
    """Raises Refused (422)."""
    for key in given:
        if key in NOT_OFFERED or key not in Options.model_fields:
            raise Refused(422, "bad_option", name=str(key)[:60])
    try:
        options = Options.model_validate(given)
    except ValidationError as error:
        raise Refused(422, "bad_option", name=str(error.errors()[0]["loc"][0])[:60]) from None
    if options.engine not in ("auto", *engine_names()):
        raise Refused(422, "bad_option", name="engine")
    return options


@dataclass
class Orders:
    """Blocking; called from threads. One order is put at a time, so that names stay unique."""

    layout: Layout
    uploads: Uploads
    records: Records
    limits: LimitSettings
    max_user_jobs: int
    max_manifest_bytes: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def consent_demanded(self, user: User) -> bool:
        """Whether the folder of this user's jobs, or one above, wants a consent file with each."""
        return demands_consent(self.layout.inbox, _folder_of(user), self.max_manifest_bytes)

    def check(self, user: User, order: Order) -> list[Ready]:
        """Raises Refused."""
        if len(order.pairs) > self.limits.max_batch_items:
            raise Refused(422, "batch_too_long", limit=self.limits.max_batch_items)
        text = order.text if order.text and order.text.strip() else None
        if text is not None and len(text) > self.limits.max_text_characters:
            raise Refused(422, "text_too_long", limit=self.limits.max_text_characters)
        known: dict[str, Upload] = {}
        ready = []
        for pair in order.pairs:
            video = self._usable(user, pair.video, known, ("video", "image"))
            audio = None
            if pair.audio is not None:
                audio = self._usable(user, pair.audio, known, ("audio", "text", "video"))
            if (audio is None) == (text is None):
                raise Refused(422, "no_speech" if audio is None else "two_speeches")
            ready.append(Ready(video, audio, text))
        return ready

    def _usable(self, user: User, upload_id: str, known: dict[str, Upload], kinds: tuple[str, ...]) -> Upload:
        if upload_id in known:
            upload = known[upload_id]
        else:
            upload = known[upload_id] = self.uploads.whole(user.folder, upload_id)
            look = upload.look()
            if look is None:
                raise Refused(409, "not_looked_at", name=upload.name)
            if not look.get("ok"):
                raise Refused(422, "unusable", name=upload.name)
        silent = upload.kind == "video" and "audio" in kinds and not (upload.look() or {}).get("has_audio")
        if upload.kind not in kinds or silent:
            raise Refused(422, "wrong_role", name=upload.name)
        return upload

    def place(self, user: User, order: Order, *, active_jobs: int) -> list[Record]:
        """Put the jobs into the inbox. `active_jobs`: of this user, that wait or run. Raises Refused, HeygemdError."""
        ready = self.check(user, order)
        check_options(order.options)
        options = [_options_of(order, pair) for pair in order.pairs]
        if order.turn == "first" and not user.admin:
            raise Refused(403, "operators_first")
        if active_jobs + len(ready) > self.max_user_jobs:
            raise Refused(429, "too_many_jobs", limit=self.max_user_jobs, active=active_jobs)
        batch = secrets.token_hex(8) if len(ready) > 1 else None
        batch_title = (order.title or "").strip() or _batch_title(ready) if batch else None
        several_videos = len({pair.video.id for pair in ready}) > 1
        consent = None if order.consent is None else self.uploads.whole(user.folder, order.consent)
        if consent is None and self.consent_demanded(user):
            raise Refused(422, "no_consent")
        folder = _folder_of(user)
        placed = []
        with self._lock:
            self.layout.check_share()
            brought = (upload for pair in ready for upload in (pair.video, pair.audio, consent) if upload is not None)
            with explained("the inbox"):
                require_room(self.layout.inbox, sum(upload.size for upload in brought), "the files of these jobs")
            taken = self._taken_names()
            for number, pair in enumerate(ready):
                title = _title(pair, several_videos) if batch else (order.title or "").strip() or _title(pair, False)
                job, _ = put(
                    self.layout,
                    video=pair.video.media,
                    audio=None if pair.audio is None else pair.audio.media,
                    text=pair.text,
                    consent=None if consent is None else consent.media,
                    name=title,
                    folder=folder,
                    priority=_PRIORITIES.get(order.turn or ""),
                    options=options[number],
                    taken=taken,
                    clone=True,
                )
                taken.add(fold(job))
                record = Record(
                    job=job,
                    title=title,
                    video=pair.video.id,
                    video_name=pair.video.name,
                    audio=None if pair.audio is None else pair.audio.id,
                    audio_name=pair.speech_name,
                    text=pair.text,
                    created_seconds=time.time() + number * 1e-6,
                    batch=batch,
                    batch_title=batch_title,
                )
                self.records.add(user.folder, record)
                placed.append(record)
        used = [consent, *(upload for pair in ready for upload in (pair.video, pair.audio))]
        for upload in {upload.id: upload for upload in used if upload is not None}.values():
            self.uploads.use(upload)
        return placed

    def _taken_names(self) -> set[str]:
        """Folded. Other users' drops count too, noticed or not: the daemon would have to rename one of the two."""
        web = self.layout.inbox / "web"
        taken: set[str] = set()
        with explained("the inbox"):
            folders = [path for path in web.iterdir() if path.is_dir()] if web.is_dir() else []
            for folder in folders:
                taken |= {fold(stem) for path in folder.iterdir() if (stem := manifest_stem(path.name))}
        return taken | taken_names(self.layout, web)

    def take_back(self, user: User, job: str) -> bool:
        """Remove a drop that no daemon has noticed yet, its manifest first; False when it is not there any more."""
        folder = self.layout.inbox / _folder_of(user)
        try:
            (folder / f"{job}.job.json").unlink()
        except FileNotFoundError:
            return False
        for role in ("video", "audio", "consent"):
            for path in folder.iterdir():
                if path.name.startswith(f"{job}.{role}."):
                    path.unlink(missing_ok=True)
        self.records.remove(user.folder, job)
        return True


def _options_of(order: Order, pair: Pair) -> dict[str, Any]:
    """What goes into this pair's manifest. Raises Refused (422)."""
    own = {} if pair.face is None else {"face": pair.face}
    return check_options(order.options | own).model_dump(exclude_defaults=True)


def _folder_of(user: User) -> str:
    """Where this user's jobs go, below the inbox."""
    return f"web/{user.folder}"


def _title(pair: Ready, by_video: bool) -> str:
    named = pair.video.name if by_video or pair.audio is None else pair.audio.name
    return PurePath(named).stem or "video"


def _batch_title(ready: list[Ready]) -> str:
    first = ready[0]
    several_videos = len({pair.video.id for pair in ready}) > 1
    one = (first.speech_name or first.video.name) if several_videos else first.video.name
    return f"{PurePath(one).stem} × {len(ready)}"
