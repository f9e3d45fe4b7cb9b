"""Kill the daemon at random moments, again and again, and see whether anything is lost.

    python -m tests.system.crashloop --seed 1 --iterations 40 [--root DIR]

Every iteration drops a few inputs (pairs, a text, a batch, broken ones), lets the real daemon run for a random time,
kills it with everything that it started, and starts it anew. In the end it drains the inbox and asks the oracle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests import media
from tests.daemon import Daemon

MOST_SECONDS_ALIVE = 9.0


@dataclass
class Loop:
    """One run. `dropped`: SHA-256 of every input file ever dropped → its name."""

    root: Path
    seed: int
    iterations: int
    dropped: dict[str, str] = field(default_factory=dict)
    jobs_dropped: int = 0
    kills: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.source = self.root / "source"
        self.source.mkdir(parents=True)
        self.clip = media.moving_portrait(self.source / "clip.mp4", seconds=0.6, size=160)
        self.voice = media.speech(self.source / "voice.wav", "Bob.")
        self.daemon = Daemon(
            self.root / "share",
            SCHEDULER__SEGMENT_SECONDS="0.4",
            INBOX__PARTNER_TIMEOUT_SECONDS="5",
            SCHEDULER__WORKER_IDLE_SECONDS="60",
        )

    def run(self) -> dict[str, object]:
        started = time.monotonic()
        try:
            for iteration in range(self.iterations):
                if iteration < self.iterations * 0.7 and self.random.random() < 0.6:
                    self.drop()
                self.daemon.start()
                time.sleep(self.random.uniform(0.2, MOST_SECONDS_ALIVE))
                self.daemon.kill()
                self.kills += 1
            self.daemon.once(timeout=1200)
        finally:
            self.daemon.kill()
        return self.verdict() | {"seconds": round(time.monotonic() - started, 1)}

    # ---- inputs ----

    def drop(self) -> None:
        kind = self.random.choice(["pair", "pair", "text", "batch", "broken", "manifest error"])
        name = f"{kind.replace(' ', '-')}-{self.jobs_dropped:03d}"
        self.jobs_dropped += 1
        inbox = self.daemon.inbox
        if kind == "pair":
            self.put(self.video(name), inbox / f"{name}.mp4")
            self.put(self.sound(name), inbox / f"{name}.wav")
        elif kind == "text":
            self.put(self.video(name), inbox / f"{name}.mp4")
            self.write(f"Bob {name}.", inbox / f"{name}.txt")
        elif kind == "batch":
            for i in range(2):
                self.put(self.video(f"{name}-{i}"), inbox / f"{name}-{i}.mp4")
            self.put(self.sound(name), inbox / f"{name}.wav")
            words = {"version": 1, "videos": [f"{name}-{i}.mp4" for i in range(2)], "audio": f"{name}.wav"}
            self.write(json.dumps(words), inbox / f"{name}.job.json")
        elif kind == "broken":
            self.write(f"this is no video {name}", inbox / f"{name}.mp4")
            self.put(self.sound(name), inbox / f"{name}.wav")
        else:
            self.write(json.dumps({"version": 1, "vdieo": name}), inbox / f"{name}.job.json")

    def video(self, name: str) -> bytes:
        """The clip with a name inside: every dropped file is another one."""
        target = self.source / "tagged.mp4"
        command = ["ffmpeg", "-v", "error", "-y", "-i", self.clip, "-c", "copy", "-metadata", f"comment={name}", target]
        subprocess.run([str(part) for part in command], check=True)
        return target.read_bytes()

    def sound(self, name: str) -> bytes:
        # Bytes after the last RIFF chunk are ignored by every reader.
        return self.voice.read_bytes() + name.encode()

    def put(self, data: bytes, target: Path) -> None:
        temp = target.with_name(f".{target.name}.part")
        temp.write_bytes(data)
        temp.rename(target)
        self.dropped[hashlib.sha256(data).hexdigest()] = target.name

    def write(self, text: str, target: Path) -> None:
        self.put(text.encode(), target)

    # ---- the oracle ----

    def verdict(self) -> dict[str, object]:
        """Raises AssertionError that says what is wrong."""
        share = self.daemon.root
        places: dict[str, list[str]] = {digest: [] for digest in self.dropped}
        for place in ("inbox", "archive", "failed"):
            for path in (share / place).rglob("*"):
                if path.is_file():
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    if digest in places:
                        places[digest].append(f"{place}/{path.relative_to(share / place)}")
        wrong = {self.dropped[d]: found for d, found in places.items() if len(found) != 1}
        assert not wrong, f"inputs that are not exactly once on the share: {wrong}"
        pending = [found[0] for found in places.values() if found[0].startswith("inbox/")]
        assert not pending, f"drained, but still in the inbox: {pending}"
        results = [self.check_result(folder) for folder in sorted((share / "outbox").iterdir())]
        for path in share.rglob(".heygemd-*.part"):
            raise AssertionError(f"a part was left behind: {path}")
        assert not list((share / ".state/work").iterdir()), "work folders were left behind"
        states = self.check_journal()
        assert states["done"] + states["failed"] == self.jobs_dropped, (states, self.jobs_dropped)
        assert len(results) == states["done"], (len(results), states)
        twice = self.rendered_twice()
        return {
            "seed": self.seed,
            "iterations": self.iterations,
            "kills": self.kills,
            "jobs": self.jobs_dropped,
            "inputs": len(self.dropped),
            "done": states["done"],
            "failed": states["failed"],
            "segments_rendered": len(self.daemon.events("segment.finished")),
            "segments_rendered_twice": twice,
        }

    def check_result(self, folder: Path) -> str:
        receipt = json.loads((folder / f"{folder.name}.json").read_text())
        for entry in receipt["files"]:
            data = (folder / entry["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"], f"{entry['name']} differs from its receipt"
        for item in receipt["items"]:
            file = folder / f"{item['name'] if len(receipt['items']) > 1 else folder.name}.mp4"
            assert int(media.probe(file)["nb_read_frames"]) == item["video"]["frames"], file
        return folder.name

    def check_journal(self) -> Counter[str]:
        with sqlite3.connect(self.daemon.root / ".state/journal.sqlite3") as db:
            rows = db.execute("SELECT name, state FROM jobs").fetchall()
        names = {name for name, _ in rows}
        shown = {path.stem for path in (self.daemon.root / "status").glob("*.json")}
        assert shown <= names, f"status files without a job: {shown - names}"
        return Counter(state for _, state in rows)

    def rendered_twice(self) -> int:
        """A segment that was journalled as done must never be rendered again."""
        seen = Counter(
            (e["heygemd.job.id"], e["heygemd.job.item"], e["heygemd.segment.number"])
            for e in self.daemon.events("segment.finished")
        )
        return sum(count - 1 for count in seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--root", type=Path, help="keep everything here; default: a temporary folder")
    arguments = parser.parse_args()
    root = arguments.root or Path(tempfile.mkdtemp(prefix="heygemd-crashloop-"))
    summary = Loop(root, arguments.seed, arguments.iterations).run()
    if arguments.root is None:
        shutil.rmtree(root)
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
