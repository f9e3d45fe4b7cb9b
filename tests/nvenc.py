"""An ffmpeg for machines without a card: keeps each command line, and does in software what it asks of the card."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.coding import Card
from heygemd.media.decode import FrameReader, analysis_frames
from heygemd.media.probe import probe_video

_PROGRAM = """#!{python}
import json, os, sys
from pathlib import Path
here = Path(__file__).parent
argv = sys.argv[1:]
card = "h264_nvenc" in argv or "-hwaccel" in argv
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps([argv, os.environ.get("CUDA_VISIBLE_DEVICES")]) + "\\n")
if "h264_nvenc" in argv:
    number = sum("h264_nvenc" in line for line in (here / "calls.jsonl").read_text().splitlines())
    if number in json.loads((here / "refused.json").read_text()):
        text = "OpenEncodeSessionEx failed: out of memory (10): (no details)"
        print("[h264_nvenc @ 0x1] [error]", text, file=sys.stderr)
        sys.exit(1)
drop = {{"-gpu", "-tune", "-rc", "-cq", "-b:v", "-b_ref_mode", "-forced-idr"}}
drop |= {{"-hwaccel", "-hwaccel_device", "-hwaccel_output_format"}}
change = {{"h264_nvenc": "libx264", "p4": "ultrafast"}}
out, skip = [], False
for part in argv:
    if skip or part in drop:
        skip = not skip
        continue
    part = part.removeprefix("hwdownload,format=nv12,")
    out.append(change.get(part, part) if "h264_nvenc" in argv else part)
os.execv({ffmpeg!r}, ["ffmpeg", *out])
"""


@dataclass(frozen=True)
class FakeNvenc:
    """The folder on PATH with the program, and what it has seen."""

    folder: Path

    def refuse(self, *numbers: int) -> None:
        """The encodes with these numbers (from 1) find no session free."""
        (self.folder / "refused.json").write_text(json.dumps(numbers))

    @property
    def calls(self) -> list[tuple[list[str], str | None]]:
        """(arguments, CUDA_VISIBLE_DEVICES) of every call."""
        log = self.folder / "calls.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(arguments, visible) for arguments, visible in map(json.loads, lines)]

    @property
    def encodes(self) -> list[list[str]]:
        return [arguments for arguments, _ in self.calls if "h264_nvenc" in arguments]

    @property
    def decodes(self) -> list[list[str]]:
        return [arguments for arguments, _ in self.calls if "-hwaccel" in arguments]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvenc:
    """First on PATH from now on; trials of before are forgotten."""
    from heygemd.media import hardware

    ffmpeg = shutil.which("ffmpeg")
    assert ffmpeg is not None
    folder.mkdir(parents=True)
    program = folder / "ffmpeg"
    program.write_text(_PROGRAM.format(python=sys.executable, ffmpeg=ffmpeg))
    program.chmod(0o755)
    fake = FakeNvenc(folder)
    fake.refuse()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    hardware.forget()
    return fake


def assert_frames_are_software_s(clip: Path, first: int, stop: int) -> None:
    """Pass 2 on the first card gives what it gives in software, and was on the card to the end."""
    video = probe_video(clip)
    frames = analysis_frames(clip, video, longest_side=64)
    for _ in frames:
        pass
    theirs = FrameReader(clip, video, frames.table, card=Card())
    got = list(theirs.read(first, stop))
    assert theirs.on_card
    ours = list(FrameReader(clip, video, frames.table).read(first, stop))
    assert len(ours) == stop - first
    assert all(np.array_equal(a.buffer, b.buffer) for a, b in zip(got, ours, strict=True))
