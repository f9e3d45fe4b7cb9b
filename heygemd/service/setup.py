"""From the configuration to the parts that daemon and foreground share."""

from __future__ import annotations

from collections.abc import Callable

from heygemd.config import Settings
from heygemd.service.tasks import TaskSettings
from heygemd.work.local import LocalExecutor


def task_settings(settings: Settings) -> TaskSettings:
    return TaskSettings(
        scheduler=settings.scheduler,
        limits=settings.limits,
        media=settings.media,
        default_engine=settings.engines.default,
        checkpoint_dir=settings.checkpoint_dir,
    )


def make_executor(settings: Settings, log: Callable[..., None]) -> LocalExecutor:
    return LocalExecutor(
        heartbeat_timeout_seconds=settings.scheduler.heartbeat_timeout_seconds,
        idle_seconds=settings.scheduler.worker_idle_seconds,
        on_event=lambda name, fields: log(name, **fields),
    )
