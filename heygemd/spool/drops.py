"""What a scan of the inbox finds, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from heygemd.core.errors import HeygemdError
from heygemd.core.job import InputFile, Item, Job
from heygemd.core.options import Options

ClaimKey = tuple[str, int, int]


def claim_key(file: InputFile) -> ClaimKey:
    """What tells a claimed file from a new one of the same name: path, size, mtime.

    Device and inode are left out: a share that is mounted again has another device number, and some network
    filesystems other inodes; every finished job would then be taken for a new one.
    """
    return (file.path, file.size, file.mtime_ns)


@dataclass(frozen=True)
class Drop:
    """A complete job as dropped: settled, paired, its words understood. Not yet claimed.

    `name`: safe, not yet unique. `items` is empty only inside a Refusal.
    """

    name: str
    folder: str
    items: tuple[Item, ...]
    inputs: tuple[InputFile, ...]
    options: Options = field(default_factory=Options)
    priority: int = 0
    batch: bool = False
    manifest: str | None = None

    @property
    def key(self) -> frozenset[ClaimKey]:
        return frozenset(claim_key(file) for file in self.inputs)

    def to_job(self, job_id: str, name: str, now_seconds: float) -> Job:
        """The Job under its unique name. A single result is called as its job is."""
        items = self.items
        if not self.batch and len(items) == 1:
            items = (replace(items[0], name=name),)
        return Job(
            id=job_id,
            name=name,
            folder=self.folder,
            items=items,
            inputs=self.inputs,
            options=self.options,
            priority=self.priority,
            created_seconds=now_seconds,
            batch=self.batch,
            manifest=self.manifest,
        )


class Why(StrEnum):
    """Why something in the inbox is not a job yet."""

    SETTLING = "settling"  # still being written, or not quiet for long enough
    PARTNER = "partner"  # the other half of the pair is not there
    IN_USE = "in use"  # its partner belongs to a job that is not finished
    AMBIGUOUS = "ambiguous"  # more than one file could be the half of the pair
    MISSING = "missing"  # a file that the manifest names is not there
    MANIFEST = "manifest"  # a manifest beside it is still being written
    PRESET = "preset"  # the folder's .heygemd.toml is wrong
    FOLDER_LIMIT = "folder limit"  # too many jobs of this folder wait already
    BUSY = "busy"  # the filesystem says: not now
    DENIED = "denied"  # the daemon may not read it


@dataclass(frozen=True)
class Waiting:
    """A file or group that is not ready. Paths are relative to the inbox; `detail`: one line for people."""

    path: str
    reason: Why
    since_seconds: float  # how long nothing about it changed
    detail: str
    files: tuple[str, ...] = ()  # all that wait together


@dataclass(frozen=True)
class Ignored:
    path: str
    reason: str


@dataclass(frozen=True)
class Refusal:
    """A drop that can never become a job. It gets a job's name all the same, and its files go to failed/."""

    drop: Drop
    error: HeygemdError


@dataclass(frozen=True)
class Scan:
    """The inbox at one moment. `ready` in the order of arrival."""

    ready: tuple[Drop, ...] = ()
    refused: tuple[Refusal, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    unreadable: tuple[Ignored, ...] = ()  # folders that could not be listed this time
    taken_names: frozenset[str] = frozenset()  # folded names of folders in outbox/ and failed/; only when needed
    paused: bool = False  # the PAUSE file is on the share
    truncated: bool = False  # more files or deeper folders than a scan looks at
    num_files: int = 0
    num_claimed: int = 0
    num_bytes: int = 0
    at_seconds: float = 0.0  # Unix time
    duration_seconds: float = 0.0

    def about(self, path: str) -> str | None:
        """What this scan says of a file, in words; None when it was not there or is claimed by a job."""
        for drop in self.ready:
            if any(file.path == path for file in drop.inputs):
                return "complete: it becomes a job now"
        for refusal in self.refused:
            if any(file.path == path for file in refusal.drop.inputs):
                return f"refused: {refusal.error.message}"
        for waiting in self.waiting:
            if path == waiting.path or path in waiting.files:
                return f"waits ({waiting.reason}): {waiting.detail}"
        for what, found in (("ignored", self.ignored), ("cannot be read now", self.unreadable)):
            for one in found:
                if path == one.path or path.startswith(one.path + "/"):
                    return f"{what}: {one.reason}"
        return None
