"""A GPU or driver that fails beneath a worker: its process is of no more use, and the task is not at fault."""

from __future__ import annotations

import sys
import time

import pytest

from heygemd.core.capacity import Device
from heygemd.core.errors import HeygemdError, WorkerDiedError
from heygemd.core.retry import decide
from heygemd.core.task import Message, Task
from heygemd.work.local import LocalExecutor
from heygemd.work.worker import device_failed

GPU = Device("cuda:0", "cuda", 1, 1, 1)
_BROKEN = """
import heygemd.work.worker as w
def fail(self, task):
    raise {error}
w.Worker._do = fail
w.main()
"""


class AcceleratorError(RuntimeError):
    """As torch names it."""


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronous"), True),
        (RuntimeError("No CUDA GPUs are available"), True),
        (RuntimeError("CUDA driver error: device not ready"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (RuntimeError("shape '[2, 3]' is invalid for input of size 5"), False),
        (ValueError("CUDA error: no, a file is called so"), False),
    ],
)
def test_what_is_the_devices_fault(error: Exception, failed: bool) -> None:
    assert device_failed(error) is failed


def answers(error: str, count: int) -> list[HeygemdError]:
    """Of so many tasks, one after the other, by an executor whose workers raise `error`."""
    executor = LocalExecutor(command=(sys.executable, "-c", _BROKEN.format(error=error)))
    found: list[Message] = []
    pids = set()
    try:
        for number in range(count):
            executor.start(Task(str(number), "render", "nowhere"), GPU)
            pids |= set(executor.pids())
            end = time.monotonic() + 180
            while len(found) <= number:
                assert time.monotonic() < end
                found += [m for m in executor.poll(0.2) if m.type == "failed"]
    finally:
        executor.close()
    assert len(pids) == (count if "CUDA" in error else 1), "a process that CUDA has given up is not used again"
    return [HeygemdError.from_dict(message.values) for message in found]


def test_its_worker_ends_and_the_segment_is_tried_again() -> None:
    for error in answers("RuntimeError('CUDA error: unspecified launch failure\\nmore')", 2):
        assert isinstance(error, WorkerDiedError)
        assert error.message == (
            "the device failed beneath the worker: RuntimeError: CUDA error: unspecified launch failure"
        )
        assert "Traceback" in error.details["stderr"] and error.details["signal"] is None
        assert [decide(error, attempt=n, max_attempts=3).wait_seconds for n in (1, 2)] == [10.0, 20.0]
        assert decide(error, attempt=3, max_attempts=3).action == "fail"


def test_any_other_error_is_answered_by_a_worker_that_lives() -> None:
    for error in answers("RuntimeError('a mistake')", 2):
        assert not isinstance(error, WorkerDiedError)
        assert decide(error, attempt=1, max_attempts=3).action == "fail"
