import pytest

from heygemd.core import errors
from heygemd.core.retry import Rung, decide


@pytest.mark.parametrize(
    ("error", "attempt", "action"),
    [
        (errors.UnreadableMediaError("x"), 1, "fail"),
        (errors.WorkerDiedError("x"), 1, "retry"),
        (errors.WorkerDiedError("x"), 3, "fail"),
        (errors.OutOfMemoryError("x"), 1, "retry"),
        (errors.DiskFullError("x"), 99, "pause"),
        (errors.ShareAwayError("x"), 99, "pause"),
        (errors.InputBusyError("x"), 99, "retry"),
        (errors.CancelledError("x"), 1, "fail"),
        (errors.CannotFitError("x"), 1, "fail"),
    ],
)
def test_what_follows_each_failure(error: errors.HeygemdError, attempt: int, action: str) -> None:
    assert decide(error, attempt=attempt, max_attempts=3).action == action


def test_the_ladder_goes_down_rung_by_rung_and_ends() -> None:
    """Whatever the attempts are limited to: each rung makes the next try smaller."""
    error = errors.OutOfMemoryError("x")
    rungs = [Rung(8, True, False), Rung(1, True, False), Rung(1, False, False), Rung(1, False, True)]
    actions = [decide(error, attempt=9, max_attempts=3, rung=rung).action for rung in rungs]
    assert actions == ["smaller", "split", "alone", "fail"]


def test_a_worker_killed_twice_from_outside_gets_one_careful_try() -> None:
    killed = errors.WorkerDiedError("x", signal="SIGKILL")
    other = errors.WorkerDiedError("x", signal="SIGSEGV")
    rung = Rung(8, True, False)
    assert decide(killed, attempt=1, max_attempts=3, rung=rung).action == "retry"
    assert decide(killed, attempt=2, max_attempts=3, rung=rung).action == "alone"
    assert decide(killed, attempt=3, max_attempts=3, rung=Rung(1, False, True)).action == "fail"
    assert decide(other, attempt=2, max_attempts=3, rung=rung).action == "retry"
    assert decide(killed, attempt=2, max_attempts=3).action == "retry", "a stage that is no render has no ladder"


def test_an_error_crosses_the_pipe_and_stays_itself() -> None:
    error = errors.NoFaceError("a.mp4: no face", path="a.mp4", frames=3)
    back = errors.HeygemdError.from_dict(error.to_dict())
    assert type(back) is errors.NoFaceError
    assert back.to_dict() == error.to_dict()


def test_every_error_has_a_code_of_its_own_and_a_remedy() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.HeygemdError)]
    assert len({c.code for c in classes}) == len(classes) > 20
    assert all(c.default_remedy and c.__doc__ for c in classes)
