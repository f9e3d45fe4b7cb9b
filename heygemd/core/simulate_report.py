"""What a simulation counts, and what it says in the end. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from heygemd.core.capacity import Device

_MOST_NAMED = 20


@dataclass(frozen=True)
class Ideal:
    """The least that one job can take: slot seconds, bytes x seconds, and when it can be over."""

    seconds: float = 0.0
    byte_seconds: float = 0.0
    over_seconds: float = 0.0


@dataclass
class Tally:
    """What happened."""

    finished: int = 0
    failed: int = 0
    refused: list[str] = field(default_factory=list)  # ids
    segments: int = 0
    oom_events: int = 0
    deaths: int = 0
    losses: int = 0
    makespan_seconds: float = 0.0
    busy_seconds: float = 0.0
    ideal_seconds: float = 0.0
    ideal_byte_seconds: float = 0.0
    longest_seconds: float = 0.0
    waits: dict[int, list[float]] = field(default_factory=dict)  # by priority: arrival to first start
    most_reserved_share: float = 0.0
    decisions: int = 0
    decision_seconds: float = 0.0  # of real time

    def finish(self, ideal: Ideal) -> None:
        """One more job is done. What failed counts for no bound: nobody knows how much of it was done."""
        self.finished += 1
        self.ideal_seconds += ideal.seconds
        self.ideal_byte_seconds += ideal.byte_seconds
        self.longest_seconds = max(self.longest_seconds, ideal.over_seconds)


def report(tally: Tally, cards: Sequence[Device]) -> dict[str, Any]:
    """JSON-ready. The lower bound is the largest of: all work at its fastest over all slots, all real bytes x seconds
    over all memory, and an arrival with its longest segment; of the jobs that were finished."""
    slots = sum(card.slots for card in cards)
    memory = sum(card.total_bytes for card in cards)
    bound = max(tally.ideal_seconds / slots, tally.ideal_byte_seconds / max(1, memory), tally.longest_seconds)
    span = tally.makespan_seconds
    every = [wait for waits in tally.waits.values() for wait in waits]
    return {
        "cards": len(cards),
        "slots": slots,
        "jobs": {"finished": tally.finished, "failed": tally.failed, "refused": len(tally.refused)},
        "refused_ids": tally.refused[:_MOST_NAMED],
        "segments": tally.segments,
        "makespan_seconds": round(span, 1),
        "lower_bound_seconds": round(bound, 1),
        "makespan_over_bound": round(span / bound, 3) if bound else None,
        "utilisation": round(tally.busy_seconds / (span * slots), 3) if span else None,
        "wait_seconds": {str(p): _quantiles(waits) for p, waits in sorted(tally.waits.items(), reverse=True)},
        "wait_seconds_all": _quantiles(every),
        "most_reserved_of_budget": round(tally.most_reserved_share, 3),
        "out_of_memory_events": tally.oom_events,
        "worker_deaths": tally.deaths,
        "cards_lost": tally.losses,
        "decisions": tally.decisions,
        "microseconds_a_decision": round(1e6 * tally.decision_seconds / max(1, tally.decisions), 1),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"p50": 0.0, "p95": 0.0, "max": 0.0}
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "p50": round(ordered[round(last * 0.5)], 1),
        "p95": round(ordered[round(last * 0.95)], 1),
        "max": round(ordered[last], 1),
    }
