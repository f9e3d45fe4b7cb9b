"""Files that people brought: on the share's own filesystem beside the inbox, never in it, until a job is made of them.

ROOT/.heygemd-web/uploads/<user>/<id>/
    info.json        name, kind, size; its time is the upload's last use
    media.part       what has come so far: its length is the offset, whatever crashed
    media.<suffix>   the whole file
    look.json        what it holds (heygemd.web.look), poster.jpg a frame of it

Blocking; called from threads. Only ids that `new_id` could have made reach the disk.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.settings import LimitSettings, WebSettings
from heygemd.files import TEMP_PREFIX, explained, publish_file, remove_tree, write_json
from heygemd.ops.retention import free_bytes
from heygemd.spool.ignore import KINDS
from heygemd.spool.layout import Layout
from heygemd.spool.names import cut_bytes, nfc, shown
from heygemd.spool.viewing import read_view
from heygemd.web.refusal import Refused

FOLDER = ".heygemd-web"
PART = "media.part"
INFO = "info.json"
LOOK = "look.json"
POSTER = "poster.jpg"
DOCUMENT = "document"
ACCEPTED = KINDS | dict.fromkeys((".pdf", ".docx", ".odt"), DOCUMENT)
"""Suffix → kind: what a job is made of, and papers that show consent."""
_ID = re.compile(r"[0-9a-f]{32}")
_MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class Upload:
    """`kind`: video, image, audio, text or document, by its suffix. `used_seconds`: Unix time of its last use."""

    id: str
    name: str
    kind: str
    size: int
    created_seconds: float
    used_seconds: float
    folder: Path

    @property
    def part(self) -> Path:
        return self.folder / PART

    @property
    def media(self) -> Path:
        """The whole file's place."""
        return self.folder / f"media{Path(self.name).suffix.lower()}"

    @property
    def whole(self) -> bool:
        return self.media.is_file()

    @property
    def offset(self) -> int:
        """Bytes that are here."""
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return self.size if self.whole else 0

    @property
    def poster(self) -> Path:
        return self.folder / POSTER

    def look(self) -> dict[str, Any] | None:
        """What is in it; None until somebody has looked."""
        return read_view(self.folder / LOOK)


class Uploads:
    """`users` are the folders of heygemd.web.identity.User."""

    def __init__(self, layout: Layout, settings: WebSettings, limits: LimitSettings, min_free_bytes: int) -> None:
        self._layout = layout
        self._settings = settings
        self._limits = limits
        self._min_free_bytes = min_free_bytes
        self.root = layout.root / FOLDER / "uploads"

    @property
    def max_bytes(self) -> int:
        """Of one file."""
        return min(self._settings.max_upload_bytes, self._limits.max_file_bytes)

    def create(self, user: str, name: str, size: int) -> Upload:
        """Make room for a file. Raises Refused (413, 415, 507, 503), HeygemdError."""
        name = safe_display(name)
        kind = ACCEPTED.get(Path(name).suffix.lower())
        if kind is None:
            raise Refused(415, "wrong_kind", name=shown(name, 100))
        if size < 1:
            raise Refused(422, "empty_file", name=shown(name, 100))
        if size > self.max_bytes:
            raise Refused(413, "too_large", name=shown(name, 100), limit_bytes=self.max_bytes)
        self._layout.check_share()
        with explained("the uploads"):
            self._require_room(user, size)
            upload_id = secrets.token_hex(16)
            folder = self.root / user / upload_id
            folder.mkdir(parents=True)
            now = time.time()
            (folder / PART).touch()
            write_json(folder / INFO, {"name": name, "kind": kind, "size": size, "created_seconds": now})
        return Upload(upload_id, name, kind, size, now, now, folder)

    def _require_room(self, user: str, size: int) -> None:
        mine = self.all_of(user)
        if not mine and len(self.users()) >= self._settings.max_sessions:
            raise Refused(503, "too_many_sessions")
        if len(mine) >= self._settings.max_user_files:
            raise Refused(507, "too_many_files", limit=self._settings.max_user_files)
        held = sum(upload.size for upload in mine)
        if held + size > self._settings.max_user_bytes:
            raise Refused(507, "user_full", limit_bytes=self._settings.max_user_bytes, held_bytes=held)
        # What other unfinished uploads will still bring is spoken for.
        pending = sum(upload.size - upload.offset for other in self.users() for upload in self.all_of(other))
        if free_bytes(self._layout.root) - pending - size < self._min_free_bytes:
            raise Refused(507, "disk_full")

    def get(self, user: str, upload_id: str) -> Upload:
        """Raises Refused (404): of others' files nothing is told, not even that they are there."""
        upload = self.find(user, upload_id)
        if upload is None:
            raise Refused(404, "no_file")
        return upload

    def find(self, user: str, upload_id: str) -> Upload | None:
        return self._read(user, upload_id) if _ID.fullmatch(upload_id) else None

    def whole(self, user: str, upload_id: str) -> Upload:
        """The same for one that is complete. Raises Refused (404, 409)."""
        upload = self.get(user, upload_id)
        if not upload.whole:
            raise Refused(409, "unfinished", name=shown(upload.name, 100))
        return upload

    def all_of(self, user: str) -> list[Upload]:
        """The newest first."""
        try:
            names = [path.name for path in (self.root / user).iterdir()]
        except FileNotFoundError:
            return []
        found = [upload for name in names if _ID.fullmatch(name) and (upload := self._read(user, name))]
        return sorted(found, key=lambda upload: -upload.created_seconds)

    def users(self) -> list[str]:
        """Who keeps files here."""
        try:
            return [path.name for path in self.root.iterdir() if path.is_dir()]
        except FileNotFoundError:
            return []

    def finish(self, upload: Upload) -> None:
        """Every byte is here: give the file its name."""
        with explained("the uploads"):
            publish_file(upload.part, upload.media, replace=True)

    def use(self, upload: Upload) -> None:
        """Keep it for another `web.upload_days`."""
        with explained("the uploads"):
            os.utime(upload.folder / INFO)

    def remove(self, upload: Upload) -> None:
        with explained("the uploads"):
            hidden = upload.folder.with_name(f"{TEMP_PREFIX}{upload.id}.gone")
            upload.folder.rename(hidden)  # gone at once, whatever stops the removal
            remove_tree(hidden)

    def sweep(self, now_seconds: float) -> int:
        """Remove what nobody used for `web.upload_days`, and remnants; how many uploads."""
        count = 0
        self._layout.check_share()
        with explained("the uploads"):
            for user in self.users():
                for upload in self.all_of(user):
                    if now_seconds - upload.used_seconds > self._settings.upload_days * 86400:
                        self.remove(upload)
                        count += 1
                for path in self._remnants(user, now_seconds):
                    remove_tree(path)
                if not any((self.root / user).iterdir()):
                    (self.root / user).rmdir()
        return count

    def _remnants(self, user: str, now_seconds: float) -> Iterator[Path]:
        """Half-removed uploads, and folders that a crash left without their description."""
        for path in (self.root / user).iterdir():
            nameless = _ID.fullmatch(path.name) and not (path / INFO).exists()
            if path.name.startswith(TEMP_PREFIX) or (nameless and now_seconds - path.stat().st_mtime > 3600):
                yield path

    def _read(self, user: str, upload_id: str) -> Upload | None:
        folder = self.root / user / upload_id
        try:
            info = json.loads((folder / INFO).read_bytes())
            used = (folder / INFO).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return Upload(upload_id, info["name"], info["kind"], info["size"], info["created_seconds"], used, folder)


def safe_display(name: str) -> str:
    """The last part of a name that a browser sent, on one line and not too long; its suffix survives."""
    last = nfc(re.split(r"[/\\]", name)[-1]).strip()
    last = "".join(c for c in last if c.isprintable() or c in "\u200c\u200d")
    stem, dot, suffix = last.rpartition(".")
    if not dot:
        return cut_bytes(last, _MAX_NAME_BYTES)
    return f"{cut_bytes(stem, _MAX_NAME_BYTES - len(suffix.encode()) - 1)}.{suffix}" if len(suffix) < 20 else ""
