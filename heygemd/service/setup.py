"""From the configuration to the parts that daemon and foreground share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heygemd.cluster.executor import RayExecutor
from heygemd.cluster.route import RoutedExecutor
from heygemd.cluster.watch import ClusterWatch
from heygemd.config import Settings
from heygemd.core.capacity import Device
from heygemd.gpu.calibration import CalibrationStore, fingerprint
from heygemd.gpu.devices import cards, cpu_device, devices, render_cards
from heygemd.gpu.watch import DeviceWatch, Watch
from heygemd.service.tasks import TaskSettings
from heygemd.work.executor import Executor
from heygemd.work.local import LocalExecutor


def task_settings(settings: Settings) -> TaskSettings:
    return TaskSettings(
        scheduler=settings.scheduler,
        limits=settings.limits,
        media=settings.media,
        default_engine=settings.engines.default,
        checkpoint_dir=settings.checkpoint_dir,
        face_detector=settings.engines.face_detector,
        face_detector_file=settings.face_detector_file,
        landmarks=settings.engines.landmarks,
        landmarks_file=settings.landmarks_file,
        precision=settings.engines.precision,
        cpu_only=settings.engines.cpu_only,
        provenance=settings.provenance,
        max_active_seconds_per_folder=settings.inbox.max_active_seconds_per_folder,
        max_work_bytes=settings.service.max_work_bytes,
        min_free_work_bytes=settings.service.min_free_state_bytes,
    )


def make_calibration(state: Path, *, readonly: bool = False) -> CalibrationStore:
    """What was measured on this machine, from STATE/calibration.json; empty where the machine is another one now."""
    models = [f"{card.name} {card.total_bytes} driver {card.driver}" for card in cards()]
    return CalibrationStore(state / "calibration.json", fingerprint(models), readonly=readonly)


@dataclass(frozen=True)
class Rig:
    """Who renders. `devices`: those that are known now; `host`: this machine, which prepares and finishes."""

    executor: Executor
    devices: Sequence[Device]
    host: Device
    watch: Watch
    names: str


def make_rig(settings: Settings, share: Path, log: Callable[..., None]) -> Rig:
    """As `scheduler.executor` says. Raises ConfigError."""
    scheduler, ray = settings.scheduler, settings.ray
    targets, host = devices(scheduler), cpu_device(scheduler)
    if scheduler.devices == ("auto",) and not scheduler.simulated_gpus_mib:
        for card in render_cards():
            if card.problem is not None:
                log("daemon.degraded", reason=f"cuda:{card.index} ({card.name}) is not used: {card.problem}")
    local, watch = make_executor(settings, log), DeviceWatch(targets, scheduler)
    if scheduler.executor == "local":
        return Rig(local, targets, host, watch, ", ".join(device.name for device in targets))
    cluster = RayExecutor(
        ray,
        scheduler,
        share=share,
        heartbeat_timeout_seconds=scheduler.heartbeat_timeout_seconds,
        idle_seconds=scheduler.worker_idle_seconds,
        on_event=lambda name, fields: log(name, **fields),
    )
    cluster_watch = ClusterWatch(cluster, scheduler.gpu_memory_fraction, ray.when_lost, watch, targets)
    return Rig(RoutedExecutor(local, cluster), (), host, cluster_watch, f"the Ray cluster at {ray.address}")


def make_executor(settings: Settings, log: Callable[..., None]) -> LocalExecutor:
    return LocalExecutor(
        heartbeat_timeout_seconds=settings.scheduler.heartbeat_timeout_seconds,
        idle_seconds=settings.scheduler.worker_idle_seconds,
        on_event=lambda name, fields: log(name, **fields),
    )
