"""The ledger: which jobs there are, how far each is, which files of the inbox are claimed. SQLite on a local disk.

One writer: the daemon's main loop. Readers (`heygemd status`, `why`) open it read-only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import DiskFullError, HeygemdError
from heygemd.core.job import Job, JobState
from heygemd.failpoints import failpoint
from heygemd.files import explain
from heygemd.spool.database import open_readonly, open_writable
from heygemd.spool.drops import ClaimKey, claim_key
from heygemd.spool.names import fold


@dataclass(frozen=True)
class SegmentRow:
    """One planned segment of an item. `plan` and `done`: JSON objects of the planner and of the worker."""

    item: str
    number: int
    plan: dict[str, Any]
    attempts: int
    done: dict[str, Any] | None


class Journal:
    """All methods raise DiskFullError when the state disk is full, HeygemdError when the file cannot be used."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Open, and make the tables when new. Raises ConfigError on a network filesystem or for a newer schema."""
        self.path = path
        self._where = f"journal {path}"
        with self._explained():
            self._db = open_readonly(path) if readonly else open_writable(path)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # jobs

    def add(self, job: Job) -> bool:
        """Claim a drop. False, and nothing changed, when the very same files are claimed by a job already."""
        return bool(self.add_all([job]))

    def add_all(self, jobs: Sequence[Job]) -> tuple[Job, ...]:
        """Claim many drops at once, with one sync of the disk: all of them or none. Those that were not claimed yet."""
        added = []
        with self._transaction("journal.add", "journal.added") as db:
            for job in jobs:
                claims = [claim_key(file) for file in job.inputs]
                claim = _claim_text(claims)
                if db.execute("SELECT 1 FROM jobs WHERE claim = ? AND held > 0", (claim,)).fetchone():
                    continue
                times = (job.created_seconds, job.ended_seconds)
                db.execute(
                    "INSERT INTO jobs (id, name, folded, state, created, ended, claim, job) VALUES (?,?,?,?,?,?,?,?)",
                    (job.id, job.name, fold(job.name), job.state, *times, claim, job.to_json()),
                )
                db.executemany("INSERT INTO claims VALUES (?, ?, ?, ?)", [(job.id, *key) for key in claims])
                added.append(job)
        return tuple(added)

    def update(self, job: Job) -> None:
        """Store the job's new value. Its name, items and inputs never change."""
        with self._transaction("journal.update", "journal.updated") as db:
            _store(db, job)

    def get(self, id_or_name: str) -> Job | None:
        """A job by its id, or by its name without regard to case."""
        with self._explained():
            row = self._db.execute(
                "SELECT job FROM jobs WHERE id = ? OR folded = ? ORDER BY id = ? DESC",
                (id_or_name, fold(id_or_name), id_or_name),
            ).fetchone()
        return Job.from_json(row["job"]) if row else None

    def jobs(self, states: Collection[JobState] | None = None, limit: int | None = None) -> tuple[Job, ...]:
        """Jobs in the order of their claim; with `limit`, the newest of them."""
        query, values = "SELECT job FROM jobs", list[Any]()
        if states is not None:
            query += f" WHERE state IN ({','.join('?' * len(states))})"
            values += states
        query += " ORDER BY created DESC, rowid DESC"
        if limit is not None:
            query += " LIMIT ?"
            values.append(limit)
        with self._explained():
            rows = self._db.execute(query, values).fetchall()
        return tuple(Job.from_json(row["job"]) for row in reversed(rows))

    def counts(self) -> dict[JobState, int]:
        """How many jobs stand in each state; states without one are 0."""
        with self._explained():
            rows = self._db.execute("SELECT state, count(*) AS n FROM jobs GROUP BY state").fetchall()
        found = {JobState(row["state"]): int(row["n"]) for row in rows}
        return {state: found.get(state, 0) for state in JobState}

    def names(self) -> frozenset[str]:
        """The folded names of all jobs, for `unique_name`."""
        with self._explained():
            return frozenset(row["folded"] for row in self._db.execute("SELECT folded FROM jobs"))

    def remove(self, job_id: str) -> None:
        """Forget a job, its claims and segments."""
        with self._transaction() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def forget(self, before_seconds: float) -> tuple[str, ...]:
        """Forget final jobs that ended before and hold no files; their names."""
        with self._transaction() as db:
            rows = db.execute(
                "DELETE FROM jobs WHERE held = 0 AND ended < ? AND state IN (?, ?, ?) RETURNING name",
                (before_seconds, JobState.DONE, JobState.FAILED, JobState.CANCELLED),
            ).fetchall()
        return tuple(row["name"] for row in rows)

    # claims

    def claimed_identities(self) -> frozenset[ClaimKey]:
        """What `Inbox.scan` takes as `claimed`: the files of jobs that are unfinished or could not be moved away."""
        with self._explained():
            return frozenset((r["path"], r["size"], r["mtime_ns"]) for r in self._db.execute("SELECT * FROM claims"))

    def still_needed(self, job_id: str) -> frozenset[ClaimKey]:
        """Files that other jobs hold: `archive` and `reject` leave them where they are."""
        with self._explained():
            rows = self._db.execute("SELECT * FROM claims WHERE job_id != ?", (job_id,))
            return frozenset((r["path"], r["size"], r["mtime_ns"]) for r in rows)

    def release(self, job_id: str, except_paths: Collection[str] = ()) -> None:
        """Let a job's files go: the next scan may see them as new. After they were moved away, or it was dropped.

        `except_paths`: `Moved.stuck_paths`; they stay claimed, or the next scan would take them for a new job.
        """
        with self._transaction("journal.release") as db:
            _let_go(db, job_id, except_paths)

    def stuck_jobs(self) -> tuple[Job, ...]:
        """Ended jobs with inputs that could not be moved: `farewell.tidy` tries again, then `finish`."""
        with self._explained():
            rows = self._db.execute("SELECT job FROM jobs WHERE held = 2").fetchall()
        return tuple(Job.from_json(row["job"]) for row in rows)

    def finish(self, job: Job, except_paths: Collection[str] = ()) -> None:
        """`update` and `release` at once: there is no moment at which an ended job holds its files."""
        with self._transaction("journal.release", "journal.updated") as db:
            _store(db, job)
            _let_go(db, job.id, except_paths)

    # segments

    def set_plan(self, job_id: str, item: str, segments: Sequence[Mapping[str, Any]]) -> None:
        """Store an item's segments, by their `number` or else from 0. Those that are as before keep what is done."""
        plans = {int(segment.get("number", n)): _dump(segment) for n, segment in enumerate(segments)}
        with self._transaction("journal.plan") as db:
            rows = db.execute("SELECT number, plan FROM segments WHERE job_id = ? AND item = ?", (job_id, item))
            known = {int(row["number"]): str(row["plan"]) for row in rows.fetchall()}
            db.executemany(
                "DELETE FROM segments WHERE job_id = ? AND item = ? AND number = ?",
                [(job_id, item, number) for number, plan in known.items() if plans.get(number) != plan],
            )
            db.executemany(
                "INSERT INTO segments (job_id, item, number, plan) VALUES (?, ?, ?, ?)",
                [(job_id, item, number, plan) for number, plan in plans.items() if known.get(number) != plan],
            )

    def segments(self, job_id: str, item: str | None = None) -> tuple[SegmentRow, ...]:
        """Planned segments of one item, or of all items, by item and number."""
        query, values = "SELECT * FROM segments WHERE job_id = ?", [job_id]
        if item is not None:
            query += " AND item = ?"
            values.append(item)
        with self._explained():
            rows = self._db.execute(query + " ORDER BY item, number", values).fetchall()
        return tuple(
            SegmentRow(
                row["item"],
                row["number"],
                json.loads(row["plan"]),
                row["attempts"],
                None if row["done"] is None else json.loads(row["done"]),
            )
            for row in rows
        )

    def segment_done(self, job_id: str, item: str, number: int, info: Mapping[str, Any]) -> None:
        """Record a finished, durable segment. Raises HeygemdError when it was never planned."""
        self._one_segment("done = ?", (_dump(info),), (job_id, item, number), "journal.segment")

    def segment_stats(self, job_id: str, item: str) -> dict[int, dict[str, Any]]:
        """What the worker said of each finished segment."""
        return {row.number: row.done for row in self.segments(job_id, item) if row.done is not None}

    def segment_undone(self, job_id: str, item: str, number: int) -> None:
        """The segment's file turned out to be missing or broken."""
        self._one_segment("done = NULL", (), (job_id, item, number))

    def count_attempt(self, job_id: str, item: str, number: int) -> int:
        """Count a try before it starts; how many there are now."""
        self._one_segment("attempts = attempts + 1", (), (job_id, item, number))
        with self._explained():
            row = self._db.execute(
                "SELECT attempts FROM segments WHERE job_id = ? AND item = ? AND number = ?", (job_id, item, number)
            ).fetchone()
        return int(row["attempts"])

    def clear_segments(self, job_id: str) -> None:
        """Forget a job's plans, when its inputs changed or it starts from the beginning."""
        with self._transaction() as db:
            db.execute("DELETE FROM segments WHERE job_id = ?", (job_id,))

    def _one_segment(
        self, change: str, values: Iterable[Any], key: tuple[str, str, int], point: str | None = None
    ) -> None:
        with self._transaction(point) as db:
            query = f"UPDATE segments SET {change} WHERE job_id = ? AND item = ? AND number = ?"  # noqa: S608 - constants
            if db.execute(query, (*values, *key)).rowcount != 1:
                raise HeygemdError(f"{self._where}: no segment {key[2]} of {key[1]} in job {key[0]}")

    # settings

    def setting(self, key: str) -> Any:
        """A value that outlives the daemon (`paused`, …); None where it was never set."""
        with self._explained():
            row = self._db.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return json.loads(row["value"]) if row else None

    def set_setting(self, key: str, value: Any) -> None:
        """None removes it."""
        with self._transaction() as db:
            if value is None:
                db.execute("DELETE FROM settings WHERE key = ?", (key,))
            else:
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, _dump(value)))

    @contextlib.contextmanager
    def _transaction(self, before: str | None = None, after: str | None = None) -> Iterator[sqlite3.Connection]:
        """`before`, `after`: failpoints on the two sides of the commit."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                if before:
                    failpoint(before)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled back already
                    self._db.execute("ROLLBACK")
                raise
            if after:
                failpoint(after)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFullError(f"{self._where}: {error}") from error
            raise HeygemdError(f"{self._where}: {error}") from error
        except OSError as error:
            raise explain(error, self._where) from error


def _store(db: sqlite3.Connection, job: Job) -> None:
    values = (job.state, job.ended_seconds, job.to_json(), job.id)
    if db.execute("UPDATE jobs SET state = ?, ended = ?, job = ? WHERE id = ?", values).rowcount != 1:
        raise HeygemdError(f"the journal has no job {job.id}")


def _let_go(db: sqlite3.Connection, job_id: str, except_paths: Collection[str]) -> None:
    rows = db.execute("SELECT path FROM claims WHERE job_id = ?", (job_id,)).fetchall()
    gone = {row["path"] for row in rows} - set(except_paths)
    db.executemany("DELETE FROM claims WHERE job_id = ? AND path = ?", [(job_id, path) for path in gone])
    db.execute("UPDATE jobs SET held = ? WHERE id = ?", (2 if except_paths else 0, job_id))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _claim_text(claims: Iterable[ClaimKey]) -> str:
    """One text for a set of files, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(set(claims))).encode()).hexdigest()
