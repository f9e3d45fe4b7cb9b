import pytest

from heygemd.core import errors
from heygemd.core.retry import decide


@pytest.mark.parametrize(
    ("error", "attempt", "batch", "action"),
    [
        (errors.UnreadableMediaError("x"), 1, 8, "fail"),
        (errors.WorkerDiedError("x"), 1, 8, "retry"),
        (errors.WorkerDiedError("x"), 3, 8, "fail"),
        (errors.OutOfMemoryError("x"), 9, 2, "smaller"),
        (errors.OutOfMemoryError("x"), 3, 1, "fail"),
        (errors.DiskFullError("x"), 99, 1, "pause"),
        (errors.ShareAwayError("x"), 99, 1, "pause"),
        (errors.InputBusyError("x"), 99, 1, "retry"),
        (errors.CancelledError("x"), 1, 1, "fail"),
    ],
)
def test_what_follows_each_failure(error: errors.HeygemdError, attempt: int, batch: int, action: str) -> None:
    assert decide(error, attempt=attempt, max_attempts=3, batch=batch).action == action


def test_an_error_crosses_the_pipe_and_stays_itself() -> None:
    error = errors.NoFaceError("a.mp4: no face", path="a.mp4", frames=3)
    back = errors.HeygemdError.from_dict(error.to_dict())
    assert type(back) is errors.NoFaceError
    assert back.to_dict() == error.to_dict()


def test_every_error_has_a_code_of_its_own_and_a_remedy() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.HeygemdError)]
    assert len({c.code for c in classes}) == len(classes) > 20
    assert all(c.default_remedy and c.__doc__ for c in classes)
