"""What a daemon grows by with every job: `python bench/soak.py --jobs 500 [--root DIR]`.

One daemon renders very short jobs, one after the other (pairs, texts, and every twentieth a broken file). Every
`--every` jobs one line: private memory of the daemon and of all its workers, open files, threads, size of the journal,
CPU seconds of the daemon for each job. What grows in proportion to the jobs would one day end it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from memory import tree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import media
from tests.daemon import Daemon

BACKLOG = 4
MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")


def drop(daemon: Daemon, clip: Path, voice: Path, number: int) -> None:
    name = f"job-{number:05d}"
    target = daemon.inbox / name
    shutil.copy(clip, target.with_suffix(".mp4"))
    if number % 20 == 19:
        target.with_suffix(".wav").write_bytes(b"no sound at all")
    elif number % 3 == 2:
        target.with_suffix(".txt").write_text("Hello.")
    else:
        shutil.copy(voice, target.with_suffix(".wav"))


def count(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def over(daemon: Daemon) -> int:
    """Jobs that have ended: what lies in outbox and failed."""
    return count(daemon.root / "outbox") + count(daemon.root / "failed")


def private_bytes(pid: int) -> int:
    """What a process alone has written to: unlike its proportional set, no other process's end changes it."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:")), 0)


def sample(daemon: Daemon, jobs: int) -> str:
    assert daemon.process is not None
    pid = daemon.process.pid
    workers = [other for other in tree(pid) if other != pid]
    own, held = private_bytes(pid), sum(map(private_bytes, workers))
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / TICKS
    journal = sum(path.stat().st_size for path in daemon.state.glob("journal.sqlite3*"))
    files, threads = count(Path(f"/proc/{pid}/fd")), int(fields[17])
    return (
        f"{jobs:>6} | {own / MIB:>7.1f} | {held / MIB:>7.0f} | {files:>5} | {threads:>7} | {journal / 1024:>8.0f} "
        f"| {1000 * cpu / max(1, jobs):>7.0f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = arguments.root or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        clip = media.moving_portrait(root / "clip.mp4", seconds=0.4, size=240)
        voice = media.speech(root / "voice.wav", "Hi.")
        daemon = stack.enter_context(Daemon(root / "share", state=root / "state", log=root / "log"))
        (daemon.inbox / ".heygemd.toml").write_text('[options]\nquality = "draft"\n')
        daemon.start()
        print("  jobs | own MiB | workers | files | threads | journal K | ms a job", flush=True)
        dropped, told = 0, -arguments.every
        while (ended := over(daemon)) < arguments.jobs:
            assert daemon.process is not None and daemon.process.poll() is None, "the daemon ended"
            while dropped < min(arguments.jobs, ended + BACKLOG):
                drop(daemon, clip, voice, dropped)
                dropped += 1
            if ended >= told + arguments.every:
                told = ended
                print(sample(daemon, ended), flush=True)
            time.sleep(0.2)
        print(sample(daemon, arguments.jobs), flush=True)
        return daemon.stop()


if __name__ == "__main__":
    sys.exit(main())
