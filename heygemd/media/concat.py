"""Several segments read as one video: ffmpeg's concat demuxer, and the list that it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

CONCAT_OPTIONS: Mapping[str, Any] = {"format": "concat", "safe": 0, "protocol_whitelist": "file,pipe"}
"""Of `ffmpeg.input(input_url(listing), …)`. For lists of ours alone: it opens whatever they name."""


def write_listing(path: Path, segments: Sequence[Path], segment_frames: Sequence[int], fps: Fraction) -> Path:
    """Write the list of `segments`, which have so many frames each, to `path`; returns that."""
    if len(segments) != len(segment_frames) or not segments:
        raise ValueError(f"{len(segments)} segments, {len(segment_frames)} lengths")
    lines = ["ffconcat version 1.0"]
    done_frames, done_microseconds = 0, 0
    for segment, frames in zip(segments, segment_frames, strict=True):
        quoted = str(segment.absolute()).replace("'", "'\\''")
        done_frames += frames
        # differences of rounded sums, so that the rounding never adds up
        end_microseconds = round(done_frames * 1_000_000 / fps)
        step = end_microseconds - done_microseconds
        done_microseconds = end_microseconds
        lines += [f"file 'file:{quoted}'", f"duration {step // 1_000_000}.{step % 1_000_000:06d}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
