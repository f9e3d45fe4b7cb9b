"""Where everything lies: the share's folders and the local state."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.errors import HeygemdError, ShareAwayError
from heygemd.files import explained, write_json

SENTINEL = ".heygemd-root"
MARKER = ".heygemd-job"
PAUSE = "PAUSE"
SHARE_FOLDERS = ("inbox", "outbox", "failed", "archive", "status")


@dataclass(frozen=True)
class Layout:
    """`root`: the share. `state`: a local folder that only the daemon writes."""

    root: Path
    state: Path

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @property
    def failed(self) -> Path:
        return self.root / "failed"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def status(self) -> Path:
        return self.root / "status"

    @property
    def figures(self) -> Path:
        """What the daemon counts and measures, for `heygemd status`; hidden, since it is no job's."""
        return self.status / ".figures.json"

    @property
    def sentinel(self) -> Path:
        return self.root / SENTINEL

    @property
    def pause_file(self) -> Path:
        """Whoever makes this file on the share pauses the queue until it is gone."""
        return self.root / PAUSE

    @property
    def journal(self) -> Path:
        return self.state / "journal.sqlite3"

    @property
    def lock(self) -> Path:
        return self.state / "daemon.lock"

    @property
    def control(self) -> Path:
        return self.state / "control"

    @property
    def work(self) -> Path:
        return self.state / "work"

    @property
    def seen(self) -> Path:
        """Remembers which share this state belongs to."""
        return self.state / "share.json"

    def job_work(self, job_id: str) -> Path:
        return self.work / job_id

    def job_inputs(self, job_id: str) -> Path:
        return self.work / job_id / "inputs"

    def item_work(self, job_id: str, index: int) -> Path:
        """Scratch of one item of a job, by its place in `Job.items`."""
        return self.work / job_id / "items" / f"{index:03d}"

    def ensure(self) -> None:
        """Make the folders that are missing. A share that was seen before but lacks its sentinel is taken for away.

        The sentinel tells an empty inbox from a share that is not mounted: without it the daemon would happily make
        new folders below the bare mount point. It is written on the first start only. Raises ShareAwayError.
        """
        with explained("state folder"):
            for folder in (self.state, self.work, self.control):
                folder.mkdir(parents=True, exist_ok=True)
        if self.seen.exists() or os.path.lexists(self.sentinel):
            self.check_share()
        else:
            with explained(f"share {self.root}"):
                self.root.mkdir(parents=True, exist_ok=True)
                write_json(self.sentinel, {"share": secrets.token_hex(8)})
        with explained(f"share {self.root}"):
            for name in SHARE_FOLDERS:
                (self.root / name).mkdir(exist_ok=True)
        with explained("state folder"):
            write_json(self.seen, {"root": str(self.root), "share": self._share_id()})

    def check_share(self) -> None:
        """Raise ShareAwayError unless the share that this state belongs to is there."""
        found = self._share_id()
        try:
            expected = json.loads(self.seen.read_text())["share"]
        except FileNotFoundError:
            return  # a new state meets a known share: it adopts it
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HeygemdError(f"{self.seen}: unreadable ({error})", remedy="Delete it and start again.") from None
        if found != expected:
            raise ShareAwayError(
                f"{self.root} holds another share than before",
                remedy=f"Mount the right share; if this one is meant, delete {self.seen} and start again.",
            )

    def _share_id(self) -> str:
        try:
            return str(json.loads(self.sentinel.read_text())["share"])
        except (FileNotFoundError, NotADirectoryError):
            raise ShareAwayError(
                f"{self.root} is not mounted: {SENTINEL} is missing there",
                remedy=f"Mount the share; if it is mounted and the file was deleted, delete {self.seen} and restart.",
            ) from None
        except OSError as error:
            raise ShareAwayError(f"{self.root}: {os.strerror(error.errno or 0)}") from error
        except (ValueError, KeyError, TypeError):
            raise ShareAwayError(
                f"{self.sentinel} is damaged", remedy=f"Delete it and {self.seen}, then start again."
            ) from None
