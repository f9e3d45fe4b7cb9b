"""What the page itself remembers of a job: its title, its files, its batch. STATE/web/jobs/<user>/<job>.json."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from heygemd.files import explained, write_json

_USER = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True)
class Record:
    """`video`, `audio`: ids of uploads. `batch`: what rows of one batch share."""

    job: str
    title: str
    video: str
    video_name: str
    audio: str | None
    audio_name: str | None
    text: str | None
    created_seconds: float
    batch: str | None = None
    batch_title: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """Beginning of a file's name on the share → the user's name for it."""
        brought = {"video": self.video_name, "audio": self.audio_name}
        return {f"{self.job}.{role}": name for role, name in brought.items() if name}


class Records:
    """Blocking; called from threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "jobs"

    def add(self, user: str, record: Record) -> None:
        with explained("the web page's records"):
            self._of(user).mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(self._of(user) / f"{record.job}.json", asdict(record))

    def all_of(self, user: str) -> list[Record]:
        """The newest first."""
        found = []
        with explained("the web page's records"):
            try:
                paths = list(self._of(user).iterdir())
            except FileNotFoundError:
                return []
            for path in paths:
                if path.suffix == ".json" and not path.name.startswith("."):
                    try:
                        found.append(Record(**json.loads(path.read_bytes())))
                    except FileNotFoundError:
                        continue  # removed meanwhile
        return sorted(found, key=lambda record: (-record.created_seconds, record.job))

    def remove(self, user: str, job: str) -> None:
        with explained("the web page's records"):
            (self._of(user) / f"{job}.json").unlink(missing_ok=True)

    def users(self) -> list[str]:
        try:
            return [path.name for path in self._folder.iterdir()]
        except FileNotFoundError:
            return []

    def _of(self, user: str) -> Path:
        if not _USER.fullmatch(user):
            raise ValueError(f"{user!r} is no user's folder")
        return self._folder / user
