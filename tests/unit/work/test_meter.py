"""The meter of a worker's memory, on real processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from heygemd.work.meter import PeakMeter

MIB = 2**20


class Counted(PeakMeter):
    """Knows how often it has looked."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def sample(self) -> None:
        super().sample()
        self.looks += 1


def child(mib: int) -> subprocess.Popen[bytes]:
    """A process that has taken so much and written to all of it, and goes when it is told to."""
    code = f"held = bytearray(b'x') * ({mib} << 20); print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"\n"
    return process


def looked_at(meter: Counted) -> None:
    """Looks come of themselves, how soon is the machine's affair; the one under way may have been too early."""
    wanted, until = meter.looks + 2, time.monotonic() + 60
    while meter.looks < wanted:
        assert time.monotonic() < until, "nobody looks"
        time.sleep(0.001)


def test_a_child_that_was_there_for_a_moment_counts() -> None:
    meter = Counted()
    with meter.watching():
        alone = meter.peak_bytes
        process = child(150)
        looked_at(meter)
        process.communicate(b"\n")
    assert 150 * MIB < meter.peak_bytes - alone < 200 * MIB


def test_children_count_together_and_only_when_they_were_there_together() -> None:
    meter = Counted()
    with meter.watching():
        alone = meter.peak_bytes
        for _ in range(2):
            process = child(100)
            looked_at(meter)
            process.communicate(b"\n")
    assert 100 * MIB < meter.peak_bytes - alone < 150 * MIB
    with meter.watching():
        both = [child(100) for _ in range(2)]
        looked_at(meter)
        for process in both:
            process.communicate(b"\n")
    assert 200 * MIB < meter.peak_bytes - alone < 250 * MIB


def test_looking_closely_again_catches_what_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.work.meter._MOST_SECONDS", 3600.0)
    meter = Counted()
    with meter.watching():
        alone = meter.peak_bytes
        meter._since -= 36_000  # as if the task had run for hours: the next look would be in an hour
        looks = -1
        while meter.looks != looks:
            looks = meter.looks
            time.sleep(0.2)
        meter.closely()
        process = child(150)
        looked_at(meter)
        process.communicate(b"\n")
    assert meter.peak_bytes - alone > 150 * MIB


def test_a_child_that_is_still_a_copy_of_this_process_is_not_counted() -> None:
    """Between fork and exec all of the parent's memory is the child's, too."""
    held = bytearray(b"x") * (400 << 20)
    meter = PeakMeter()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            meter.sample()

    with meter.watching():
        alone = meter.peak_bytes
        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(20):
            subprocess.run(["true"], check=True)
        stop.set()
        thread.join()
    assert meter.peak_bytes - alone < 100 * MIB
    assert len(held) == 400 << 20
