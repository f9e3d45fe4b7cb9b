"""Placement: which waiting task goes to which device now. Pure: offers and time in, decisions out.

Order: whole steps of effective priority, then the folder that holds least, then the one whose turn was longest ago
(fair share, also where there are fewer slots than folders), then age, then order in the job. Tasks of one folder and
priority stand in one line; the line gains a step of priority for every `aging_seconds` that it has not been served, so
nothing starves, and a flood that is served all the time gains none.

One decision costs the number of lines and the logarithm of devices and tasks, however many tasks wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeVar

from heygemd.core.capacity import Capacity, Device, Reservation

__all__ = ["Capacity", "Device", "Placement", "Request", "Reservation", "Scheduler"]


@dataclass(frozen=True)
class Request:
    """One task that waits. `needs`: by device kind, the bytes of each way to do it, the largest first; a kind that is
    not there cannot take it. `alone`: only where nothing else runs. `avoid`: names of devices to pass by. `host_bytes`:
    what its worker takes of the host's RAM beside, where the device is not the host."""

    id: str
    job_id: str
    folder: str
    priority: int
    waiting_since_seconds: float
    order: int  # within the job
    needs: Mapping[str, tuple[int, ...]]
    alone: bool = False
    avoid: frozenset[str] = frozenset()
    host_bytes: int = 0


@dataclass(frozen=True)
class Placement:
    """`step`: which of the request's needs for this device's kind was reserved."""

    request: Request
    device: Device
    step: int
    num_bytes: int


_MOST_KNOWN = 4096
_Value = TypeVar("_Value")
_Shape = tuple[tuple[tuple[str, int], ...], bool, frozenset[str], int]
"""Requests of one shape fit and fail to fit alike."""


@dataclass
class _Line:
    """Waiting tasks of one folder and priority, by shape."""

    folder: str
    priority: int
    served_seconds: float = -math.inf
    heaps: dict[_Shape, list[tuple[float, int, int, str]]] = field(default_factory=dict)


class Scheduler:
    """Waiting requests, reservations, and who comes next. `offer`, `decide`, `release`; not thread-safe. `host`: the
    device whose RAM workers on GPUs take beside; where it is not among the devices, nobody counts that."""

    def __init__(self, devices: Iterable[Device] = (), *, aging_seconds: float, host: str = "cpu") -> None:
        self.aging_seconds = aging_seconds
        self._host = host
        self.capacity = Capacity(devices)
        self._waiting: dict[str, tuple[int, Request]] = {}  # with the number of the offer
        self._running: dict[str, Request] = {}
        self._lines: dict[tuple[str, int], _Line] = {}
        self._holding: dict[str, int] = {}  # reservations by folder
        self._turns: dict[str, int] = {}  # folder → number of the placement that it had last, the latest at the end
        self._placements = 0
        self._claims: dict[str, str] = {}  # device → request that it is kept for
        self._warm: dict[str, str] = {}  # job → device that last took a task of it
        self._stranded: set[str] = set()  # waiting requests that no device could ever take, out of line
        self._offers = 0

    def offer(self, request: Request) -> None:
        """It waits from now on. One with the same id takes the place of the former."""
        if request.id in self._running:
            raise ValueError(f"{request.id} holds a reservation already")
        known = self._waiting.get(request.id)
        if known is not None and known[1] == request:
            return
        self._offers += 1
        self._waiting[request.id] = self._offers, request
        self._line_up(self._offers, request)

    def _line_up(self, number: int, request: Request) -> None:
        line = self._lines.setdefault((request.folder, request.priority), _Line(request.folder, request.priority))
        entry = (request.waiting_since_seconds, request.order, number, request.id)
        heappush(line.heaps.setdefault(_shape(request), []), entry)

    def withdraw(self, request_id: str) -> None:
        """It does not wait any more. Unknown ids are ignored."""
        self._waiting.pop(request_id, None)

    def waiting(self) -> Iterator[Request]:
        return (request for _, request in self._waiting.values())

    def is_waiting(self, request_id: str) -> bool:
        return request_id in self._waiting

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def release(self, request_id: str) -> None:
        """Its worker has answered. Unknown ids are ignored."""
        request = self._running.pop(request_id, None)
        if request is not None:
            self.capacity.release(request_id)
            self.capacity.release(_beside(request_id))
            self._holding[request.folder] -= 1
            if not self._holding[request.folder]:
                del self._holding[request.folder]

    def set_devices(self, devices: Iterable[Device]) -> None:
        before = dict(self.capacity.devices)
        self.capacity.set_devices(devices)
        if self.capacity.devices != before:
            for entry in [self._waiting[name] for name in self._stranded if name in self._waiting]:
                self._line_up(*entry)
            self._stranded.clear()
        for name in [name for name in self._claims if name not in self.capacity.devices]:
            del self._claims[name]

    def decide(self, now_seconds: float) -> list[Placement]:
        """Give free slots to the waiting tasks that deserve them most, and reserve.

        A task that some device could take, but not now, keeps the emptiest such device from the tasks after it, so a
        large one is not starved by small ones.
        """
        placed = self._settle_claims(now_seconds)
        blocked: set[_Shape] = set()
        while self.capacity.any_free_slot:
            best = self._next(now_seconds, blocked)
            if best is None:
                break
            shape, request = best
            found = self.capacity.find(
                request.needs, alone=request.alone, avoid=request.avoid, prefer=self._warm.get(request.job_id)
            )
            if found is None and not self.capacity.is_possible(request.needs, request.avoid):
                # Its card has gone or shrunk. Others of its shape, a little smaller, must not wait behind it.
                self._stranded.add(request.id)
                heappop(self._lines[request.folder, request.priority].heaps[shape])
            elif found is None:
                blocked.add(shape)
                self._claim(request)
            elif not self._host_has_room(request, found[0]):
                blocked.add(shape)
                self._keep(self._host, request)
            else:
                placed.append(self._take(request, *found, now_seconds))
        return placed

    def _next(self, now_seconds: float, blocked: set[_Shape]) -> tuple[_Shape, Request] | None:
        best: tuple[tuple[float, int, int, float, int, int], _Shape, Request] | None = None
        for key, line in list(self._lines.items()):
            for shape, heap in list(line.heaps.items()):
                if shape in blocked:
                    continue
                request = self._head(heap)
                if request is None:
                    del line.heaps[shape]
                    continue
                since = max(request.waiting_since_seconds, line.served_seconds)
                step = math.floor(line.priority + max(0.0, now_seconds - since) / self.aging_seconds)
                age, order, number, _ = heap[0]
                held, turn = self._holding.get(line.folder, 0), self._turns.get(line.folder, 0)
                rank = (-step, held, turn, age, order, number)
                if best is None or rank < best[0]:
                    best = rank, shape, request
            if not line.heaps and now_seconds - line.served_seconds > self.aging_seconds:
                del self._lines[key]
        return None if best is None else best[1:]

    def _head(self, heap: list[tuple[float, int, int, str]]) -> Request | None:
        while heap:
            _, _, number, request_id = heap[0]
            entry = self._waiting.get(request_id)
            if entry is not None and entry[0] == number:
                return entry[1]
            heappop(heap)  # withdrawn, placed or offered anew
        return None

    def _take(self, request: Request, name: str, step: int, now_seconds: float) -> Placement:
        device = self.capacity.devices[name]
        num_bytes = device.budget_bytes if request.alone else request.needs[device.kind][step]
        self.capacity.reserve(request.id, name, num_bytes)
        beside = self._beside_bytes(request, name)
        if beside:
            self.capacity.reserve(_beside(request.id), self._host, beside, slots=0)
        del self._waiting[request.id]
        self._running[request.id] = request
        self._holding[request.folder] = self._holding.get(request.folder, 0) + 1
        self._lines[request.folder, request.priority].served_seconds = now_seconds
        self._placements += 1
        _put_last(self._turns, request.folder, self._placements)
        _put_last(self._warm, request.job_id, name)
        for claimed in [device for device, owner in self._claims.items() if owner == request.id]:
            del self._claims[claimed]
            self.capacity.unhold(claimed)
        return Placement(request, device, step, num_bytes)

    def _settle_claims(self, now_seconds: float) -> list[Placement]:
        """Claims whose device has drained are placed; those that cannot come true are dropped."""
        placed: list[Placement] = []
        for name, owner in list(self._claims.items()):
            if self._claims.get(name) != owner:
                continue  # it had two, and the other one came true
            entry = self._waiting.get(owner)
            passed_by = entry is not None and name in entry[1].avoid
            if entry is None or passed_by or not self.capacity.is_able(name, entry[1].needs):
                del self._claims[name]
                self.capacity.unhold(name)
                continue
            step = self.capacity.step_on(name, entry[1].needs, entry[1].alone)
            if step is not None and self._host_has_room(entry[1], name):
                placed.append(self._take(entry[1], name, step, now_seconds))
        return placed

    def _beside_bytes(self, request: Request, name: str) -> int:
        """Of the host's RAM, for a task on that device. Never more than the host has for renders at all: what was
        admitted must stay possible."""
        host = self.capacity.devices.get(self._host)
        device = self.capacity.devices[name]
        if host is None or name == self._host or device.kind == host.kind or device.node:
            return 0
        return min(request.host_bytes, host.budget_bytes)

    def _host_has_room(self, request: Request, name: str) -> bool:
        beside = self._beside_bytes(request, name)
        return not beside or beside <= self.capacity.free_bytes(self._host)

    def _keep(self, name: str, request: Request) -> None:
        """From the tasks after it, until its turn comes round again."""
        if name not in self._claims:
            self._claims[name] = request.id
            self.capacity.hold(name)

    def _claim(self, request: Request) -> None:
        """Keep a device for it: the one with most left among those that lack only memory. One device a shape."""
        shape = _shape(request)
        for owner in self._claims.values():
            entry = self._waiting.get(owner)
            if owner == request.id or (entry is not None and _shape(entry[1]) == shape):
                return
        lacking = [
            name
            for name in self.capacity.with_free_slots()
            if name not in request.avoid and self.capacity.is_able(name, request.needs)
        ]
        if lacking:
            name = max(lacking, key=self.capacity.free_bytes)
            self._keep(name, request)


def _put_last(known: dict[str, _Value], key: str, value: _Value) -> None:
    """The ones that were not touched for longest are forgotten."""
    known.pop(key, None)
    known[key] = value
    if len(known) > _MOST_KNOWN:
        del known[next(iter(known))]


def _shape(request: Request) -> _Shape:
    """Needs within a tenth of each other count as the same."""
    sizes = tuple(sorted((kind, int(7 * math.log2(max(1, steps[-1])))) for kind, steps in request.needs.items()))
    beside = int(7 * math.log2(request.host_bytes)) if request.host_bytes else 0
    return sizes, request.alone, request.avoid, beside


def _beside(request_id: str) -> str:
    """Name of the reservation of the host's RAM."""
    return f"{request_id} (host)"
