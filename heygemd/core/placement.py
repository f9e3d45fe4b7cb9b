"""Placement: which waiting task goes to which device now. Pure: state in, decisions out.

Memory is an integer. Ask (`fits`), then take (`reserve`), and release when the worker has been reaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Device:
    """A device's budget for renders. `slots`: workers that may run on it at once."""

    name: str  # "cpu", "cuda:0"
    kind: str  # "cpu", "cuda"
    total_bytes: int
    budget_bytes: int
    slots: int
    threads: int = 1  # CPU threads for each of its workers


@dataclass(frozen=True)
class Request:
    """One task that waits. `needs`: bytes by device kind; a kind that is not there cannot take it."""

    id: str
    job_id: str
    folder: str
    priority: int
    waiting_since_seconds: float
    order: int  # within the job
    needs: Mapping[str, int]


@dataclass(frozen=True)
class Reservation:
    request_id: str
    device: str
    job_id: str
    folder: str
    num_bytes: int


@dataclass(frozen=True)
class Ledger:
    """Who holds what. Changed only by `reserve` and `release`; the sum on a device never exceeds its budget."""

    reservations: Mapping[str, Reservation] = field(default_factory=dict)

    def used_bytes(self, device: str) -> int:
        return sum(r.num_bytes for r in self.reservations.values() if r.device == device)

    def used_slots(self, device: str) -> int:
        return sum(1 for r in self.reservations.values() if r.device == device)

    def fits(self, device: Device, num_bytes: int) -> bool:
        free = device.budget_bytes - self.used_bytes(device.name)
        return num_bytes <= free and self.used_slots(device.name) < device.slots

    def reserve(self, device: Device, request: Request) -> Ledger:
        if request.id in self.reservations:
            raise ValueError(f"{request.id} holds a reservation already")
        num_bytes = request.needs[device.kind]
        if not self.fits(device, num_bytes):
            raise ValueError(f"{request.id} does not fit on {device.name}")
        taken = Reservation(request.id, device.name, request.job_id, request.folder, num_bytes)
        return replace(self, reservations={**self.reservations, request.id: taken})

    def release(self, request_id: str) -> Ledger:
        return replace(self, reservations={k: v for k, v in self.reservations.items() if k != request_id})


@dataclass(frozen=True)
class Placement:
    request: Request
    device: Device


def effective_priority(request: Request, now_seconds: float, aging_seconds: float) -> float:
    """Priority plus one step for every `aging_seconds` of waiting: nothing starves."""
    return request.priority + max(0.0, now_seconds - request.waiting_since_seconds) / aging_seconds


def place(
    requests: Iterable[Request],
    devices: Iterable[Device],
    ledger: Ledger,
    *,
    now_seconds: float,
    aging_seconds: float,
) -> tuple[list[Placement], Ledger]:
    """Give free device slots to the waiting tasks that deserve them most.

    Order: whole steps of effective priority, then the folder that holds least (fair share), then age, then order in
    the job. A task that fits a device's budget but not what is free there now keeps that device from later tasks of
    the same or lower step, so a large one is not starved by small ones.
    """
    waiting = list(requests)
    placed: list[Placement] = []
    blocked: set[str] = set()
    devices = list(devices)
    held: dict[str, int] = {}
    for reservation in ledger.reservations.values():
        held[reservation.folder] = held.get(reservation.folder, 0) + 1

    def rank(request: Request) -> tuple[float, int, float, int]:
        step = int(effective_priority(request, now_seconds, aging_seconds))
        return (-step, held.get(request.folder, 0), request.waiting_since_seconds, request.order)

    while waiting:
        request = min(waiting, key=rank)
        waiting.remove(request)
        able = [d for d in devices if d.kind in request.needs and request.needs[d.kind] <= d.budget_bytes]
        free = [d for d in able if d.name not in blocked and ledger.fits(d, request.needs[d.kind])]
        if not free:
            # Only memory holds it back, not slots: wait for that memory instead of feeding smaller tasks forever.
            blocked.update(d.name for d in able if ledger.used_slots(d.name) < d.slots)
            if all(ledger.used_slots(d.name) >= d.slots or d.name in blocked for d in devices):
                break
            continue
        device = max(free, key=lambda d: (d.kind == "cuda", d.budget_bytes - ledger.used_bytes(d.name)))
        ledger = ledger.reserve(device, request)
        held[request.folder] = held.get(request.folder, 0) + 1
        placed.append(Placement(request, device))
    return placed, ledger
