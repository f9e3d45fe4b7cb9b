"""Memory of preparing one item: `python bench/prepare_memory.py --video PICTURE --audio RECORDING --engine rewrite`.

Runs stage 1 in this process, samples its private memory and its whole resident set every 10 ms, and prints both peaks,
the resident one without the sound's own files, beside what is reserved for such lengths.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path

from heygemd.core.memory import Picture, bytes_per_pixel, preparing_bytes
from heygemd.core.options import Options
from heygemd.core.settings import LimitSettings
from heygemd.engines.base import PrepareQuery, load_engine
from heygemd.work.item import ItemFolder
from heygemd.work.prepare import PrepareRequest, prepare

PAGE_BYTES = 4096


class Sampler(threading.Thread):
    """Peaks in bytes since the start: `private`, and `resident` without `*.f32` files (they are the system's cache)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = self.resident = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            resident, shared = (int(word) for word in Path("/proc/self/statm").read_text().split()[1:3])
            self.private = max(self.private, (resident - shared) * PAGE_BYTES)
            self.resident = max(self.resident, resident * PAGE_BYTES - _sound_bytes())
            time.sleep(0.01)


def _sound_bytes() -> int:
    """Resident pages of the sound's files."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.rstrip().endswith((".f32", ".f32 (deleted)"))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--engine", default="rewrite")
    parser.add_argument("--checkpoint", type=Path)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="heygemd-bench-"))
    request = PrepareRequest(
        video=given.video,
        audio=given.audio,
        text_file=None,
        text=None,
        options=Options(engine=given.engine),
        limits=LimitSettings(),
        default_engine=given.engine,
        checkpoint_dir=work / "none",
        checkpoint=given.checkpoint,
        device_kinds=("cpu",),
    )
    sampler = Sampler()
    sampler.start()
    try:
        prepared = prepare(request, ItemFolder(work / "item"), lambda _stage, _done, _total: None)
    finally:
        sampler.over = True
        sampler.join()
        shutil.rmtree(work)
    video = prepared.video
    query = PrepareQuery(video.width, video.height, video.num_frames, prepared.speech_seconds)
    picture = Picture(video.width, video.height, bytes_per_pixel(video.source_pix_fmt, video.bit_depth))
    reserved = preparing_bytes(picture) + load_engine(given.engine).prepare_bytes(query)
    figures = {"private": sampler.private, "resident_without_sound": sampler.resident, "reserved": reserved}
    rounded = {f"{name}_mib": round(value / 2**20) for name, value in figures.items()}
    print(json.dumps(rounded | {"seconds": dict(prepared.seconds)}, indent=2))


if __name__ == "__main__":
    main()
