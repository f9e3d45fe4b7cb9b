"""The journal's file: tables, schema version, how it is opened. SQLite, write-ahead log, full sync."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from heygemd.core.errors import ConfigError
from heygemd.core.job import JobState
from heygemd.spool.mounts import fs_type, is_network

SCHEMA = 1

_TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    folded TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    ended REAL,
    claim TEXT NOT NULL,
    held INTEGER NOT NULL DEFAULT 1, -- 0: its files are let go; 1: it holds them; 2: it ended, some could not be moved
    job TEXT NOT NULL
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state);
CREATE UNIQUE INDEX jobs_by_claim ON jobs (claim) WHERE held > 0;
CREATE TABLE claims (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (job_id, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE segments (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    item TEXT NOT NULL,
    number INTEGER NOT NULL,
    plan TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    done TEXT,
    PRIMARY KEY (job_id, item, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


def open_writable(path: Path) -> sqlite3.Connection:
    kind = fs_type(path.parent)
    if is_network(kind):
        raise ConfigError(
            f"{path.parent} is on a network filesystem ({kind}); SQLite loses data there",
            remedy="Give the daemon a state folder on a local disk (--state DIR).",
        )
    db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        if _version(db, path) == 0:
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        _heal(db)
    except BaseException:
        db.close()
        raise
    return _named(db)


def open_readonly(path: Path) -> sqlite3.Connection:
    """Raises ConfigError where no daemon ever ran. Without a WAL beside it, the file is read as it lies."""
    if not path.exists():
        raise ConfigError(f"{path}: no journal there; no daemon has run with this state folder yet")
    immutable = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode=ro{immutable}", uri=True, isolation_level=None, timeout=10.0)
    try:
        if _version(db, path) == 0:
            raise ConfigError(f"{path}: the daemon has not written to it yet")
    except BaseException:
        db.close()
        raise
    return _named(db)


def _named(db: sqlite3.Connection) -> sqlite3.Connection:
    db.row_factory = sqlite3.Row
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, SCHEMA):
        raise ConfigError(
            f"{path}: schema {version}, this heygemd knows {SCHEMA}", remedy="Use the heygemd that made it."
        )
    return version


def _heal(db: sqlite3.Connection) -> None:
    """A daemon that died between a job's last `update` and its `release`: the job ended, so its files were moved."""
    ended = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
    db.execute("BEGIN IMMEDIATE")
    db.execute("DELETE FROM claims WHERE job_id IN (SELECT id FROM jobs WHERE held = 1 AND state IN (?, ?, ?))", ended)
    db.execute("UPDATE jobs SET held = 0 WHERE held = 1 AND state IN (?, ?, ?)", ended)
    db.execute("COMMIT")
