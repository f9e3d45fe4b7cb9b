"""The simulator keeps the promises of the scheduler, on traces large enough to mean something."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heygemd.core.errors import UsageError
from heygemd.core.simulate import Simulation
from heygemd.core.simulate_trace import TraceJob, generate, parse_trace
from heygemd.core.simulate_world import World

MIXED = [24576, 24576, 8192]


def run(gpu_mib: list[int], jobs: tuple[TraceJob, ...], **world: Any) -> dict[str, Any]:
    simulation = Simulation(gpu_mib, World(**world))
    simulation.run(jobs)
    return simulation.report()


def test_a_saturated_queue_ends_close_to_the_lower_bound() -> None:
    report = run(MIXED, generate(200, seed=1))
    assert report["jobs"] == {"finished": 200, "failed": 0, "refused": 0}
    assert 1.0 <= report["makespan_over_bound"] <= 1.15
    assert report["most_reserved_of_budget"] <= 1.0


@pytest.mark.parametrize("seed", range(4))
def test_no_out_of_memory_with_a_tenth_of_error_and_co_tenants(seed: int) -> None:
    report = run(MIXED, generate(120, seed), seed=seed, error=0.10, noise=0.05)
    assert report["out_of_memory_events"] == 0
    assert report["jobs"] == {"finished": 120, "failed": 0, "refused": 0}


@pytest.mark.parametrize("seed", range(4))
def test_all_jobs_finish_when_everything_takes_sixty_percent_more(seed: int) -> None:
    """The largest ways meet out-of-memory, the ladder and the calibration bring them down."""
    report = run([8192, 6144], generate(120, seed), seed=seed, bias=0.60, error=0.10)
    assert report["jobs"] == {"finished": 120, "failed": 0, "refused": 0}
    assert 0 < report["out_of_memory_events"] < 60


def test_workers_that_die_and_cards_that_vanish_cost_time_not_jobs() -> None:
    report = run(MIXED, generate(120, seed=3), seed=3, deaths=0.02, losses=4, noise=0.05)
    jobs = report["jobs"]
    assert jobs["finished"] + jobs["failed"] == 120
    assert jobs["failed"] <= 2, "three deaths of one segment are possible, and rare"
    assert report["worker_deaths"] > 0 and report["cards_lost"] == 4


def test_what_fits_no_card_is_refused_before_anything_starts() -> None:
    jobs = (TraceJob("huge", 0.0, 100, 7680, 4320), TraceJob("small", 0.0, 100, 640, 480))
    report = run([1500], jobs)
    assert report["jobs"] == {"finished": 1, "failed": 0, "refused": 1}
    assert report["refused_ids"] == ["huge"]


def test_the_most_urgent_wait_least() -> None:
    waits = run(MIXED, generate(200, seed=1))["wait_seconds"]
    assert waits["10"]["p95"] < waits["5"]["p95"] < waits["0"]["p95"]


def test_the_same_seed_gives_the_same_run() -> None:
    def one() -> dict[str, object]:
        report = run(MIXED, generate(60, seed=9), seed=9, error=0.1, noise=0.05, deaths=0.01)
        return {key: value for key, value in report.items() if key != "microseconds_a_decision"}

    assert one() == one()


@settings(max_examples=15, deadline=None)
@given(
    cards=st.lists(st.sampled_from([4096, 8192, 24576]), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    bias=st.sampled_from([-0.3, 0.0, 0.6, 1.0]),
    noise=st.sampled_from([0.0, 0.05, 0.3]),
    deaths=st.sampled_from([0.0, 0.05]),
)
def test_every_job_ends_whatever_the_world_does(
    cards: list[int], seed: int, bias: float, noise: float, deaths: float
) -> None:
    report = run(cards, generate(25, seed), seed=seed, bias=bias, noise=noise, deaths=deaths)
    assert sum(report["jobs"].values()) == 25  # type: ignore[attr-defined]
    assert report["makespan_over_bound"] is None or report["makespan_over_bound"] >= 1.0


def test_the_lower_bound_is_one_where_a_slot_has_no_room_for_a_batch() -> None:
    """Of 8K only the smallest fits one slot's share of this card, and more where the other slot has little to do."""
    jobs = (TraceJob("4k", 0.0, 36000, 3840, 2160), TraceJob("8k", 100.0, 1500, 7680, 4320))
    assert 1.0 <= run([8192], jobs)["makespan_over_bound"] <= 1.15


def test_a_trace_from_a_file() -> None:
    lines = ["# a comment", "", json.dumps({"frames": 50, "arrival_seconds": 9}), json.dumps({"id": "x", "frames": 5})]
    assert parse_trace(lines, "t") == (TraceJob("x", 0.0, 5), TraceJob("job3", 9, 50))


def test_a_rate_need_not_be_whole() -> None:
    jobs = parse_trace(['{"frames": 3000, "fps": 29.97}'], "t")
    assert run([8192], jobs)["jobs"] == {"finished": 1, "failed": 0, "refused": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "t, line 1"),
        ("[]", "no JSON object"),
        ('{"frames": 5, "heigth": 3}', "unknown field 'heigth'"),
        ('{"frames": 0}', "frames 0: must be a whole number from 1"),
        ('{"frames": true}', "frames True"),
        ('{"frames": 100000000000000}', "from 1 to 10000000"),
        ('{"frames": 5, "fps": 0}', "fps 0"),
        ('{"frames": 5, "arrival_seconds": NaN}', "arrival_seconds nan"),
        ('{"frames": 5, "arrival_seconds": "5"}', "arrival_seconds '5'"),
        ('{"frames": 5, "priority": "high"}', "priority 'high'"),
        ('{"frames": 5, "priority": 1e999}', "priority inf"),
        ('{"frames": 5, "id": ["x"]}', "id .'x'.: must be text"),
        ('{"frames": 5, "folder": null}', "folder None"),
        ("{}", "it has no `frames`"),
    ],
)
def test_a_bad_trace_says_where(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_trace([line], "t")
