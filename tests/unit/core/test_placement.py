"""Placement: order, fairness, nobody starves, nothing is promised twice."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heygemd.core.placement import Capacity, Device, Request, Scheduler

CARD = Device("cuda:0", "cuda", 1000, 900, slots=3)
CPU = Device("cpu", "cpu", 1000, 800, slots=1)


def ask(
    name: str,
    need: int | tuple[int, ...] = 100,
    priority: int = 0,
    since: float = 0.0,
    folder: str = "",
    order: int = 0,
    **more: object,
) -> Request:
    needs = {"cuda": need if isinstance(need, tuple) else (need,)}
    return Request(name, f"job-{name}", folder, priority, since, order, needs, **more)  # type: ignore[arg-type]


def scheduler(*devices: Device, waiting: list[Request] = ()) -> Scheduler:  # type: ignore[assignment]
    made = Scheduler(devices or (CARD,), aging_seconds=60.0)
    for request in waiting:
        made.offer(request)
    return made


def names(requests: list[Request], now: float = 0.0) -> list[str]:
    return [p.request.id for p in scheduler(waiting=requests).decide(now)]


def test_priority_goes_first_then_age() -> None:
    assert names([ask("old"), ask("new", since=5.0), ask("urgent", since=9.0, priority=1)]) == ["urgent", "old", "new"]


def test_waiting_long_enough_beats_priority() -> None:
    assert names([ask("urgent", priority=2, since=200.0), ask("patient", since=0.0)], now=200.0)[0] == "patient"


def test_segments_of_one_job_go_in_order() -> None:
    assert names([ask(f"s{i}", order=i) for i in (2, 0, 1)]) == ["s0", "s1", "s2"]


def test_a_folder_that_floods_does_not_starve_the_others() -> None:
    flood = [ask(f"f{i}", folder="flood", since=float(i)) for i in range(10)]
    assert names([*flood, ask("single", folder="other", since=50.0)], now=50.0)[:2] == ["f0", "single"]


def test_even_a_flood_that_has_waited_for_a_day_lets_the_next_folder_in() -> None:
    made = scheduler(waiting=[ask(f"f{i}", folder="flood", since=0.0, order=i) for i in range(50)])
    made.decide(86400.0)
    made.offer(ask("single", folder="other", since=86401.0))
    made.release("f0")
    assert [p.request.id for p in made.decide(86402.0)] == ["single"]


@given(st.integers(2, 6), st.integers(1, 6))
def test_folders_take_turns_where_there_are_fewer_slots_than_folders(folders: int, slots: int) -> None:
    """Folder 0 dropped a film before all others; whoever holds least says nothing where each slot is free when it is
    given away."""
    made = scheduler(Device("cuda:0", "cuda", 1000, 900, min(slots, folders)))
    for folder in range(folders):
        for number in range(60):
            made.offer(ask(f"{folder}/{number}", folder=str(folder), since=1.0 + folder, order=number))
    started: list[str] = []
    while len(started) < 12 * folders:
        placed = made.decide(10.0)
        started += [p.request.folder for p in placed]
        for placement in placed:
            made.release(placement.request.id)
    for folder in range(folders):
        assert 11 <= started[: 12 * folders].count(str(folder)) <= 13
    assert started[:folders] == [str(folder) for folder in range(folders)], "the oldest begin"


def test_memory_is_never_promised_twice() -> None:
    assert names([ask("a", 500), ask("b", 500), ask("c", 100, since=1.0)]) == ["a"]


def test_a_large_task_keeps_its_place_before_smaller_ones() -> None:
    made = scheduler(waiting=[ask("running", 600)])
    made.decide(0.0)
    made.offer(ask("large", 800))
    made.offer(ask("small", 50, since=1.0))
    assert made.decide(2.0) == []
    made.release("running")
    assert [p.request.id for p in made.decide(3.0)] == ["large", "small"]


def test_the_others_go_on_where_the_large_one_does_not_wait() -> None:
    """One card is kept for it; the second one works on."""
    other = Device("cuda:1", "cuda", 1000, 900, slots=3)
    made = scheduler(CARD, other, waiting=[ask("a", 600), ask("b", 600)])
    made.decide(0.0)
    made.offer(ask("large", 850))
    for i in range(5):
        made.offer(ask(f"small{i}", 100, since=1.0 + i))
    placed = made.decide(10.0)
    assert [p.request.id for p in placed] == ["small0", "small1"]
    assert len({p.device.name for p in placed}) == 1


def test_what_fits_nowhere_does_not_block_the_others() -> None:
    assert names([ask("impossible", 5000), ask("small", 50, since=1.0)]) == ["small"]


def test_a_task_waits_for_the_kind_of_device_it_needs() -> None:
    made = scheduler(CPU, waiting=[ask("a")])
    assert made.decide(0.0) == []
    made.set_devices([CPU, CARD])
    assert [p.device.name for p in made.decide(1.0)] == ["cuda:0"]


def test_a_task_takes_the_largest_way_that_leaves_the_other_slots_their_share() -> None:
    (first,) = scheduler(waiting=[ask("a", (800, 400, 200))]).decide(0.0)
    assert (first.step, first.num_bytes) == (2, 200)
    (large,) = scheduler(waiting=[ask("a", (800, 400))]).decide(0.0)
    assert large.num_bytes == 400, "more than a share, where nothing smaller is there"


def test_an_idle_device_beats_a_busy_one_and_the_tightest_fit_wins() -> None:
    small, large = Device("cuda:1", "cuda", 500, 400, 2), Device("cuda:2", "cuda", 2000, 1900, 2)
    placed = scheduler(CARD, small, large, waiting=[ask(f"t{i}", 150, order=i) for i in range(4)]).decide(0.0)
    assert [p.device.name for p in placed] == ["cuda:1", "cuda:0", "cuda:2", "cuda:1"]


def test_a_job_stays_where_its_model_is_warm() -> None:
    twin = Device("cuda:1", "cuda", 1000, 900, slots=3)
    made = scheduler(CARD, twin)
    first = Request("a", "job", "", 0, 0.0, 0, {"cuda": (300,)})
    second = Request("b", "job", "", 0, 0.0, 1, {"cuda": (300,)})
    made.offer(Request("other", "x", "", 1, 0.0, 0, {"cuda": (300,)}))
    made.offer(first)
    homes = {p.request.id: p.device.name for p in made.decide(0.0)}
    made.release("a")
    made.release("other")
    made.offer(second)
    assert [p.device.name for p in made.decide(1.0)] == [homes["a"]]


def test_alone_means_nothing_else_before_and_nothing_else_beside() -> None:
    made = scheduler(waiting=[ask("a")])
    made.decide(0.0)
    made.offer(ask("careful", 100, priority=1, alone=True))
    made.offer(ask("b", since=1.0))
    assert made.decide(1.0) == [], "the card is kept until it is empty"
    made.release("a")
    (placed,) = made.decide(2.0)
    assert (placed.request.id, placed.num_bytes) == ("careful", CARD.budget_bytes)
    made.release("careful")
    assert [p.request.id for p in made.decide(3.0)] == ["b"]


def test_a_device_to_avoid_is_passed_by() -> None:
    twin = Device("cuda:1", "cuda", 1000, 900, slots=3)
    made = scheduler(CARD, twin, waiting=[ask("a", avoid=frozenset({"cuda:0"}))])
    assert [p.device.name for p in made.decide(0.0)] == ["cuda:1"]


def test_a_budget_that_shrinks_keeps_new_tasks_away_and_grows_back() -> None:
    made = scheduler(waiting=[ask("a", 300), ask("b", 300, since=1.0)])
    made.decide(0.0)
    made.set_devices([Device("cuda:0", "cuda", 1000, 500, slots=3)])
    made.offer(ask("c", 100))
    assert made.decide(1.0) == []
    made.release("a")
    assert [p.request.id for p in made.decide(2.0)] == ["c"]


def test_a_card_that_vanishes_takes_nothing_and_its_reservations_end_normally() -> None:
    made = scheduler(waiting=[ask("a", 300)])
    made.decide(0.0)
    made.set_devices([])
    made.offer(ask("b", 300))
    assert made.decide(1.0) == []
    made.release("a")
    made.set_devices([CARD])
    assert [p.request.id for p in made.decide(2.0)] == ["b"]


def test_withdrawn_and_changed_requests() -> None:
    made = scheduler(waiting=[ask("a", 950), ask("b")])
    made.withdraw("b")
    made.withdraw("unknown")
    assert made.decide(0.0) == []
    made.offer(ask("a", 90))
    assert [p.num_bytes for p in made.decide(1.0)] == [90]
    with pytest.raises(ValueError, match="holds a reservation"):
        made.offer(ask("a", 90))


def test_reserving_twice_or_too_much_is_a_mistake() -> None:
    capacity = Capacity([CARD])
    capacity.reserve("a", "cuda:0", 100)
    with pytest.raises(ValueError, match="holds a reservation"):
        capacity.reserve("a", "cuda:0", 100)
    with pytest.raises(ValueError, match="does not fit"):
        capacity.reserve("b", "cuda:0", 801)
    capacity.release("a")
    capacity.release("a")
    assert capacity.used_bytes("cuda:0") == capacity.used_slots("cuda:0") == 0


needs = st.lists(st.integers(1, 1200), min_size=1, max_size=3).map(lambda sizes: tuple(sorted(sizes, reverse=True)))
tasks = st.lists(
    st.tuples(needs, st.integers(-2, 2), st.floats(0, 500), st.sampled_from("abc"), st.booleans()), max_size=25
)
cards = st.lists(st.tuples(st.integers(200, 1200), st.integers(1, 4)), min_size=1, max_size=4)


@settings(max_examples=300, deadline=None)
@given(tasks=tasks, cards=cards, seed=st.integers(0, 1000))
def test_reservations_stay_within_budget_and_everything_that_fits_ends(
    tasks: list[tuple[tuple[int, ...], int, float, str, bool]], cards: list[tuple[int, int]], seed: int
) -> None:
    dice = random.Random(seed)
    devices = [Device(f"cuda:{n}", "cuda", budget, budget, slots) for n, (budget, slots) in enumerate(cards)]
    waiting = [ask(f"t{i}", n, p, since, folder, alone=alone) for i, (n, p, since, folder, alone) in enumerate(tasks)]
    largest = max(d.budget_bytes for d in devices)
    possible = {r.id for r in waiting if r.needs["cuda"][-1] <= largest}
    made = scheduler(*devices, waiting=waiting)
    ended: set[str] = set()
    running: list[str] = []
    now = 500.0
    for _ in range(2 * len(tasks) + 2):
        for placed in made.decide(now):
            running.append(placed.request.id)
            assert placed.num_bytes == placed.device.budget_bytes or not placed.request.alone
        for device in devices:
            held = [r for r in made.capacity.reservations.values() if r.device == device.name]
            assert sum(r.num_bytes for r in held) == made.capacity.used_bytes(device.name) <= device.budget_bytes
            assert len(held) == made.capacity.used_slots(device.name) <= device.slots
        if running:
            over = running.pop(dice.randrange(len(running)))
            made.release(over)
            ended.add(over)
        now += 30.0
    assert ended == possible


def test_what_fits_no_card_does_not_stand_in_the_way_of_what_is_a_little_smaller() -> None:
    """Its card has gone since it was planned. It waits on, and takes the card when that is back."""
    small = Device("cuda:0", "cuda", 256, 256, 1)
    made = scheduler(small, waiting=[ask("large", 257, alone=True), ask("fits", 256, order=1, alone=True)])
    assert [p.request.id for p in made.decide(0.0)] == ["fits"]
    made.release("fits")
    assert made.decide(1.0) == []
    assert made.is_waiting("large")
    made.set_devices([Device("cuda:0", "cuda", 300, 300, 1)])
    assert [p.request.id for p in made.decide(2.0)] == ["large"]


HOST = Device("cpu", "cpu", 2000, 1000, slots=2)


def test_a_worker_on_a_card_takes_of_the_hosts_ram_too() -> None:
    made = scheduler(CARD, HOST, waiting=[ask(f"t{i}", 100, order=i, host_bytes=400) for i in range(3)])
    assert [p.request.id for p in made.decide(0.0)] == ["t0", "t1"], "a third would be 1200 of 1000"
    assert made.capacity.used_bytes("cpu") == 800
    assert made.capacity.used_slots("cpu") == 0
    made.release("t0")
    assert made.capacity.used_bytes("cpu") == 400
    assert [p.request.id for p in made.decide(1.0)] == ["t2"]


def test_the_host_is_kept_for_a_card_task_that_lacks_only_ram() -> None:
    """A stream of small tasks on the host does not keep it out for ever."""
    made = scheduler(CARD, HOST, waiting=[Request("h0", "j", "", 0, 0.0, 0, {"cpu": (600,)})])
    made.decide(0.0)
    made.offer(ask("large", 100, since=1.0, host_bytes=900))
    made.offer(Request("h1", "j", "", 0, 2.0, 1, {"cpu": (300,)}))
    assert made.decide(3.0) == []
    made.release("h0")
    assert [p.request.id for p in made.decide(4.0)] == ["large"]
    made.release("large")
    assert [p.request.id for p in made.decide(5.0)] == ["h1"]


def test_more_ram_than_the_host_has_counts_as_all_of_it() -> None:
    made = scheduler(CARD, HOST, waiting=[ask("a", host_bytes=5000)])
    assert [p.request.id for p in made.decide(0.0)] == ["a"]
    assert made.capacity.free_bytes("cpu") == 0


def test_alone_on_the_host_waits_for_what_card_workers_take_of_it() -> None:
    made = scheduler(CARD, HOST, waiting=[ask("card", host_bytes=300)])
    made.decide(0.0)
    made.offer(Request("careful", "j", "", 0, 1.0, 0, {"cpu": (200,)}, alone=True))
    assert made.decide(1.0) == []
    made.release("card")
    assert [p.num_bytes for p in made.decide(2.0)] == [1000]


@settings(max_examples=200, deadline=None)
@given(
    wanted=st.lists(
        st.tuples(st.sampled_from(["cuda", "cpu"]), st.integers(1, 1000), st.integers(0, 1500), st.integers(-1, 1)),
        max_size=20,
    ),
    seed=st.integers(0, 1000),
)
def test_both_budgets_hold_and_everything_ends_where_cards_take_of_the_host(
    wanted: list[tuple[str, int, int, int]], seed: int
) -> None:
    dice = random.Random(seed)
    devices = [Device(f"cuda:{n}", "cuda", 1000, 1000, 2) for n in range(2)]
    devices.append(Device("cpu", "cpu", 1000, 1000, 2))
    made = scheduler(*devices)
    for i, (kind, need, beside, priority) in enumerate(wanted):
        made.offer(Request(f"t{i}", f"j{i}", "ab"[i % 2], priority, 0.0, i, {kind: (need,)}, host_bytes=beside))
    running: list[str] = []
    ended = 0
    for tick in range(2 * len(wanted) + 2):
        running += [placed.request.id for placed in made.decide(float(tick))]
        for device in devices:
            held = [r for r in made.capacity.reservations.values() if r.device == device.name]
            assert sum(r.num_bytes for r in held) == made.capacity.used_bytes(device.name) <= device.budget_bytes
            assert sum(r.slots for r in held) == made.capacity.used_slots(device.name) <= device.slots
        if running:
            made.release(running.pop(dice.randrange(len(running))))
            ended += 1
    assert ended == len(wanted)
    assert not made.capacity.reservations


@settings(max_examples=60, deadline=None)
@given(
    large=st.integers(300, 900),
    small=st.integers(1, 300),
    slots=st.integers(1, 4),
    rival=st.integers(0, 2),
    seed=st.integers(0, 100),
)
def test_nothing_starves_under_an_endless_stream(large: int, small: int, slots: int, rival: int, seed: int) -> None:
    """Small tasks of another folder, up to two steps more urgent, never stop coming; the large one still gets in."""
    dice = random.Random(seed)
    made = Scheduler([Device("cuda:0", "cuda", 900, 900, slots)], aging_seconds=60.0)
    running: list[str] = []
    now, number = 0.0, 0
    made.offer(ask("large", large, since=0.0, folder="quiet"))
    while now < 60.0 * (rival + 2) + 10.0 * (slots + 2):
        while made.num_waiting < 8:
            number += 1
            made.offer(ask(f"s{number}", small, rival, now, "flood", number))
        placed: Mapping[str, str] = {p.request.id: p.device.name for p in made.decide(now)}
        if "large" in placed:
            return
        running += placed
        made.release(running.pop(dice.randrange(len(running))))
        now += 10.0
    raise AssertionError("the large task starved")


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 1000))
def test_folders_share_alike_whatever_each_of_them_drops(folders: int, slots: int, seed: int) -> None:
    """Folder 0 dropped a thousand long tasks before all others: by age alone nobody else would be served."""
    dice = random.Random(seed)
    devices = [Device(f"cuda:{n}", "cuda", 900, 900, slots) for n in range(folders)]
    made = Scheduler(devices, aging_seconds=1e9)
    started = dict.fromkeys(range(folders), 0)
    ends: dict[str, float] = {}
    held = dict.fromkeys(range(folders), 0)
    for i in range(1000):
        made.offer(ask(f"0/{i}", 100, since=-1000.0, folder="0", order=i))
    for tick in range(200):
        now = float(tick)
        for name in [name for name, end in ends.items() if end <= now]:
            made.release(name)
            del ends[name]
        for folder in range(1, folders):
            for i in range(3):
                made.offer(ask(f"{folder}/{tick}/{i}", 100, since=now, folder=str(folder), order=i))
        for placed in made.decide(now):
            folder = int(placed.request.folder)
            started[folder] += 1
            ends[placed.request.id] = now + (3 if folder == 0 else 1) * dice.choice((1, 2))
        for name in ends:
            held[int(name.partition("/")[0])] += 1
    assert max(held.values()) <= 1.25 * min(held.values()), "slots are shared, not turns: long tasks get fewer of them"
    others = [count for folder, count in started.items() if folder]
    assert max(others) - min(others) <= 0.25 * max(others)
    assert started[0] >= 0.2 * max(others)
