import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.errors import CannotFitError
from heygemd.core.memory import Estimate
from heygemd.core.plan import Choice, DeviceOffer, Plan, PlanRequest, Segment, choices, cut, expected, monotone


def request(num_frames: int, seconds: float = 10.0, cap: int = 3000, cost: np.ndarray | None = None) -> PlanRequest:
    return PlanRequest(num_frames, Fraction(25), 640, 480, seconds, cap, cost)


@given(
    num_frames=st.integers(1, 20_000),
    seconds=st.floats(0.01, 100),
    cap=st.integers(1, 3000),
    seed=st.none() | st.integers(0, 5),
)
def test_segments_cover_every_frame_once_and_keep_the_caps(
    num_frames: int, seconds: float, cap: int, seed: int | None
) -> None:
    cost = None if seed is None else np.random.default_rng(seed).random(num_frames).astype(np.float32)
    segments = cut(request(num_frames, seconds, cap, cost))
    most = max(1, min(cap, int(Fraction(seconds) * 25)))
    assert [s.number for s in segments] == list(range(len(segments)))
    assert segments[0].first_frame == 0
    assert segments[-1].stop_frame == num_frames
    assert all(a.stop_frame == b.first_frame for a, b in itertools.pairwise(segments))
    assert all(1 <= s.num_frames <= most for s in segments)


def test_cuts_move_to_where_it_is_quiet() -> None:
    cost = np.ones(500, np.float32)
    cost[262] = 0.0
    first, second = cut(request(500, 11.0, cost=cost))
    assert first.stop_frame == second.first_frame == 262


def predict(device: str, precision: str, batch: int) -> Estimate:
    weights = 100 if precision == "float32" else 50
    need = weights + batch * (10 if device == "cuda" else 5)
    return Estimate(need - 1, need, "formula")


def best(*offers: DeviceOffer) -> Choice:
    return expected(choices(predict, offers, what="it"), offers)


def test_the_largest_batch_that_fits_is_taken() -> None:
    assert best(DeviceOffer("cuda", 500)) == Choice("cuda", "float32", 32, 419, 420)


def test_with_two_slots_one_render_leaves_room_for_the_other() -> None:
    assert best(DeviceOffer("cuda", 500, slots=2)).batch == 8
    assert best(DeviceOffer("cuda", 150, slots=2)).batch == 1, "what needs more than a share gets it alone"


def test_a_card_is_preferred_to_the_cpu_and_the_first_precision_to_the_second() -> None:
    offers = (DeviceOffer("cpu", 10_000), DeviceOffer("cuda", 200, ("bfloat16", "float32")))
    found = choices(predict, offers, what="it")
    assert [(c.kind, c.precision, c.batch) for c in found] == [("cuda", "bfloat16", b) for b in (8, 4, 2, 1)]


def test_every_kind_that_fits_is_an_alternative_in_the_same_precision() -> None:
    found = choices(predict, (DeviceOffer("cpu", 112), DeviceOffer("cuda", 125)), what="it")
    assert [(c.kind, c.batch) for c in found] == [("cuda", 2), ("cuda", 1), ("cpu", 2), ("cpu", 1)]


def test_what_cannot_fit_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(CannotFitError, match="a 4K render needs at least 1 MiB") as caught:
        choices(predict, (DeviceOffer("cuda", 100),), what="a 4K render")
    assert "offers 1 MiB" in caught.value.remedy
    assert caught.value.details == {"case": "memory", "needed_bytes": 110, "offered_bytes": 100}


offers_of_a_kind = st.lists(st.integers(110, 2000), min_size=1, max_size=4)


@given(
    budgets=offers_of_a_kind,
    more=st.integers(0, 2000),
    slots=st.integers(1, 4),
    frames=st.integers(1, 5000),
    kind=st.sampled_from(["cpu", "cuda"]),
)
def test_more_memory_never_means_a_smaller_batch_or_more_segments(
    budgets: list[int], more: int, slots: int, frames: int, kind: str
) -> None:
    small, large = ([DeviceOffer(kind, b + extra, slots=slots) for b in budgets] for extra in (0, more))
    assert best(*large).batch >= best(*small).batch
    assert set(choices(predict, large, what="it")) >= set(choices(predict, small, what="it"))
    assert cut(request(frames)) == cut(request(frames)), "how an item is cut does not depend on memory at all"


def test_a_frame_of_many_pixels_makes_short_segments() -> None:
    small = PlanRequest(900, Fraction(30), 1920, 1080, 30.0, 3000, None, 6_200_000_000)
    large = PlanRequest(900, Fraction(30), 7680, 4320, 30.0, 3000, None, 6_200_000_000)
    assert [len(cut(r)) for r in (small, large)] == [1, 5]
    assert max(s.num_frames for s in cut(large)) <= 186
    assert len(cut(PlanRequest(3, Fraction(30), 7680, 4320, 30.0, 3000, None, 1))) == 3, "one frame is always allowed"


def test_a_split_keeps_every_frame_and_every_other_name() -> None:
    plan = Plan((Segment(0, 0, 100), Segment(1, 100, 200), Segment(2, 200, 300)), 1, "float32", 0, "cpu")
    split = plan.split(1)
    assert split.segments == (
        Segment(0, 0, 100),
        Segment(3, 100, 150, 1),
        Segment(4, 150, 200, 1),
        Segment(2, 200, 300),
    )
    again = split.split(4)
    assert [s.number for s in again.segments] == [0, 3, 5, 6, 2]
    assert not again.can_split(5) and not again.can_split(6), "too short, and split twice"
    assert plan.can_split(0)


def test_a_limited_plan_keeps_what_is_small_enough() -> None:
    ways = tuple(Choice("cuda", "float32", b, b, b) for b in (8, 4, 2, 1))
    plan = Plan((Segment(0, 0, 9),), 8, "float32", 8, "cuda", ways)
    assert plan.limited(3).needs == {"cuda": (2, 1)}
    assert plan.limited(2).batch == 2
    assert plan.limited(0) == plan, "nothing would be left"


def test_a_larger_batch_never_counts_for_less() -> None:
    ways = [Choice("cpu", "float32", b, n, n) for b, n in ((4, 10), (2, 30), (1, 20))]
    assert [c.reserved_bytes for c in monotone(ways)] == [30, 30, 20]


def test_a_plan_survives_json() -> None:
    plan = Plan(
        (Segment(0, 0, 5), Segment(1, 5, 9)), 4, "float32", 123, "cpu", (Choice("cpu", "float32", 4, 123, 150),), True
    )
    assert Plan.from_dict(plan.to_dict()) == plan
