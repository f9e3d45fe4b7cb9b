"""Kill the daemon at random moments, again and again, and see whether anything is lost.

    python -m tests.system.crashloop --seed 1 --iterations 40 [--root DIR] [--without-faults]

Every iteration fills the inbox up to a few jobs (pairs, texts, batches, still pictures, broken files, wrong manifests),
now and then cancels or retries one, lets the real daemon run for a random time, and ends it in one of three ways:
everything at once, as when the power goes; the daemon alone, and what it started has to end by itself; or a worker or
an ffmpeg first, as the kernel's out-of-memory killer does, then everything. Some lives have one failing disk call
(ENOSPC, EIO, ESTALE, EBUSY at a random transition), which must not make a job fail. After every life, and in the end
when the inbox is drained, the oracle is asked:

- every input is exactly once in done (archive), failed or pending (inbox);
- every visible result is whole: its checksum equals the receipt's, ffprobe counts the receipt's frames;
- no unfinished file has a final name; in the end none is left at all;
- in the end no work folder is left, no status file tells something else than the journal, and no process lives;
- no finished segment was rendered a second time (counted).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heygemd import failpoints
from heygemd.spool import control
from tests import media
from tests.daemon import Daemon
from tests.system import processes

MOST_SECONDS = 4.0
"""Of a job, when lives are measured by it: on a busy machine jobs take longer, and more lives see less of each."""

BACKLOG = 3
"""Jobs that wait at the beginning of each life."""

KINDS = ("pair", "pair", "pair", "text", "batch", "still", "broken", "manifest-error")
HARMLESS = ("enospc", "eio", "estale", "ebusy")
"""Faults that pass: none may make a job fail."""

SegmentKey = tuple[str, str, int]
"""Job id, number of the item, number of the segment."""


@dataclass
class Loop:
    """One run. `dropped`: name of every input file ever dropped → its SHA-256; names are never used twice."""

    root: Path
    seed: int
    iterations: int
    faults: bool = True
    dropped: dict[str, str] = field(default_factory=dict)
    good: set[str] = field(default_factory=set)  # names of jobs that have no reason to fail
    jobs_dropped: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    armed: Counter[str] = field(default_factory=Counter)
    rendered_again: list[SegmentKey] = field(default_factory=list)
    checked: dict[str, tuple[int, int]] = field(default_factory=dict)  # outbox folder → inode, mtime of its receipt
    log_offset: int = 0
    num_rendered: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.source = self.root / "source"
        self.source.mkdir(parents=True)
        self.clip = media.moving_portrait(self.source / "clip.mp4", seconds=0.3, size=96).read_bytes()
        self.still = media.portrait(self.source / "still.png", 96).read_bytes()
        self.voice = media.speech(self.source / "voice.wav", "Bob.").read_bytes()
        self.daemon = Daemon(
            self.root / "share",
            LOG__LEVEL="debug",  # segment.started, for what is rendered twice
            SCHEDULER__SEGMENT_SECONDS="0.3",
            SCHEDULER__CPU_SLOTS="1",
            SCHEDULER__ATTEMPTS="1000",
            SCHEDULER__WORKER_IDLE_SECONDS="60",
            INBOX__PARTNER_TIMEOUT_SECONDS="5",
            INBOX__SETTLE_SECONDS="0.05",
            INBOX__SCAN_SECONDS="0.3",
            SERVICE__DRAIN_SECONDS="0.5",
            SERVICE__MIN_FREE_STATE_BYTES="0",
            SERVICE__MIN_FREE_SHARE_BYTES="0",
        )
        self.state = self.daemon.root / ".state"

    def run(self) -> dict[str, object]:
        started = time.monotonic()
        processes.become_subreaper()
        try:
            life_seconds = self.one_job_seconds()
            self.tell(f"a job takes {life_seconds:.1f} s here")
            for iteration in range(self.iterations):
                if iteration < self.iterations * 0.95:
                    self.fill()
                    self.meddle()
                short = self.random.random() < 0.75
                self.live(life_seconds * (self.random.uniform(0.01, 0.6) if short else self.random.uniform(0.6, 2.0)))
                self.check_between()
                self.tell(
                    f"{iteration + 1} of {self.iterations}: {self.jobs_dropped} jobs, {len(self.checked)} results"
                )
            self.daemon.settings.pop("FAILPOINT", None)
            self.drain()
            self.tell("drained")
        finally:
            self.end_everything()
        return self.verdict() | {"seconds": round(time.monotonic() - started, 1)}

    def tell(self, text: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def one_job_seconds(self) -> float:
        """What a job takes here from the daemon's start to its end: the measure of a life."""
        self.drop("pair")
        started = time.monotonic()
        self.drain()
        return min(MOST_SECONDS, time.monotonic() - started)

    def drain(self) -> None:
        """Until nothing is left to do. What passes by itself (a share that was away for a moment) may take two runs."""
        for _ in range(5):
            if self.daemon.once(timeout=3600) in (0, 1):
                break
        self.daemon.process = None
        self.count_rendered(self.durable())
        left = processes.wait_until_none_below(os.getpid(), 60.0)
        assert not left, f"the daemon ended, these did not: {left}"

    # ---- one life ----

    def live(self, seconds: float) -> None:
        before = self.durable()
        self.arm()
        self.daemon.start()
        assert self.daemon.process is not None
        way = self.random.choice(("power", "power", "daemon", "worker", "stop"))
        end = time.monotonic() + seconds
        if way == "worker":
            self.sleep_until(end - 0.5 * seconds)
            self.kill_one_below()
        self.sleep_until(end)
        if way == "daemon":
            self.daemon.process.kill()
            self.daemon.process.wait(120)
            left = processes.wait_until_none_below(os.getpid(), 60.0)
            assert not left, f"a minute after the daemon these still run: {left}"
        elif way == "stop":
            self.daemon.process.send_signal(signal.SIGTERM)
            code = self.daemon.process.wait(240)
            # A share or a disk that refuses at the start ends it with 75, "later", and systemd starts it again.
            fine = (0, -signal.SIGTERM, 75) if "FAILPOINT" in self.daemon.settings else (0, -signal.SIGTERM)
            assert code in fine, f"SIGTERM ended the daemon with {code}\n{self.tail()}"
            left = processes.wait_until_none_below(os.getpid(), 60.0)
            assert not left, f"stopped in order, but these run: {left}"
        self.end_everything()
        self.kills[way] += 1
        self.count_rendered(before)

    def sleep_until(self, end: float) -> None:
        assert self.daemon.process is not None
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            code = self.daemon.process.poll()
            assert code is None, f"the daemon ended by itself with {code}\n{self.tail()}"

    def kill_one_below(self) -> None:
        assert self.daemon.process is not None
        found = processes.below(self.daemon.process.pid)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(found), signal.SIGKILL)

    def end_everything(self) -> None:
        processes.kill_all_below(os.getpid())
        if self.daemon.process is not None:
            self.daemon.process.wait(120)
            self.daemon.process = None
        left = processes.wait_until_none_below(os.getpid(), 60.0)
        assert not left, f"killed, but these run: {left}"

    def arm(self) -> None:
        self.daemon.settings.pop("FAILPOINT", None)
        if self.faults and self.random.random() < 0.4:
            point = self.random.choice(sorted(failpoints.NAMES))
            action = self.random.choice(HARMLESS)
            self.daemon.settings["FAILPOINT"] = f"{point}={action}@{self.random.randint(1, 3)}"
            self.armed[action] += 1

    def tail(self) -> str:
        return self.daemon.log.read_text()[-4000:]

    # ---- inputs ----

    def fill(self) -> None:
        """The inbox up to the backlog. What users see there is all that they know."""
        waiting = {path.name.split(".")[0].split("+")[0] for path in self.daemon.inbox.iterdir()}
        for _ in range(BACKLOG - len(waiting)):
            self.drop(self.random.choice(KINDS))

    def meddle(self) -> None:
        """What people do beside dropping files: cancel a job, retry one."""
        names = sorted(self.good)
        if not names or self.random.random() > 0.1:
            return
        folder = self.state / "control"
        action = self.random.choice(("cancel", "retry"))
        job = self.random.choice(names[-6:]) if action == "cancel" else self.random.choice(names)
        control.send(folder, "cancel" if action == "cancel" else "retry", job)
        self.good.discard(job)

    def drop(self, kind: str) -> None:
        name = f"{kind}-{self.jobs_dropped:04d}"
        self.jobs_dropped += 1
        if kind in ("pair", "text", "still"):
            self.good.add(name)
            suffix = "png" if kind == "still" else "mp4"
            self.put(f"{name}.{suffix}", self.picture(name, suffix))
            if kind == "text":
                self.put(f"{name}.txt", f"Bob {self.jobs_dropped}.".encode())
            else:
                self.put(f"{name}.wav", self.voice + name.encode())  # readers ignore bytes after the last chunk
        elif kind == "batch":
            self.good.add(name)
            videos = [f"{name}+{i}.mp4" for i in range(2)]
            for video in videos:
                self.put(video, self.picture(video, "mp4"))
            self.put(f"{name}.wav", self.voice + name.encode())
            words = {"version": 1, "videos": videos, "audio": f"{name}.wav"}
            self.put(f"{name}.job.json", json.dumps(words).encode())
        elif kind == "broken":
            self.put(f"{name}.mp4", f"this is no video {name}".encode())
            self.put(f"{name}.wav", self.voice + name.encode())
        else:
            self.put(f"{name}.job.json", json.dumps({"version": 1, "vdieo": name}).encode())

    def picture(self, name: str, suffix: str) -> bytes:
        """The clip or the picture with a name inside: every dropped file is another one."""
        if suffix == "png":
            return self.still + name.encode()  # after the last chunk
        return self.clip + struct.pack(">I4s", 8 + len(name), b"free") + name.encode()

    def put(self, name: str, data: bytes) -> None:
        target = self.daemon.inbox / name
        temp = target.with_name(f".{name}.part")
        temp.write_bytes(data)
        temp.rename(target)
        self.dropped[name] = hashlib.sha256(data).hexdigest()

    # ---- segments ----

    def durable(self) -> set[SegmentKey]:
        """Finished segments that lie in the work folders now."""
        return {
            (path.parts[-5], path.parts[-3], int(path.stem))
            for path in (self.state / "work").glob("*/items/*/segments/*.mp4")
            if path.stem.isdecimal()
        }

    def count_rendered(self, durable: set[SegmentKey]) -> None:
        """Read what the last life logged: which segments it rendered that were finished before it."""
        with self.daemon.log.open("rb") as log:
            log.seek(self.log_offset)
            lines = log.read().splitlines()
            self.log_offset = log.tell()
        finished: set[SegmentKey] = set()
        retried: set[str] = set()
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if event["event.action"] == "job.retried":
                retried.add(event["heygemd.job.id"])
            if not event["event.action"].startswith("segment."):
                continue
            item = event["heygemd.job.item"]
            number = item.rpartition("+")[2] if "+" in item else "0"
            key = (event["heygemd.job.id"], f"{int(number):03d}", int(event["heygemd.segment.number"]))
            if event["event.action"] == "segment.finished":
                self.num_rendered += 1
                finished.add(key)
            elif event["event.action"] == "segment.started" and key in durable | finished and key[0] not in retried:
                self.rendered_again.append(key)

    # ---- the oracle ----

    def check_between(self) -> None:
        """After a life, by names: reading every byte each time would take too long."""
        places: dict[str, list[str]] = {name: [] for name in self.dropped}
        for place, path in self.inputs_on_share():
            places.setdefault(path.name, []).append(place)
        wrong = {name: found for name, found in places.items() if len(found) != 1}
        assert not wrong, f"inputs that are not exactly once on the share: {wrong}"
        for folder in self.results():
            self.check_result(folder)

    def inputs_on_share(self) -> list[tuple[str, Path]]:
        share = self.daemon.root
        ours = {"error.json", "ffmpeg.log"}
        return [
            (f"{place}/{path.relative_to(share / place)}", path)
            for place in ("inbox", "archive", "failed")
            for path in (share / place).rglob("*")
            if path.is_file() and not path.name.startswith(".") and path.name not in ours
        ]

    def results(self) -> list[Path]:
        """Folders of the outbox whose receipt is there: only those are results."""
        outbox = self.daemon.root / "outbox"
        return [folder for folder in sorted(outbox.iterdir()) if (folder / f"{folder.name}.json").exists()]

    def check_result(self, folder: Path) -> None:
        """Once for each receipt: what is beside it is what it says, and decodes."""
        file = folder / f"{folder.name}.json"
        key = (file.stat().st_ino, file.stat().st_mtime_ns)
        if self.checked.get(folder.name) == key:
            return
        receipt = json.loads(file.read_text())
        for entry in receipt["files"]:
            digest = hashlib.sha256((folder / entry["name"]).read_bytes()).hexdigest()
            assert digest == entry["sha256"], f"{entry['name']} differs from its receipt"
        for item in receipt["items"]:
            video = folder / f"{item['name']}.mp4"
            frames = int(media.probe(video)["nb_read_frames"])
            assert frames == item["video"]["frames"], video
            assert item["frames_passed_through"] <= frames, video
        self.checked[folder.name] = key

    def verdict(self) -> dict[str, object]:
        """Raises AssertionError that says what is wrong."""
        places: dict[str, list[str]] = {digest: [] for digest in self.dropped.values()}
        for place, path in self.inputs_on_share():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest in places, f"nobody dropped {place}"
            places[digest].append(place)
        wrong = {digest: found for digest, found in places.items() if len(found) != 1}
        assert not wrong, f"inputs that are not exactly once on the share: {wrong}"
        pending = [found[0] for found in places.values() if found[0].startswith("inbox/")]
        assert not pending, f"drained, but still in the inbox: {pending}"
        self.checked.clear()
        for folder in self.results():
            self.check_result(folder)
        parts = [path for path in self.root.rglob(".heygemd-*") if path.name not in (".heygemd-root", ".heygemd-job")]
        assert not parts, f"parts were left behind: {parts}"
        assert not list((self.state / "work").iterdir()), "work folders were left behind"
        states = self.check_journal()
        assert sum(states.values()) == self.jobs_dropped, (states, self.jobs_dropped)
        assert len(self.checked) >= states["done"], (len(self.checked), states)
        return {
            "seed": self.seed,
            "iterations": self.iterations,
            "kills": dict(sorted(self.kills.items())),
            "faults": dict(sorted(self.armed.items())),
            "jobs": self.jobs_dropped,
            "inputs": len(self.dropped),
            "done": states["done"],
            "failed": states["failed"],
            "cancelled": states["cancelled"],
            "segments_rendered": self.num_rendered,
            "segments_rendered_twice": len(self.rendered_again),
        }

    def check_journal(self) -> Counter[str]:
        with contextlib.closing(sqlite3.connect(self.state / "journal.sqlite3")) as db:
            rows: dict[str, str] = dict(db.execute("SELECT name, state FROM jobs").fetchall())
        wrong = {name: state for name, state in rows.items() if name in self.good and state != "done"}
        assert not wrong, f"nothing was wrong with these: {wrong}"
        for path in (self.daemon.root / "status").glob("[!.]*.json"):  # hidden: the daemon's own figures
            told: dict[str, Any] = json.loads(path.read_text())
            assert told["state"] == rows.get(path.stem), f"{path.name} says {told['state']}: {rows.get(path.stem)}"
        return Counter(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--root", type=Path, help="keep everything here; default: a temporary folder")
    parser.add_argument("--without-faults", action="store_true", help="kill only; no failing disk calls")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="heygemd-crashloop-"))
    summary = Loop(root, arguments.seed, arguments.iterations, not arguments.without_faults).run()
    if arguments.root is None:
        shutil.rmtree(root)
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
