"""A calibration pass: what a render of this shape takes at several batch sizes, measured on a clip that is made up.

It goes the way of every segment: a real file is decoded, the engine's own renderer works on it, a real encoder runs.
Only the picture and the face are nobody's, so it needs no job, and it can be as large as any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from heygemd.core.clip import AudioInfo, VideoInfo
from heygemd.core.errors import OutOfMemoryError
from heygemd.core.fit import SOURCE_FRAMES, Point, Shape
from heygemd.core.options import Options
from heygemd.core.plan import Segment
from heygemd.core.settings import MediaSettings
from heygemd.engines.base import load_engine
from heygemd.files import remove_tree
from heygemd.gpu import peak
from heygemd.media.decode import analysis_frames
from heygemd.media.encode import SegmentEncoder
from heygemd.media.frames import Frame, working_layout
from heygemd.media.probe import counted, probe_video
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.meter import PeakMeter
from heygemd.work.prepare import Report
from heygemd.work.render import SegmentRenderer


@dataclass(frozen=True)
class Measured:
    """`load_bytes`: peak when the model was ready and nothing rendered. `outside_bytes`: on a GPU, beside the
    allocator; 0 elsewhere or where it could not be told. `stopped_at`: the batch that did not fit, 0 if all did.
    `host_points`: on a GPU, the worker's RAM beside."""

    points: tuple[Point, ...]
    load_bytes: int
    outside_bytes: int
    stopped_at: int = 0
    host_points: tuple[Point, ...] = ()


def calibrate(
    shape: Shape,
    work: Path,
    *,
    device: str,
    precision: str,
    media: MediaSettings,
    threads: int,
    meter: PeakMeter,
    report: Report,
) -> Measured:
    """Measure, in a folder below `work` that is gone afterwards. The worker should be a fresh one, alone on a GPU.

    A batch that runs out of memory ends the pass. Raises OutOfMemoryError where not even the smallest fits, and
    HeygemdError for whatever else goes wrong.
    """
    before = peak.used_bytes() if device != "cpu" else None
    steps = _Steps(report, 2 * SOURCE_FRAMES + sum(_frames_for(batch) for batch in shape.batches))
    with _scratch(work) as folder:
        _make_item(shape, folder, steps.report)
        meter.reset()
        renderer = SegmentRenderer(folder, device=device, precision=precision, media=media, threads=threads)
        try:
            return _measure(shape, renderer, device == "cpu", before, meter, steps.report)
        finally:
            renderer.close()


def _frames_for(batch: int) -> int:
    """There and back again, and two whole batches at least."""
    return max(2 * SOURCE_FRAMES - 2, 2 * batch)


class _Steps:
    """One count over all stages, for people. Each stage counts from 1 to its own total."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0

    def report(self, _stage: str, done: int, total: int) -> None:
        self._report("calibrate", min(self._done + done, self._total), self._total)
        if done >= total:
            self._done += total


def _measure(
    shape: Shape,
    renderer: SegmentRenderer,
    on_cpu: bool,
    before: int | None,
    meter: PeakMeter,
    report: Report,
) -> Measured:
    ram = meter.peak_bytes
    loaded = None if on_cpu else peak.gpu_peak(before_bytes=before)
    load_bytes = ram if loaded is None else loaded.total_bytes
    points: list[Point] = []
    host: list[Point] = []
    outside = 0
    for number, batch in enumerate(shape.batches):
        failed: OutOfMemoryError | None = None
        meter.reset()
        peak.reset_peak(release=True)
        try:
            renderer.render(Segment(number, 0, _frames_for(batch)), batch=batch, report=report)
        except OutOfMemoryError as error:
            failed = error.with_traceback(None)  # it would pin tensors
        if failed is not None:
            if not points:
                raise failed
            return Measured(tuple(points), load_bytes, outside, batch, tuple(host))
        ram, seen = meter.peak_bytes, None if on_cpu else peak.gpu_peak(before_bytes=before)
        if seen is None:
            points.append(Point(batch, ram))
            continue
        outside = max(outside, seen.outside_bytes if seen.outside_known else 0)
        host.append(Point(batch, ram))
        points.append(
            Point(batch, seen.total_bytes, seen.allocated_bytes, seen.cached_bytes, max(0, seen.device_bytes or 0))
        )
    return Measured(tuple(points), load_bytes, outside, 0, tuple(host))


@contextmanager
def _scratch(work: Path) -> Iterator[ItemFolder]:
    folder = ItemFolder(work / "calibration")
    remove_tree(folder.path)
    folder.make()
    try:
        yield folder
    finally:
        remove_tree(folder.path)


def _make_item(shape: Shape, folder: ItemFolder, report: Report) -> None:
    """A prepared item of a made-up clip."""
    clip = folder.path / "clip.mp4"
    _write_clip(shape, clip, folder.log, lambda done: report("calibrate", done, SOURCE_FRAMES))
    video = probe_video(clip, log=folder.log)
    seen = analysis_frames(clip, video, longest_side=256, log=folder.log)
    for image in seen:
        report("calibrate", image.index + 1, SOURCE_FRAMES)
    seen.table.save(folder.frames)
    video = counted(video, seen.table)
    frames = _frames_for(max(shape.batches))
    analysis, motion = load_engine(shape.engine).stand_in(video, shape.region, frames)
    folder.save_arrays("analysis", analysis.arrays)
    folder.save_arrays("motion", motion.arrays)
    folder.save_prepared(
        Prepared(
            video_path=str(clip),
            audio_path=str(clip),
            video=video,
            audio=AudioInfo(16000, 1, 1.0),
            options=Options(),
            engine=shape.engine,
            engine_reason="a calibration pass",
            checkpoint=shape.checkpoint,
            num_frames=frames,
            speech_seconds=frames / 25,
            phones=None,
            language=None,
            memory=(),
            summary=dict(analysis.summary),
            seconds={},
        )
    )


def _write_clip(shape: Shape, path: Path, log: Path, done: Callable[[int], None]) -> None:
    """Soft noise that drifts: neither a still, which costs a coder nothing, nor pure noise, which costs it too much."""
    video = VideoInfo(
        shape.width, shape.height, Fraction(25), SOURCE_FRAMES, SOURCE_FRAMES / 25, shape.pix_fmt, shape.bit_depth
    )
    layout = working_layout(video)
    draw = np.random.default_rng(1)
    middle = 1 << (shape.bit_depth - 1)
    base = []
    for height, width in layout.shapes:
        small = draw.normal(0, middle / 4, (height // 16 + 2, width // 16 + 2))
        grown = np.kron(small, np.ones((16, 16)))[:height, :width]
        base.append(np.clip(middle + grown, 0, 2 * middle - 1))
    with SegmentEncoder(path, video, crf=20, preset="ultrafast", threads=1, log=log) as encoder:
        for number in range(SOURCE_FRAMES):
            frame = Frame.over(np.empty(layout.frame_bytes, np.uint8), layout, number)
            for plane, picture in zip(frame.planes, base, strict=True):
                plane[...] = np.roll(picture, 2 * number, axis=1)
            encoder.write(frame)
            done(number + 1)
