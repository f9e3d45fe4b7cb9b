"""Who is let in, and which folder has enough."""

from __future__ import annotations

from heygemd.core.job import Item, Job
from heygemd.core.options import Options
from heygemd.service.admission import Admission


def job(name: str, folder: str = "", created: float = 0.0, error: dict[str, str] | None = None) -> Job:
    return Job(name, name, folder, (Item(name, "v", "a"),), (), Options(), created_seconds=created, error=error)


def decide(admission: Admission, *, room: int = 1, most: float = 0.0, **seconds: float) -> list[str]:
    return admission.decide(100.0, room=room, aging_seconds=600.0, seconds=seconds, most_seconds=most)


def test_a_folder_with_enough_in_work_lets_the_others_go_first() -> None:
    admission = Admission(600.0)
    for n in range(3):
        admission.offer(job(f"long{n}", "long", n))
    admission.offer(job("short", "short", 50.0))
    assert decide(admission) == ["long0"]
    admission.release("long0")
    assert decide(admission, room=3, most=60.0, long=3600.0, short=0.0) == ["short"]
    assert admission.holds("long") and not admission.holds("short")
    admission.offer(job("long3", "long", 9.0))
    assert decide(admission, room=5, most=60.0, long=61.0) == []
    assert decide(admission, room=9, most=60.0, long=59.0) == ["long1", "long2", "long3"], "none was dropped"


def test_without_a_limit_seconds_do_not_matter() -> None:
    admission = Admission(600.0)
    admission.offer(job("a", "f"))
    assert decide(admission, f=1e9) == ["a"]


def test_a_held_job_can_be_withdrawn() -> None:
    admission = Admission(600.0)
    first, second = job("a", "f"), job("b", "f", 1.0)
    admission.offer(first)
    admission.offer(second)
    assert decide(admission, most=1.0, f=2.0) == []
    admission.withdraw(first)
    assert decide(admission, room=9, most=1.0, f=0.0) == ["b"]


def test_what_is_refused_waits_behind_no_render_but_not_all_goes_at_once() -> None:
    admission = Admission(600.0)
    admission.offer(job("render", created=1.0))
    for n in range(20):
        admission.offer(job(f"typo{n}", created=2.0, error={"message": "typo"}))
    assert decide(admission, room=1) == [*(f"typo{n}" for n in range(8)), "render"]
    assert decide(admission, room=1) == []
    admission.release("typo3")
    admission.withdraw(job("typo8"))
    assert decide(admission, room=1) == ["typo9"]
