import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.errors import CannotFitError
from heygemd.core.plan import DeviceOffer, Plan, PlanRequest, Segment, choose_batch, cut


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


def predict(device: str, precision: str, batch: int) -> int:
    weights = 100 if precision == "float32" else 50
    return weights + batch * (10 if device == "cuda" else 5)


def test_the_largest_batch_that_fits_is_taken() -> None:
    offer, batch, precision, need = choose_batch(predict, (DeviceOffer("cuda", 500),), what="it")
    assert (offer.kind, batch, precision, need) == ("cuda", 32, "float32", 420)


def test_a_card_is_preferred_to_the_cpu_and_the_first_precision_to_the_second() -> None:
    offers = (DeviceOffer("cpu", 10_000), DeviceOffer("cuda", 200, ("bfloat16", "float32")))
    assert choose_batch(predict, offers, what="it")[:3] == (offers[1], 8, "bfloat16")


def test_what_cannot_fit_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(CannotFitError, match="a 4K render needs at least 1 MiB"):
        choose_batch(predict, (DeviceOffer("cuda", 100),), what="a 4K render")


@given(budget=st.integers(105, 2000), more=st.integers(0, 2000))
def test_more_memory_never_means_a_smaller_batch(budget: int, more: int) -> None:
    offers = [(DeviceOffer("cpu", b),) for b in (budget, budget + more)]
    small, large = (choose_batch(predict, offer, what="it")[1] for offer in offers)
    assert large >= small


def test_a_plan_survives_json() -> None:
    plan = Plan((Segment(0, 0, 5), Segment(1, 5, 9)), 4, "float32", 123, "cpu")
    assert Plan.from_dict(plan.to_dict()) == plan
