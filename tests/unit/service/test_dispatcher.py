"""The dispatcher's decisions, without processes: every way a job can go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heygemd.core import errors
from heygemd.core.errors import HeygemdError
from heygemd.core.job import JobState
from heygemd.core.placement import Device
from heygemd.core.task import Task
from heygemd.gpu.devices import MemoryNow
from heygemd.service.door import InputGoneError
from heygemd.service.tasks import HOST_BYTES
from tests.unit.service.fakes import CPU, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.dispatcher.close()


def test_a_job_goes_through_every_state_and_leaves_no_work(rig: Rig, tmp_path: Path) -> None:
    rig.submit()
    rig.run()
    states = [state for _, state in rig.journal.states]
    assert states == ["staging", "preparing", "rendering", "finishing", "publishing", "done"]
    assert rig.journal.done == [("job-0", n) for n in range(4)]
    job, (outcome,), error, receipt = rig.door.delivered[0]
    assert error is None
    assert outcome.error is None
    assert receipt["items"][0]["segments"] == 4
    assert rig.journal.released == [job.id]
    assert not (tmp_path / job.id).exists()
    assert rig.dispatcher.ended[0].state is JobState.DONE


def test_a_new_job_is_not_kept_waiting_for_workers(rig: Rig) -> None:
    """Its inputs are copied in the very round after it came; that round does not wait for answers first."""
    rig.dispatcher.step(30.0)
    rig.submit()
    rig.dispatcher.step(30.0)
    assert rig.journal.states == [("job", "staging")]
    rig.dispatcher.step(30.0)
    idle, fresh, copying = rig.executor.waits
    assert idle == 30.0
    assert fresh == 0.0
    assert 0.0 < copying < 0.1


def test_the_receipt_adds_up_the_stages(rig: Rig) -> None:
    rig.submit()
    rig.run()
    item = rig.door.delivered[0][3]["items"][0]
    assert item["stage_seconds"] == {"analyse": 1.0, "generate": 2.0}
    assert item["device"] == "cpu"
    assert item["peak_mib"] == 5


def test_what_was_computed_in_another_precision_is_told_once_and_stands_in_the_receipt(rig: Rig) -> None:
    rig.executor.render_values = {
        "precision": "bfloat16",
        "precision_why": "in int8 it gives 36 dB",
        "remade_frames": 3,
    }
    rig.submit()
    rig.run()
    (told,) = [fields for event, fields in rig.events if event == "precision.changed"]
    assert told["precision"] == "bfloat16" and told["reason"] == "in int8 it gives 36 dB"
    assert {f["precision"] for event, f in rig.events if event == "segment.finished"} == {"bfloat16"}
    item = rig.door.delivered[0][3]["items"][0]
    assert item["precision"] == "bfloat16" and item["precision_why"] == "in int8 it gives 36 dB"
    assert item["frames_remade"] == 12, "three of each of four segments"


def test_what_was_computed_as_planned_needs_no_words(rig: Rig) -> None:
    rig.executor.render_values = {"precision": "float32", "precision_why": "", "remade_frames": 0}
    rig.submit()
    rig.run()
    assert not [event for event, _ in rig.events if event == "precision.changed"]
    item = rig.door.delivered[0][3]["items"][0]
    assert (item["precision"], item["precision_why"], item["frames_remade"]) == ("float32", "", 0)


def failing(kind: str, error: HeygemdError, until_try: int = 10**6):  # type: ignore[no-untyped-def]
    def script(task: Task, attempt: int) -> HeygemdError | None:
        return error if task.kind == kind and attempt <= until_try else None

    return script


@pytest.mark.parametrize("kind", ["prepare", "render", "finish"])
def test_a_worker_that_dies_once_costs_one_retry(tmp_path: Path, kind: str) -> None:
    rig = Rig(tmp_path, script=failing(kind, errors.WorkerDiedError("gone"), until_try=1))
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert any(name in ("segment.retried", "task.retried") for name in rig.names())


@pytest.mark.parametrize("kind", ["prepare", "render", "finish"])
def test_a_poison_job_fails_alone_after_its_attempts(tmp_path: Path, kind: str) -> None:
    def script(task: Task, _attempt: int) -> HeygemdError | None:
        return errors.WorkerDiedError("gone") if task.kind == kind and "id-poison" in task.id else None

    rig = Rig(tmp_path, script=script)
    rig.submit("poison")
    rig.submit("good")
    rig.run()
    ended = {job.name: job.state for job in rig.dispatcher.ended}
    assert ended == {"poison": JobState.FAILED, "good": JobState.DONE}
    tries = [n for task, n in rig.executor.tries.items() if "id-poison" in task]
    assert max(tries) == 3


def test_bad_input_fails_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, script=failing("prepare", errors.NoFaceError("v.mp4: no face")))
    rig.submit()
    rig.run()
    assert max(rig.executor.tries.values()) == 1
    assert isinstance(rig.door.delivered[0][2], errors.NoFaceError)
    assert rig.dispatcher.ended[0].error["code"] == "HG-1006"  # type: ignore[index]


def test_one_bad_item_of_a_batch_does_not_take_the_others_along(tmp_path: Path) -> None:
    def script(task: Task, _attempt: int) -> HeygemdError | None:
        return errors.NoFaceError("no face") if "/1/" in task.id else None

    rig = Rig(tmp_path, script=script)
    rig.submit(items=3)
    rig.run()
    outcomes = rig.door.delivered[0][1]
    assert [o.error is None for o in outcomes] == [True, False, True]
    assert rig.dispatcher.ended[0].state is JobState.FAILED


def test_a_host_that_is_too_small_to_prepare_refuses_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, host=Device("cpu", "cpu", 2**30, 300 * 2**20, slots=1))
    rig.submit()
    rig.run()
    error = rig.dispatcher.ended[0].error
    assert error is not None and error["type"] == "CannotFitError"
    assert "preparing takes 500 MiB" in error["message"] and "300 MiB at most" in error["message"]
    assert "cpu_memory_mib" in error["remedy"]
    assert rig.executor.tries == {}


def test_preparing_that_takes_more_than_usual_waits_for_it_and_no_attempt_counts(tmp_path: Path) -> None:
    """The worker's probe has found a recording of hours: the same task again, with what it takes."""
    rig = Rig(tmp_path)
    rig.executor.prepare_bytes = 3 * 2**30
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert rig.executor.reserved["id-job/0/prepare"] == [HOST_BYTES, 3 * 2**30]
    told = [name for name, _ in rig.events if name in ("job.prepared", "task.failed", "task.retried")]
    assert told == ["job.prepared"]


def test_two_long_recordings_are_prepared_one_after_the_other_where_ram_is_short(tmp_path: Path) -> None:
    """Both probe side by side; then what the lengths demand is reserved, and fits once."""
    rig = Rig(tmp_path)
    rig.executor.prepare_bytes = 7 * 2**30  # of 12
    rig.submit("one")
    rig.submit("two")
    at_once: list[int] = []

    def enough() -> bool:
        held = rig.dispatcher._runner._fleet.scheduler.capacity.reservations.values()
        at_once.append(sum(r.num_bytes >= 7 * 2**30 for r in held))
        return False

    rig.run(enough=enough)
    assert [job.state for job in rig.dispatcher.ended] == [JobState.DONE, JobState.DONE]
    assert max(at_once) == 1


class Neighbour:
    """A watch that tells of what a co-tenant has left."""

    elastic = False
    problem = None
    age_seconds = 0.0
    memory: Mapping[str, MemoryNow] = {}

    def __init__(self) -> None:
        self.left = CPU.budget_bytes

    def moved(self, reserved: Any, own_pids: Any) -> tuple[list[Device], dict[str, str]] | None:
        return [replace(CPU, budget_bytes=self.left)], {}

    def start(self) -> None: ...

    def stop(self) -> None: ...


def test_a_job_that_waits_for_memory_says_so_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    neighbour = Neighbour()
    rig = Rig(tmp_path, watch=neighbour, frames=300)
    rig.submit()
    rig.run(enough=lambda: bool(rig.journal.done))
    for _ in range(2):
        neighbour.left = 2**20
        rig.executor.hold = False
        with contextlib.suppress(AssertionError):
            rig.run(rounds=5)
        shown = rig.dispatcher.views()["job"]
        assert "it waits: no device offers the" in shown["reason"]
        neighbour.left = CPU.budget_bytes
        rig.executor.hold = True
        rig.dispatcher.step(0.0)
        assert "it waits" not in rig.dispatcher.views()["job"]["reason"]
    assert rig.names().count("job.waiting") == 2, "each time once"
    rig.executor.hold = False
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE


def test_out_of_memory_halves_the_batch_until_it_fits(tmp_path: Path) -> None:
    seen: list[int] = []

    def script(task: Task, _attempt: int) -> HeygemdError | None:
        if task.kind != "render":
            return None
        seen.append(task.values["batch"])
        return errors.OutOfMemoryError("too much") if task.values["batch"] > 2 else None

    rig = Rig(tmp_path, script=script)
    rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert min(seen) <= 2 < max(seen)


def test_a_full_disk_pauses_everything_and_it_goes_on_by_itself(tmp_path: Path) -> None:
    rig = Rig(tmp_path, script=failing("render", errors.DiskFullError("no room on the state disk"), until_try=6))
    rig.submit()
    for _ in range(500):
        rig.step()
        if rig.dispatcher.pauses.reason:
            break
        rig.clock.now += 0.01
    assert rig.dispatcher.pauses.reason == "no room on the state disk"
    rig.run(rounds=600)
    assert rig.dispatcher.ended[0].state is JobState.DONE, (
        "six full disks are more than the attempts, and still no failure"
    )
    assert "queue.paused" in rig.names()
    assert "queue.resumed" in rig.names()


def test_a_share_that_is_away_while_delivering_costs_nothing(rig: Rig) -> None:
    rig.door.deliver_errors = [errors.ShareAwayError("away")] * 3 + [errors.HeygemdError("odd")] * 4
    rig.submit()
    rig.run(rounds=3000, step_seconds=5.0)
    assert rig.dispatcher.ended[0].state is JobState.DONE
    assert len(rig.door.delivered) == 1


def test_a_result_that_the_share_refuses_is_told_once_with_its_cause(rig: Rig) -> None:
    rig.door.deliver_errors = [errors.InputBusyError("outbox: Permission denied")] * 4
    rig.submit()
    rig.run(rounds=3000, step_seconds=5.0)
    (told,) = [fields["reason"] for name, fields in rig.events if name == "job.blocked"]
    assert told == "its result cannot be delivered: outbox: Permission denied"
    shown = [str(view["reason"]) for view in rig.door.views["job"]]
    assert "it waits: outbox: Permission denied" in shown, "the status file says why"
    assert rig.dispatcher.ended[0].state is JobState.DONE


def test_an_input_that_vanished_is_no_failure(rig: Rig) -> None:
    rig.door.stage_errors = [InputGoneError("v.mp4 was taken away")]
    job = rig.submit()
    rig.run()
    assert rig.dispatcher.ended[0].state is JobState.CANCELLED
    assert rig.door.delivered == []
    assert rig.journal.released == [job.id]


def test_an_input_that_is_busy_is_waited_for(rig: Rig) -> None:
    rig.door.stage_errors = [errors.InputBusyError("held by another program")] * 8
    rig.submit()
    rig.run(rounds=1000)
    assert rig.dispatcher.ended[0].state is JobState.DONE


def test_an_input_that_stays_busy_gives_its_place_to_others_and_says_why(rig: Rig) -> None:
    stuck = [rig.submit(f"stuck-{n}") for n in range(5)]  # more than may be in work at once
    rig.door.busy = {job.id: errors.InputBusyError(f"v.mp4 of {job.name} is held") for job in stuck}
    good = rig.submit("good")
    rig.run(rounds=1000, enough=lambda: bool(rig.dispatcher.ended))
    assert [job.id for job in rig.dispatcher.ended] == [good.id]
    told = [fields["error"].message for name, fields in rig.events if name == "job.blocked"]
    assert "v.mp4 of stuck-0 is held" in told and len(set(told)) == len(told), "each once"
    assert rig.dispatcher.views()[stuck[0].name]["reason"] == f"it waits: v.mp4 of {stuck[0].name} is held"
    rig.door.busy = {}
    rig.run(rounds=3000, step_seconds=5.0)
    assert [job.state for job in rig.dispatcher.ended] == [JobState.DONE] * 6


def test_inputs_that_could_not_be_moved_are_told(rig: Rig) -> None:
    rig.door.stuck = ("locked/v.mp4", "locked/a.wav")
    rig.submit()
    rig.run()
    (told,) = [fields for name, fields in rig.events if name == "input.stuck"]
    assert (told["path"], told["count"]) == ("locked/v.mp4", 2)
    assert rig.dispatcher.ended[0].state is JobState.DONE


def test_a_refused_drop_is_delivered_to_failed_without_any_work(rig: Rig) -> None:
    rig.submit(items=0, error=errors.ManifestError("typo").to_dict())
    rig.run()
    assert rig.executor.tries == {}
    assert isinstance(rig.door.delivered[0][2], errors.ManifestError)
    assert rig.dispatcher.ended[0].state is JobState.FAILED


def test_cancel_while_queued_and_while_running(rig: Rig) -> None:
    rig.dispatcher.pauses.pause("a test")
    first = rig.submit("first")
    assert rig.dispatcher.cancel(first.id)
    rig.dispatcher.pauses.resume()
    rig.run()
    rig.executor.hold = True
    second = rig.submit("second")
    for _ in range(500):
        rig.step()
        if rig.executor.waiting:
            break
    assert rig.dispatcher.cancel(second.id)
    assert rig.executor.cancelled
    rig.executor.hold = False
    rig.executor.script = lambda _task, _try: errors.CancelledError("cancelled while it ran")
    rig.run()
    assert [job.state for job in rig.dispatcher.ended] == [JobState.CANCELLED, JobState.CANCELLED]
    assert not rig.dispatcher.cancel("unknown")


def test_paused_nothing_new_starts_but_what_runs_ends(rig: Rig) -> None:
    rig.dispatcher.pauses.pause("a test")
    rig.submit()
    for _ in range(20):
        rig.dispatcher.step(0.0)
    assert rig.executor.tries == {}
    assert rig.dispatcher.views()["job"]["reason"] == "the queue is paused: a test"
    rig.dispatcher.pauses.resume()
    rig.run()


def test_finished_segments_are_not_rendered_again_after_a_restart(tmp_path: Path) -> None:
    before = Rig(tmp_path, script=failing("finish", errors.WorkerDiedError("x")))
    before.executor.script = lambda task, _try: errors.DiskFullError("x") if task.kind == "finish" else None
    job = before.submit()
    for _ in range(500):
        before.step()
        before.clock.now += 0.01
        if before.dispatcher.pauses.reason:
            break
    before.dispatcher.close()
    after = Rig(tmp_path)
    after.journal.stats = before.journal.stats
    after.dispatcher.submit(job.evolve(state=JobState.FINISHING))
    after.run()
    assert [task for task in after.executor.tries if "render" in task or "prepare" in task] == []
    assert after.dispatcher.ended[0].state is JobState.DONE
    assert after.door.delivered[0][3]["items"][0]["segments"] == 4
    assert after.door.delivered[0][3]["items"][0]["stage_seconds"]["generate"] == 2.0


def test_higher_priority_goes_first_and_status_tells_the_place(rig: Rig) -> None:
    rig.dispatcher.pauses.pause("a test")
    for i in range(3):
        rig.submit(f"j{i}")
    rig.submit("urgent", priority=5)
    views = rig.dispatcher.views()
    assert views["urgent"]["position"] == 1
    assert views["j0"]["position"] == 2
