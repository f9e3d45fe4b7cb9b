"""Models that stay loaded from one job to the next, in one worker process. Counted by who uses them.

A model that nobody uses stays until another one is wanted, a task fails, or the worker ends: idle workers do so by
themselves (`scheduler.worker_idle_seconds`), or sooner when their memory is needed. Not thread-safe: a worker does one
task at a time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Kept:
    model: Any
    users: int = 0


_kept: dict[tuple[object, ...], _Kept] = {}


def file_key(path: Path) -> tuple[object, ...]:
    """What a file is known by: another one of the same name is another model."""
    info = path.stat()
    return str(path.absolute()), info.st_size, info.st_mtime_ns


def borrow(key: tuple[object, ...], load: Callable[[], T]) -> T:
    """The model of that key, loaded if it is not there; before that, those that nobody uses go. Tell `returned_with`
    who uses it."""
    if key not in _kept:
        drop_unused()
        _kept[key] = _Kept(load())
    model: T = _kept[key].model
    return model


def returned_with(user: object, key: tuple[object, ...]) -> None:
    """The model is in use as long as this object lives."""
    _kept[key].users += 1
    weakref.finalize(user, _give_back, key)


def drop_unused() -> None:
    """Let go of models that nobody uses: their memory is wanted, or they may be broken."""
    for key in [key for key, kept in _kept.items() if kept.users <= 0]:
        del _kept[key]


def loaded() -> int:
    """How many models there are."""
    return len(_kept)


def _give_back(key: tuple[object, ...]) -> None:
    kept = _kept.get(key)
    if kept is not None:
        kept.users -= 1
