"""The meter of a worker's memory, on real processes."""

from __future__ import annotations

import subprocess
import sys
import threading

from heygemd.work.meter import PeakMeter

MIB = 2**20


def child(mib: int, then: str = "") -> subprocess.Popen[bytes]:
    """A process that takes so much, writes to all of it and goes."""
    code = f"held = bytearray(b'x') * ({mib} << 20); {then}"
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code])


def test_a_child_that_was_there_for_a_moment_counts() -> None:
    meter = PeakMeter()
    with meter.watching():
        alone = meter.peak_bytes
        child(150, "import time; time.sleep(0.05)").wait()
    assert 150 * MIB < meter.peak_bytes - alone < 200 * MIB


def test_children_count_together_and_only_when_they_were_there_together() -> None:
    meter = PeakMeter()
    with meter.watching():
        alone = meter.peak_bytes
        for _ in range(2):
            child(100).wait()
    assert 100 * MIB < meter.peak_bytes - alone < 150 * MIB
    with meter.watching():
        both = [child(100, "import time; time.sleep(0.3)") for _ in range(2)]
        for process in both:
            process.wait()
    assert 200 * MIB < meter.peak_bytes - alone < 250 * MIB


def test_looking_closely_again_catches_what_comes_late() -> None:
    meter = PeakMeter()
    with meter.watching():
        alone = meter.peak_bytes
        meter._since -= 60  # as if the task had run for a minute, looked at four times a second
        meter.closely()
        child(150, "import time; time.sleep(0.05)").wait()
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
