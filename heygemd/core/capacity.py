"""Capacity: which device has how much left, and which of them suits a task. Pure bookkeeping with integers.

Ask (`find`, `fits`), then take (`reserve`), and `release` when the worker has answered. Finding a device costs the
logarithm of their number.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from heygemd.core.plan import step_within


@dataclass(frozen=True)
class Device:
    """A device's budget for renders. `slots`: workers that may run on it at once."""

    name: str  # "cpu", "cuda:0", "sim:0"
    kind: str  # "cpu", "cuda"
    total_bytes: int
    budget_bytes: int
    slots: int
    threads: int = 1  # CPU threads for each of its workers
    uuid: str = ""  # of a GPU or of a part of one: its workers see nothing else
    model: str = ""  # what kind of card it is, for measurements
    node: str = ""  # of a cluster; empty: this machine


@dataclass(frozen=True)
class Reservation:
    """Bytes that one task holds on a device. `slots`: 0 for what it takes beside its own device."""

    id: str
    device: str
    num_bytes: int
    slots: int = 1


class _Level:
    """Devices of one kind with equally many slots in use, sorted by one slot's share of what is free, and by that."""

    def __init__(self) -> None:
        self.by_share: list[tuple[int, str]] = []
        self.by_free: list[tuple[int, str]] = []

    def add(self, name: str, share: int, free: int) -> None:
        insort(self.by_share, (share, name))
        insort(self.by_free, (free, name))

    def remove(self, name: str, share: int, free: int) -> None:
        del self.by_share[bisect_left(self.by_share, (share, name))]
        del self.by_free[bisect_left(self.by_free, (free, name))]


class Capacity:
    """Devices and reservations. The sum on a device never exceeds its budget by a reservation; a budget that shrinks
    below it afterwards only keeps new ones away."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self.devices: dict[str, Device] = {}
        self.reservations: dict[str, Reservation] = {}
        self._used: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        self._held: set[str] = set()
        self._largest_budgets: dict[str, int] = {}  # by kind
        self._levels: dict[str, dict[int, _Level]] = {}
        self._indexed: dict[str, tuple[str, int, int, int]] = {}  # name → kind, level, share, free
        self.set_devices(devices)

    def set_devices(self, devices: Iterable[Device]) -> None:
        """The devices as they are now. Reservations on one that has gone stay until they are released."""
        new = {device.name: device for device in devices}
        for name in set(self.devices) | set(new):
            if self.devices.get(name) != new.get(name):
                self._unindex(name)
                if name in new:
                    self.devices[name] = new[name]
                    self._index(name)
                else:
                    del self.devices[name]
        self._held &= set(new)
        self._largest_budgets = dict.fromkeys({device.kind for device in new.values()}, 0)
        for device in new.values():
            self._largest_budgets[device.kind] = max(self._largest_budgets[device.kind], device.budget_bytes)

    def used_bytes(self, name: str) -> int:
        return self._used.get(name, 0)

    def used_slots(self, name: str) -> int:
        return self._slots.get(name, 0)

    def free_bytes(self, name: str) -> int:
        return self.devices[name].budget_bytes - self.used_bytes(name)

    @property
    def any_free_slot(self) -> bool:
        return bool(self._indexed)

    def reserve(self, reservation_id: str, name: str, num_bytes: int, slots: int = 1) -> None:
        """Raises ValueError for what does not fit or is reserved already: the caller has not asked."""
        if reservation_id in self.reservations:
            raise ValueError(f"{reservation_id} holds a reservation already")
        if num_bytes > self.free_bytes(name) or self.used_slots(name) + slots > self.devices[name].slots:
            raise ValueError(f"{reservation_id} does not fit on {name}")
        self.reservations[reservation_id] = Reservation(reservation_id, name, num_bytes, slots)
        self._move(name, num_bytes, slots)

    def release(self, reservation_id: str) -> None:
        """Unknown ids are ignored."""
        gone = self.reservations.pop(reservation_id, None)
        if gone is not None:
            self._move(gone.device, -gone.num_bytes, -gone.slots)

    def hold(self, name: str) -> None:
        """Give this device to nobody that `find` is asked for, until `unhold`."""
        self._held.add(name)
        self._unindex(name)

    def unhold(self, name: str) -> None:
        self._held.discard(name)
        if name in self.devices:
            self._unindex(name)
            self._index(name)

    def step_on(self, name: str, needs: Mapping[str, Sequence[int]], alone: bool) -> int | None:
        """Which step of its needs a task could take on this device now; None where none fits."""
        device = self.devices[name]
        steps = needs.get(device.kind)
        left = device.slots - self.used_slots(name)
        if steps is None or left <= 0 or (alone and self._in_use(name)):
            return None
        free = self.free_bytes(name)
        return step_within(steps, free if alone else free // left, free)

    def find(
        self,
        needs: Mapping[str, Sequence[int]],
        *,
        alone: bool = False,
        avoid: Collection[str] = (),
        prefer: str | None = None,
    ) -> tuple[str, int] | None:
        """The device and the step of its needs. GPUs before the CPU, idle devices before busy ones, the largest step,
        and then the device that it fills best; `prefer` wins among equals."""
        for kind in sorted(needs.keys() & self._levels.keys(), key=lambda k: (k != "cuda", k)):
            steps = needs[kind]
            levels = self._levels[kind]
            for used in sorted(levels):
                if alone and used:
                    break
                level = levels[used]
                found = self._largest(level, steps, avoid) if alone else self._best(level, steps, avoid)
                if found is None:
                    continue
                if (
                    prefer is not None
                    and prefer not in avoid
                    and self._indexed.get(prefer, ("", -1))[:2] == (kind, used)
                ):
                    step = self.step_on(prefer, needs, alone)
                    if step is not None and step <= found[1]:
                        return prefer, step
                return found
        return None

    def is_able(self, name: str, needs: Mapping[str, Sequence[int]]) -> bool:
        """Whether the device's budget holds the smallest step, whatever runs there now."""
        device = self.devices[name]
        return device.kind in needs and needs[device.kind][-1] <= device.budget_bytes

    def is_possible(self, needs: Mapping[str, Sequence[int]], avoid: Collection[str] = ()) -> bool:
        """Whether some device's budget holds the smallest step, whatever runs there now."""
        if avoid:
            return any(self.is_able(name, needs) for name in self.devices if name not in avoid)
        return any(steps[-1] <= self._largest_budgets.get(kind, -1) for kind, steps in needs.items())

    def with_free_slots(self) -> list[str]:
        """Devices that may take another task and are not held."""
        return list(self._indexed)

    @staticmethod
    def _best(level: _Level, steps: Sequence[int], avoid: Collection[str]) -> tuple[str, int] | None:
        for step, need in enumerate(steps):
            name = _first(level.by_share, need, avoid)
            if name is not None:
                return name, step
        name = _first(level.by_free, steps[-1], avoid)
        return None if name is None else (name, len(steps) - 1)

    def _in_use(self, name: str) -> bool:
        """By a task that runs there, or by one that runs elsewhere and takes of it."""
        return self.used_slots(name) > 0 or self.used_bytes(name) > 0

    def _largest(self, level: _Level, steps: Sequence[int], avoid: Collection[str]) -> tuple[str, int] | None:
        for free, name in reversed(level.by_free):
            if name not in avoid and not self._in_use(name):
                step = step_within(steps, free, free)
                return None if step is None else (name, step)
        return None

    def _move(self, name: str, num_bytes: int, slots: int) -> None:
        self._unindex(name)
        self._used[name] = self.used_bytes(name) + num_bytes
        self._slots[name] = self.used_slots(name) + slots
        if name in self.devices:
            self._index(name)

    def _index(self, name: str) -> None:
        device, used = self.devices[name], self.used_slots(name)
        left = device.slots - used
        if left <= 0 or name in self._held:
            return
        free = self.free_bytes(name)
        self._levels.setdefault(device.kind, {}).setdefault(used, _Level()).add(name, free // left, free)
        self._indexed[name] = device.kind, used, free // left, free

    def _unindex(self, name: str) -> None:
        entry = self._indexed.pop(name, None)
        if entry is None:
            return
        kind, used, share, free = entry
        level = self._levels[kind][used]
        level.remove(name, share, free)
        if not level.by_free:
            del self._levels[kind][used]
            if not self._levels[kind]:
                del self._levels[kind]


def _first(entries: list[tuple[int, str]], least: int, avoid: Collection[str]) -> str | None:
    for at in range(bisect_left(entries, (least, "")), len(entries)):
        if entries[at][1] not in avoid:
            return entries[at][1]
    return None
