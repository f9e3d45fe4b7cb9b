"""How a machine joins the cluster: `ray start` with what this machine's own NVML snapshot, or its RAM, has to offer."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

from heygemd.cluster.agents import local_devices
from heygemd.cluster.executor import ray_environment
from heygemd.cluster.resources import offered
from heygemd.core.errors import ConfigError, UsageError
from heygemd.core.settings import SchedulerSettings

HEAD_PORT = 6379


def node_resources(settings: SchedulerSettings) -> dict[str, int]:
    """The custom resources of this machine, in MiB. Raises ConfigError where none of the named devices is here."""
    found = offered(local_devices(settings))
    if not found:
        raise ConfigError(
            f"scheduler.devices names {', '.join(settings.devices)}, and none of them is on this machine",
            remedy='Set it to "auto", or name a device that `heygemd doctor` lists.',
        )
    return found


def start_command(settings: SchedulerSettings, *, address: str | None, head: bool) -> list[str]:
    """The command that makes this machine a node, or the head, and stays in the foreground. A head renders nothing.

    Raises UsageError unless exactly one of the two is asked for, ConfigError where Ray is not installed.
    """
    if (address is None) == (not head):
        raise UsageError("give either --address HOST:PORT or --head", remedy="heygemd node --address head.example:6379")
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("the package ray is not installed here", remedy="Install it: pip install 'heygemd[ray]'.")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    if address is None:
        return [*command, "--head", f"--port={HEAD_PORT}", "--num-cpus=0", "--include-dashboard=false"]
    return [*command, f"--address={address}", f"--resources={json.dumps(node_resources(settings))}"]


def become(command: list[str]) -> None:
    """This process is Ray's from here on, so the service manager watches the right one."""
    os.execve(command[0], command, ray_environment(os.environ))  # noqa: S606 - an argv list, no shell
