"""From the configuration to the parts that daemon and foreground share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from heygemd.config import Settings
from heygemd.gpu.calibration import CalibrationStore, fingerprint
from heygemd.gpu.devices import cards
from heygemd.service.tasks import TaskSettings
from heygemd.work.local import LocalExecutor


def task_settings(settings: Settings) -> TaskSettings:
    return TaskSettings(
        scheduler=settings.scheduler,
        limits=settings.limits,
        media=settings.media,
        default_engine=settings.engines.default,
        checkpoint_dir=settings.checkpoint_dir,
        provenance=settings.provenance,
    )


def make_calibration(state: Path, *, readonly: bool = False) -> CalibrationStore:
    """What was measured on this machine, from STATE/calibration.json; empty where the machine is another one now."""
    models = [f"{card.name} {card.total_bytes} driver {card.driver}" for card in cards()]
    return CalibrationStore(state / "calibration.json", fingerprint(models), readonly=readonly)


def make_executor(settings: Settings, log: Callable[..., None]) -> LocalExecutor:
    return LocalExecutor(
        heartbeat_timeout_seconds=settings.scheduler.heartbeat_timeout_seconds,
        idle_seconds=settings.scheduler.worker_idle_seconds,
        on_event=lambda name, fields: log(name, **fields),
    )
