"""What every Executor must do. Each implementation is a fixture parameter; the workers are scripted, not real."""

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heygemd.core.placement import Device
from heygemd.core.task import Message, Task
from heygemd.work.executor import Executor
from heygemd.work.local import LocalExecutor
from tests.cluster import Cluster

CPU = Device("cpu", "cpu", 10**9, 10**9, slots=4, threads=1)

# Answers by the task's folder: what a real worker would meet.
SCRIPT = """
import json, os, sys, time, subprocess
def say(type, task="", /, **values):
    print(json.dumps({"type": type, "task_id": task, "values": values}), flush=True)
say("ready")
for line in sys.stdin:
    task = json.loads(line)
    what = task["folder"]
    if what == "echo":
        say("progress", task["id"], stage="render", done=1, total=2)
        say("done", task["id"], pid=os.getpid(), threads=os.environ["OMP_NUM_THREADS"])
    elif what == "sleep":
        open(task["values"]["pid"], "w").write(str(os.getpid()))
        time.sleep(1000)
    elif what == "environment":
        say("done", task["id"], visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
    elif what == "error":
        say("failed", task["id"], type="NoFaceError", message="no face", details={})
    elif what == "exit":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    elif what.startswith("hang"):
        child = subprocess.Popen(["sleep", "1000"])
        open(task["values"]["pids"], "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(1000)
"""

Make = Callable[..., Executor]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2) as started:
        yield started


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(SCRIPT))
    made: list[Executor] = []

    def build(**options: object) -> Executor:
        command = (sys.executable, str(script))
        executor: Executor
        if request.param == "local":
            executor = LocalExecutor(command=command, **options)  # type: ignore[arg-type]
        else:
            started: Cluster = request.getfixturevalue("cluster")
            executor = started.executor(tmp_path, command=command, **options)
        made.append(executor)
        return executor

    yield build
    for executor in made:
        executor.close()


def answer(executor: Executor, seconds: float = 180.0) -> Message:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for message in executor.poll(0.1):
            if message.type in ("done", "failed"):
                return message
    raise AssertionError("no answer came")


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


def test_a_task_is_answered_once_and_progress_comes_before(make: Make) -> None:
    executor = make()
    executor.start(Task("1", "render", "echo"), CPU)
    assert executor.running() == {"1"}
    seen: list[str] = []
    wait_for(lambda: seen.extend(m.type for m in executor.poll(0.1)) or "done" in seen)
    assert seen == ["progress", "done"]
    assert executor.running() == frozenset()


def test_an_idle_worker_is_used_again_and_gets_its_threads(make: Make) -> None:
    executor = make()
    executor.start(Task("1", "render", "echo"), CPU)
    first = answer(executor)
    executor.start(Task("2", "render", "echo"), CPU)
    assert answer(executor).values == first.values
    assert first.values["threads"] == "1"


def test_tasks_run_side_by_side(make: Make, tmp_path: Path) -> None:
    executor = make()
    executor.start(Task("stuck", "render", "hang", values={"pids": str(tmp_path / "pids")}), CPU)
    executor.start(Task("quick", "render", "echo"), CPU)
    assert answer(executor).task_id == "quick"
    assert executor.running() == {"stuck"}


def test_an_error_of_the_work_is_passed_on_and_the_worker_lives(make: Make) -> None:
    executor = make()
    executor.start(Task("1", "render", "error"), CPU)
    assert answer(executor).values["type"] == "NoFaceError"
    executor.start(Task("2", "render", "echo"), CPU)
    assert answer(executor).type == "done"


def test_a_worker_that_dies_answers_with_evidence(make: Make) -> None:
    executor = make()
    executor.start(Task("1", "render", "exit"), CPU)
    message = answer(executor)
    assert message.type == "failed"
    assert message.values["type"] == "WorkerDiedError"
    assert "exit code 3" in message.values["message"]
    assert "last words" in message.values["details"]["stderr"]
    executor.start(Task("2", "render", "echo"), CPU)
    assert answer(executor).type == "done"


def test_a_silent_worker_is_ended_with_its_children(make: Make, tmp_path: Path) -> None:
    for seconds in (1.0, 10.0, 60.0):  # longer where the machine is too busy to start the worker before
        pids = tmp_path / f"pids-{seconds}"
        executor = make(heartbeat_timeout_seconds=seconds)
        executor.start(Task("1", "render", "hang", values={"pids": str(pids)}), CPU)
        message = answer(executor)
        assert message.values["type"] == "WorkerDiedError"
        assert f"silent for {seconds:.0f} s" in message.values["message"]
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
        executor.close()
    for pid in pids.read_text().split():
        wait_for(lambda pid=int(pid): gone(pid))  # type: ignore[misc]


def test_cancel_ends_the_task_now(make: Make, tmp_path: Path) -> None:
    executor = make()
    executor.start(Task("1", "render", "hang", values={"pids": str(tmp_path / "pids")}), CPU)
    wait_for((tmp_path / "pids").exists)
    executor.cancel("1")
    executor.cancel("unknown")
    assert answer(executor).values["type"] == "CancelledError"


def test_close_leaves_no_process(make: Make, tmp_path: Path) -> None:
    executor = make()
    executor.start(Task("1", "render", "hang", values={"pids": str(tmp_path / "pids")}), CPU)
    wait_for(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2)
    executor.close()
    for pid in (tmp_path / "pids").read_text().split():
        wait_for(lambda pid=int(pid): gone(pid))  # type: ignore[misc]


def test_an_idle_worker_ends_after_its_time(make: Make) -> None:
    executor = make(idle_seconds=0.3)
    executor.start(Task("1", "render", "echo"), CPU)
    pid = int(answer(executor).values["pid"])
    wait_for(lambda: executor.poll(0.05) == [] and gone(pid))


def test_evicting_a_device_ends_its_idle_workers_and_no_others(make: Make, tmp_path: Path) -> None:
    executor = make()
    other = Device("sim:1", "cpu", 10**9, 10**9, slots=1, threads=1)
    executor.start(Task("stuck", "render", "hang", values={"pids": str(tmp_path / "pids")}), CPU)
    wait_for((tmp_path / "pids").exists)
    executor.start(Task("1", "render", "echo"), CPU)
    idle = int(answer(executor).values["pid"])
    executor.start(Task("2", "render", "echo"), other)
    elsewhere = int(answer(executor).values["pid"])
    assert executor.pids()[idle] == "cpu" and executor.pids()[elsewhere] == "sim:1"
    executor.evict("cpu")
    wait_for(lambda: executor.poll(0.05) == [] and gone(idle))
    assert executor.running() == {"stuck"} and not gone(elsewhere)


def test_a_worker_killed_from_outside_says_so_and_one_that_we_ended_does_not(make: Make, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    executor = make()
    executor.start(Task("1", "render", "sleep", values={"pid": str(pid)}), CPU)
    wait_for(lambda: pid.exists() and pid.read_text() != "")
    os.kill(int(pid.read_text()), 9)
    assert answer(executor).values["details"]["signal"] == "SIGKILL"
    executor.close()  # the next one gets the nodes
    impatient = make(heartbeat_timeout_seconds=1.0)
    impatient.start(Task("2", "render", "sleep", values={"pid": str(pid)}), CPU)
    assert answer(impatient).values["details"]["signal"] is None


def test_a_worker_of_a_gpu_sees_only_that_one(make: Make, tmp_path: Path) -> None:
    card = Device("cuda:3", "cuda", 10**9, 10**9, slots=1, uuid="GPU-abc")
    executor = make()
    executor.start(Task("1", "render", "environment"), card)
    assert answer(executor).values["visible"] == "GPU-abc"


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """The real worker, under a parent that is killed without a chance to clean up."""
    code = (
        "import sys, time, os\n"
        "from heygemd.work.local import LocalExecutor\n"
        "from heygemd.core.placement import Device\n"
        "from heygemd.core.task import Task\n"
        "e = LocalExecutor()\n"
        "e.start(Task('1', 'finish', '/nonexistent', values={}), Device('cpu', 'cpu', 1, 1, 1))\n"
        "e.poll(10)\n"
        "print(*e.pids(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    import subprocess

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=os.environ)
    pids = [int(p) for p in run.stdout.split()]
    assert len(pids) == 1, run.stderr
    wait_for(lambda: gone(pids[0]))
