import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heygemd.core.placement import Device, Ledger, Request, place

CARD = Device("cuda:0", "cuda", 1000, 900, slots=3)
CPU = Device("cpu", "cpu", 1000, 800, slots=1)


def ask(name: str, need: int = 100, priority: int = 0, since: float = 0.0, folder: str = "", order: int = 0) -> Request:
    return Request(name, f"job-{name}", folder, priority, since, order, {"cuda": need})


def names(requests: list[Request], ledger: Ledger | None = None, now: float = 0.0) -> list[str]:
    placed, _ = place(requests, [CARD], ledger or Ledger(), now_seconds=now, aging_seconds=60.0)
    return [p.request.id for p in placed]


def test_priority_goes_first_then_age() -> None:
    assert names([ask("old"), ask("new", since=5.0), ask("urgent", since=9.0, priority=1)]) == ["urgent", "old", "new"]


def test_waiting_long_enough_beats_priority() -> None:
    assert names([ask("urgent", priority=2, since=200.0), ask("patient", since=0.0)], now=200.0)[0] == "patient"


def test_a_folder_that_floods_does_not_starve_the_others() -> None:
    flood = [ask(f"f{i}", folder="flood", since=float(i)) for i in range(10)]
    assert names([*flood, ask("single", folder="other", since=50.0)], now=50.0)[:2] == ["f0", "single"]


def test_memory_is_never_promised_twice() -> None:
    assert names([ask("a", 500), ask("b", 500), ask("c", 100, since=1.0)]) == ["a"]


def test_a_large_task_keeps_its_place_before_smaller_ones() -> None:
    held = Ledger().reserve(CARD, ask("running", 600))
    assert names([ask("large", 800), ask("small", 50, since=1.0)], held) == []


def test_what_fits_nowhere_does_not_block_the_others() -> None:
    assert names([ask("impossible", 5000), ask("small", 50, since=1.0)]) == ["small"]


def test_a_task_waits_for_the_kind_of_device_it_needs() -> None:
    placed, ledger = place([ask("a")], [CPU], Ledger(), now_seconds=0, aging_seconds=60)
    assert placed == []
    assert ledger == Ledger()


def test_reserving_twice_or_too_much_is_a_mistake() -> None:
    ledger = Ledger().reserve(CARD, ask("a"))
    with pytest.raises(ValueError, match="holds a reservation"):
        ledger.reserve(CARD, ask("a"))
    with pytest.raises(ValueError, match="does not fit"):
        ledger.reserve(CARD, ask("b", 901))
    assert ledger.release("a") == Ledger()


@settings(max_examples=200)
@given(
    needs=st.lists(st.tuples(st.integers(1, 1200), st.integers(-2, 2), st.floats(0, 500)), max_size=25),
    ends=st.lists(st.integers(0, 30), max_size=40),
)
def test_reservations_stay_within_budget_and_everything_that_fits_ends(
    needs: list[tuple[int, int, float]], ends: list[int]
) -> None:
    waiting = [ask(f"t{i}", need, priority, since) for i, (need, priority, since) in enumerate(needs)]
    possible = {r.id for r in waiting if r.needs["cuda"] <= CARD.budget_bytes}
    ledger, ended, now = Ledger(), set(), 500.0
    for choice in [*ends, *([0] * (len(waiting) + 1))]:
        placed, ledger = place(waiting, [CARD], ledger, now_seconds=now, aging_seconds=60.0)
        assert ledger.used_bytes(CARD.name) <= CARD.budget_bytes
        assert ledger.used_slots(CARD.name) <= CARD.slots
        gone = {p.request.id for p in placed}
        waiting = [r for r in waiting if r.id not in gone]
        running = sorted(ledger.reservations)
        if running:
            over = running[choice % len(running)]
            ledger = ledger.release(over)
            ended.add(over)
        now += 30.0
    assert possible <= ended | set(ledger.reservations)
