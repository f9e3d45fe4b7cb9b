"""One owner of the share at a time, whatever clocks, pauses and caches do."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from heygemd import failpoints
from heygemd.core.errors import HeygemdError, LeaseLostError
from heygemd.core.job import InputFile, Item, Job
from heygemd.spool.claims import ClaimBook
from heygemd.spool.lease import FOLDER, Keeper, Lease, last_link


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def lease(root: Path, owner: str, clock: Clock, *, host: str | None = None) -> Lease:
    return Lease(root, owner, 10.0, host=host or owner, clock=clock)


def test_the_first_takes_it_and_the_second_waits_until_it_is_silent(tmp_path: Path) -> None:
    one_clock, two_clock = Clock(), Clock(5_000_000.0)  # skewed by weeks: nobody compares
    one, two = lease(tmp_path, "one", one_clock), lease(tmp_path, "two", two_clock)
    assert one.attempt()
    for _ in range(20):
        two_clock.now += 5.0
        one.renew()
        assert not two.attempt(), "it beats, so it lives"
    two_clock.now += 9.9
    assert not two.attempt()
    two_clock.now += 0.2
    assert two.attempt()
    assert two.holder is not None and two.holder.owner == "one"


def test_a_paused_owner_that_wakes_learns_it_before_it_does_anything(tmp_path: Path) -> None:
    clock = Clock()
    one, two = lease(tmp_path, "one", Clock()), lease(tmp_path, "two", clock)
    assert one.attempt() and not two.attempt()
    clock.now += 10.0
    assert two.attempt()
    with pytest.raises(LeaseLostError, match="taken over"):
        one.renew()  # its own clock has not moved: to it nothing has happened
    assert one.lost is not None
    with pytest.raises(LeaseLostError):
        one.renew()
    two.renew()


def test_of_many_that_want_a_free_share_exactly_one_gets_it(tmp_path: Path) -> None:
    clocks = [Clock() for _ in range(16)]
    rivals = [lease(tmp_path, f"daemon{n}", clock) for n, clock in enumerate(clocks)]
    gone = lease(tmp_path, "gone", Clock())
    assert gone.attempt()
    for rival, clock in zip(rivals, clocks, strict=True):
        assert not rival.attempt()
        clock.now += 10.0
    start, got = threading.Barrier(len(rivals)), []

    def run(rival: Lease) -> None:
        start.wait()
        if rival.attempt():
            got.append(rival)

    threads = [threading.Thread(target=run, args=(rival,)) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    with pytest.raises(LeaseLostError):
        gone.renew()
    got[0].renew()


def test_a_restarted_daemon_takes_its_own_again_at_once_and_a_copy_of_its_state_elsewhere_does_not(
    tmp_path: Path,
) -> None:
    assert lease(tmp_path, "me", Clock(), host="here").attempt()
    assert not lease(tmp_path, "me", Clock(), host="there").attempt()
    assert lease(tmp_path, "me", Clock(), host="here").attempt()


def test_one_that_lets_go_in_order_keeps_nobody_waiting(tmp_path: Path) -> None:
    one, two = lease(tmp_path, "one", Clock()), lease(tmp_path, "two", Clock())
    assert one.attempt()
    one.release()
    assert two.attempt()
    with pytest.raises(LeaseLostError):
        one.renew()


def test_while_the_share_is_away_nobody_counts_as_silent(tmp_path: Path) -> None:
    root, clock = tmp_path / "share", Clock()
    root.mkdir()
    one, two = lease(root, "one", Clock()), lease(root, "two", clock)
    assert one.attempt() and not two.attempt()
    root.rename(tmp_path / "away")
    clock.now += 100.0
    with pytest.raises(HeygemdError):
        two.attempt()
    (tmp_path / "away").rename(root)
    assert not two.attempt()
    clock.now += 9.0
    assert not two.attempt()
    clock.now += 2.0
    assert two.attempt()


def test_the_chain_does_not_grow_and_a_stale_listing_cannot_restart_it(tmp_path: Path) -> None:
    one = lease(tmp_path, "one", Clock())
    assert one.attempt()
    for _ in range(250):
        one.renew()
    names = [path.name for path in (tmp_path / FOLDER).iterdir()]
    assert len(names) <= 101
    two = lease(tmp_path, "two", Clock())
    assert two._make(251) is False, "it exists"
    assert two._make(3) is False, "long removed, but not the last"
    last = last_link(tmp_path / FOLDER)
    assert last is not None and (last.number, last.owner) == (251, "one")


def test_the_keeper_renews_while_the_loop_turns_and_says_when_it_is_over(tmp_path: Path) -> None:
    def number() -> int:
        return (last_link(tmp_path / FOLDER) or pytest.fail("no link")).number

    one = Lease(tmp_path, "one", 0.2, host="one")
    assert one.attempt()
    keeper = Keeper(one)
    clock = Clock()
    two = lease(tmp_path, "two", clock)
    until = time.monotonic() + 120
    try:
        for _ in range(6):
            seen = number()
            while number() == seen:
                assert time.monotonic() < until, "nobody renews it"
                time.sleep(0.01)
            keeper.turn()
            clock.now += 1000.0
            assert not two.attempt(), "another link than before: it lives"
        while not two._make(number() + 1):
            assert time.monotonic() < until
        with pytest.raises(LeaseLostError):
            while time.monotonic() < until:
                time.sleep(0.01)
                keeper.turn()
    finally:
        keeper.stop()


def job(job_id: str, *paths: str) -> Job:
    inputs = tuple(InputFile(path, "video", 10, 20, 1, 2) for path in paths)
    return Job(job_id, job_id, "", (Item(job_id, paths[0]),), inputs)


def test_two_daemons_never_hold_the_same_drop_and_whoever_comes_later_gets_the_first_ones_job(tmp_path: Path) -> None:
    one, two = ClaimBook(tmp_path), ClaimBook(tmp_path)
    assert one.open() == two.open() == []
    first, second = job("a", "x.mp4", "x.wav"), job("b", "x.wav", "x.mp4")
    assert one.claim([first]) == [first]
    assert two.claim([second, job("c", "y.mp4")]) == [first, job("c", "y.mp4")]
    assert {found.id for found in two.open()} == {"a", "c"}
    one.release(first)
    assert two.claim([second]) == [second]


@pytest.mark.parametrize("action", ["enospc", "eio", "estale", "ebusy"])
def test_faults_while_a_claim_or_a_lease_is_taken(tmp_path: Path, action: str) -> None:
    book, owner = ClaimBook(tmp_path), lease(tmp_path, "one", Clock())
    book.open()
    for point, take in (("claim.take", lambda: book.claim([job("a", "x.mp4")])), ("lease.take", owner.attempt)):
        failpoints.arm(f"{point}={action}")
        try:
            with pytest.raises(HeygemdError) as caught:
                take()
        finally:
            failpoints.arm("")
        assert caught.value.retryable
        assert not list(tmp_path.rglob("*.part"))
    assert book.open() == []
    assert [found.id for found in book.claim([job("a", "x.mp4")])] == ["a"]
    assert owner.attempt()


def test_a_damaged_claim_holds_nothing(tmp_path: Path) -> None:
    book = ClaimBook(tmp_path)
    book.open()
    book.claim([job("a", "x.mp4")])
    next((tmp_path / FOLDER / "jobs").iterdir()).write_text("{")
    assert book.open() == []
    assert [found.id for found in book.claim([job("b", "x.mp4")])] == ["b"]
