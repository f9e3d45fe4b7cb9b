"""The contact sheet: what a result looks like, at a glance."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import FfmpegError, UnreadableMediaError
from heygemd.media.concat import CONCAT_OPTIONS, write_listing
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child, passthrough_options
from heygemd.media.inputs import MediaLimits, input_options, input_url

_ONE_PASS_FRAMES = 3000  # the sheet of a longer video jumps from key frame to key frame


def contact_sheet(
    segments: Sequence[Path],
    out_jpg: Path,
    *,
    video: VideoInfo,
    segment_frames: Sequence[int],
    work: Path,
    columns: int = 6,
    rows: int = 4,
    cell_width: int = 240,
    limits: MediaLimits | None = None,
    log: Path | None = None,
) -> None:
    """A JPEG of evenly spaced frames of our own output, by its segments, with their times.

    `segment_frames`: frames in each segment. `work`: a folder of ours for the list of segments.
    Raises UnreadableMediaError when they cannot be decoded.
    """
    limits = limits or MediaLimits()
    num_frames = sum(segment_frames)
    count = min(columns * rows, num_frames)
    indices = [(2 * cell + 1) * num_frames // (2 * count) for cell in range(count)]
    height = max(2, round(cell_width * video.height / (video.width * float(video.sample_aspect))))
    sheet = np.full((-(-count // columns) * height, columns * cell_width, 3), 32, np.uint8)
    pick = partial(_pick, size=(cell_width, height), limits=limits, log=log)
    if num_frames <= _ONE_PASS_FRAMES:
        listing = write_listing(work / f"{out_jpg.stem}.ffconcat", segments, segment_frames, video.fps)
        pictures = pick(listing, indices, CONCAT_OPTIONS)
        listing.unlink()
    else:
        # the key frame before is near enough for a thumbnail, and needs no decoding up to the place
        at_key = {"noaccurate_seek": None}
        pictures = [
            pick(segment, [0], input_options(segment) | {"ss": f"{frame / float(video.fps):.6f}"} | at_key)[0]
            for segment, frame in _places(indices, segments, segment_frames)
        ]
    for cell, (index, picture) in enumerate(zip(indices, pictures, strict=True)):
        _label(picture, index / float(video.fps))
        top, left = cell // columns * height, cell % columns * cell_width
        sheet[top : top + height, left : left + cell_width] = picture
    done, data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise FfmpegError(f"{out_jpg.name}: the contact sheet cannot be encoded", path=str(out_jpg))
    out_jpg.write_bytes(data.tobytes())


def _places(
    indices: Sequence[int], segments: Sequence[Path], segment_frames: Sequence[int]
) -> Iterator[tuple[Path, int]]:
    """For each frame its segment, and which frame of that it is."""
    stops = list(accumulate(segment_frames))
    for index in indices:
        number = bisect_right(stops, index)
        yield segments[number], index - stops[number] + segment_frames[number]


def _pick(
    video: Path,
    indices: Sequence[int],
    options: Mapping[str, Any],
    *,
    size: tuple[int, int],
    limits: MediaLimits,
    log: Path | None,
) -> list[NDArray[np.uint8]]:
    """The frames with these numbers (counted from where `options` begin), each (height, width, 3) uint8 BGR."""
    # Thumbnails: what the loop filter would smooth is not seen in them, and it is a third of the work.
    options = {"threads": limits.decoder_threads, "skip_loop_filter": "all", **options}
    source = ffmpeg.input(input_url(video), **options)["v:0"]
    width, height = size
    chosen = "+".join(f"eq(n\\,{index})" for index in indices)
    filters = f"select={chosen},scale=w={width}:h={height}:flags=area,format=bgr24"
    output = ffmpeg.output(
        source, "pipe:1", format="rawvideo", vf=filters, vframes=len(indices), **passthrough_options()
    )
    with Child(output.global_args(*GLOBAL_ARGUMENTS).compile(), log=log, stall_seconds=limits.stall_seconds) as child:
        pictures: list[NDArray[np.uint8]] = []
        for _ in indices:
            buffer: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
            if child.read_into(buffer.reshape(-1).data) < buffer.nbytes:
                child.wait()
                raise child.failure("no contact sheet can be drawn of the segments", UnreadableMediaError, video)
            pictures.append(buffer)
    return pictures


def _label(picture: NDArray[np.uint8], seconds: float) -> None:
    minutes, rest = divmod(seconds, 60)
    text = f"{int(minutes)}:{rest:04.1f}"
    place = (6, picture.shape[0] - 8)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
