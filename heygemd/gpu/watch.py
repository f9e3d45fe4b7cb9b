"""Budgets that move: other programs take and give back memory beside us, and cards come and go.

A thread of its own reads NVML and /proc, because a driver that resets can keep a caller waiting for minutes; the
dispatcher only picks up the newest reading. `budget_bytes` and `moved` are pure.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from heygemd.core.capacity import Device
from heygemd.core.settings import SchedulerSettings
from heygemd.gpu.devices import CPU_SHARE, CardSnapshot, MemoryNow, card_device, memory_now, render_cards

INTERVAL_SECONDS = 5.0
STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Reading:
    """All devices at one moment. A card that is not in `memory` is away; `problems` says why. `new`: cards that nobody
    has named yet."""

    memory: Mapping[str, MemoryNow]
    problems: Mapping[str, str]
    seconds: float  # monotonic
    new: Sequence[CardSnapshot] = ()


def read(
    by_uuid: Mapping[str, str], with_cards: bool, look: Callable[[], list[CardSnapshot]] = render_cards
) -> Reading:
    """`by_uuid`: uuid → name of the device, as they were when each was first seen; numbers may change, uuids do not."""
    memory: dict[str, MemoryNow] = {"cpu": memory_now()}
    problems: dict[str, str] = {}
    new: list[CardSnapshot] = []
    if with_cards:
        for card in look():
            if card.problem is not None:
                continue
            if card.uuid in by_uuid:
                memory[by_uuid[card.uuid]] = MemoryNow(card.total_bytes, card.free_bytes, card.processes)
            else:
                new.append(card)
        for name in by_uuid.values():
            if name not in memory:
                problems[name] = "the driver does not list it any more"
    return Reading(memory, problems, time.monotonic(), new)


def others_bytes(now: MemoryNow, reserved_bytes: int, own_pids: Collection[int], before: int) -> int:
    """What other programs use there. `before`: the same when last known for sure, with nothing of ours running.

    Where NVML tells processes apart, exactly: all that is used but by us. Elsewhere our workers may have taken less
    than is reserved for them, so at least what exceeds the reservations, and no less than was known before.
    """
    used = now.total_bytes - now.free_bytes
    own = sum(num_bytes for pid, num_bytes in now.processes.items() if pid in own_pids)
    if own:
        return max(0, used - own)
    if reserved_bytes == 0:
        return used
    return max(used - reserved_bytes, min(before, used), 0)


def budget_bytes(total_bytes: int, others: int, fraction: float) -> int:
    """What all our renders together may reserve."""
    return max(0, int((total_bytes - others) * fraction))


class Watch(Protocol):
    """Where the fleet learns which devices there are. `elastic`: they come and go, and having none is no error;
    `problem`: why nothing can render now, where that is known. All from the dispatcher's thread."""

    elastic: bool

    @property
    def problem(self) -> str | None: ...

    @property
    def age_seconds(self) -> float: ...

    @property
    def memory(self) -> Mapping[str, MemoryNow]: ...

    def moved(
        self, reserved: Mapping[str, int], own_pids: Collection[int]
    ) -> tuple[list[Device], dict[str, str]] | None:
        """The devices with their budgets of now, and why others are away; None where nothing new is known."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class DeviceWatch:
    """Keeps the newest `Reading`. `start`, `moved`, `stop`; the last two from the dispatcher's thread.

    Where the configuration says "auto", cards that come later are taken in: the driver may be up after the daemon."""

    elastic = False
    problem = None

    def __init__(
        self,
        devices: Sequence[Device],
        settings: SchedulerSettings,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        look: Callable[[], list[CardSnapshot]] = render_cards,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = {device.name: device for device in devices}
        self._settings = settings
        self._interval_seconds = interval_seconds
        self._look = look
        self._clock = clock
        self._others: dict[str, int] = {}
        self._by_uuid = {device.uuid: device.name for device in devices if device.kind == "cuda"}
        self._takes_new = settings.devices == ("auto",) and not settings.simulated_gpus_mib
        self._newest: Reading | None = None
        self._taken: Reading | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait: the thread may be stuck in the driver, and it dies with the process."""
        self._stopped.set()

    @property
    def age_seconds(self) -> float:
        """Of the newest reading. Beyond STALE_SECONDS the driver does not answer."""
        return 0.0 if self._newest is None else self._clock() - self._newest.seconds

    @property
    def memory(self) -> Mapping[str, MemoryNow]:
        """The newest reading, by device."""
        return {} if self._newest is None else self._newest.memory

    def moved(
        self, reserved: Mapping[str, int], own_pids: Collection[int]
    ) -> tuple[list[Device], dict[str, str]] | None:
        """The devices with their budgets of now, and why others are away; None where nothing new was read."""
        reading = self._newest
        if reading is None or reading is self._taken:
            return None
        self._taken = reading
        found, memory = [], dict(reading.memory)
        for card in reading.new if self._takes_new else ():
            memory[self._name_of(card)] = MemoryNow(card.total_bytes, card.free_bytes, card.processes)
        for device in self._first.values():
            now = memory.get(device.name)
            if device.name.startswith("sim:"):
                found.append(device)
            elif now is not None:
                found.append(self._budgeted(device, now, reserved, own_pids))
        return found, dict(reading.problems)

    def _name_of(self, card: CardSnapshot) -> str:
        """Of a card that came later; it is one of ours from now on."""
        if card.uuid not in self._by_uuid:
            numbers = itertools.chain([card.index], itertools.count())
            name = next(name for name in map("cuda:{}".format, numbers) if name not in self._first)
            self._first[name] = replace(card_device(card, self._settings), name=name)
            self._by_uuid = {**self._by_uuid, card.uuid: name}  # the thread reads the former one meanwhile
        return self._by_uuid[card.uuid]

    def _budgeted(
        self, device: Device, now: MemoryNow, reserved: Mapping[str, int], own_pids: Collection[int]
    ) -> Device:
        if device.kind == "cpu" and self._settings.cpu_memory_mib:
            return device  # the operator said how much
        others = others_bytes(now, reserved.get(device.name, 0), own_pids, self._others.get(device.name, 0))
        if not reserved.get(device.name):
            self._others[device.name] = others
        fraction = CPU_SHARE if device.kind == "cpu" else self._settings.gpu_memory_fraction
        return replace(
            device, total_bytes=now.total_bytes, budget_bytes=budget_bytes(now.total_bytes, others, fraction)
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._newest = read(self._by_uuid, self._takes_new or bool(self._by_uuid), self._look)
            self._stopped.wait(self._interval_seconds)
