"""A configuration that was read anew: what of it is in force at once, and what waits for the next start. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from heygemd.config import Settings

_TABLES = ("root", "state", "metrics", "ray")
_KEYS = {
    "scheduler": (
        "executor",
        "devices",
        "cpu_slots",
        "cpu_memory_mib",
        "gpu_memory_fraction",
        "simulated_gpus_mib",
        "worker_idle_seconds",
        "heartbeat_timeout_seconds",
    ),
    "service": ("takeover_seconds", "status_seconds"),
}
"""What the parts are made with when the daemon starts."""


@dataclass(frozen=True)
class Change:
    """`settings`: in force from now on. `keys`: what has changed in them; `waiting`: what has not, but would after a
    restart."""

    settings: Settings
    keys: tuple[str, ...]
    waiting: tuple[str, ...]


def change(old: Settings, new: Settings) -> Change:
    """From the settings in force to a configuration that was read anew."""
    kept: dict[str, Any] = {name: getattr(old, name) for name in _TABLES}
    for table, keys in _KEYS.items():
        before = getattr(old, table)
        kept[table] = getattr(new, table).model_copy(update={key: getattr(before, key) for key in keys})
    settings = new.model_copy(update=kept)
    return Change(settings, _changed(old, settings), _changed(settings, new))


def _changed(old: Settings, new: Settings) -> tuple[str, ...]:
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return tuple(sorted(key for key in after if before.get(key) != after[key]))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
