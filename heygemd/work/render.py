"""Stage 2 of an item: one segment. decode → region → generate → blend → encode, side by side, bounded in bytes.

No stage keeps anything from one segment to the next but the warm model, so a split render equals the unsplit one.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from heygemd.core.clip import Box
from heygemd.core.coding import IN_SOFTWARE, NVDEC, NVENC, SOFTWARE, Card, Coding
from heygemd.core.errors import EncoderUnavailableError
from heygemd.core.memory import GROUPS_AT_ONCE, QUEUE_BYTES
from heygemd.core.plan import Segment
from heygemd.core.settings import MediaSettings
from heygemd.core.timeline import extend
from heygemd.engines.base import Analysis, Region, Renderer, load_engine
from heygemd.faces.composite import Composer
from heygemd.failpoints import failpoint
from heygemd.files import publish_file, temp_name
from heygemd.media.decode import FrameReader
from heygemd.media.encode import SegmentEncoder
from heygemd.media.frames import Frame, FrameTable
from heygemd.media.mark import Mark
from heygemd.media.probe import parameter_hash
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.prepare import Report
from heygemd.work.streams import Sink, prefetch, side_by_side


@dataclass
class SegmentStats:
    """What one segment cost and did; goes to the journal and the receipt. `device`: cpu or cuda. `parameters`: of a
    card's encoder, a hash of its parameter sets: segments can be joined where it is the same. `precision`: what was
    computed in, and why that is not what was asked for; `remade_frames`: made twice, the second time in more of it."""

    num_frames: int = 0
    passed_frames: int = 0
    device: str = ""
    decoder: str = SOFTWARE
    parameters: str = ""
    precision: str = ""
    precision_why: str = ""
    remade_frames: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, since: float) -> float:
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now


@dataclass(frozen=True)
class _Work:
    """One output frame on its way. `box` is None where the frame passes through."""

    index: int
    frame: Frame
    box: Box | None = None


class SegmentRenderer:
    """Renders segments of one item on one device; keeps the engine's model warm until `close`."""

    def __init__(self, folder: ItemFolder, *, device: str, precision: str, media: MediaSettings, threads: int) -> None:
        self.folder = folder
        self.prepared: Prepared = folder.load_prepared()
        self.key = (str(folder.path), device, precision)
        self._media = media
        self._threads = threads
        self._card = None if device == "cpu" else Card.of(device)
        video = self.prepared.video
        self._table = FrameTable.load(folder.frames)
        base = self._table.constant_rate(video.fps)
        self._sources = extend(base, self.prepared.num_frames, self.prepared.options.extend)
        self._mark = Mark.of(self.prepared.options.mark or "off", video)
        self._composer = Composer.for_frames(video.width, video.height, video.pix_fmt, video.bit_depth, video.colour)
        checkpoint = self.prepared.checkpoint
        self._renderer: Renderer = load_engine(self.prepared.engine).renderer(
            Analysis(folder.load_arrays("analysis"), self.prepared.summary),
            Analysis(folder.load_arrays("motion"), self.prepared.summary),
            video,
            self.prepared.options,
            device=device,
            precision=precision,
            checkpoint=None if checkpoint is None else Path(checkpoint),
        )

    def close(self) -> None:
        self._renderer.close()

    def render(
        self,
        segment: Segment,
        *,
        batch: int,
        report: Report,
        coding: Coding = IN_SOFTWARE,
    ) -> SegmentStats:
        """Write the segment under its final name, its figures beside it first. Raises HeygemdError; leaves no part."""
        if coding.encoder == NVENC and self._card is None:
            text = f"segment {segment.number} renders on the CPU, and its job is encoded on a card"
            raise EncoderUnavailableError(text, device="cpu")
        target = self.folder.segment(segment.number)
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = temp_name(target).with_suffix(".mp4")  # ffmpeg chooses the container by the name
        stats = SegmentStats(device="cpu" if self._card is None else "cuda")
        remade_before = self._renderer.computed().remade_frames
        try:
            failpoint("render.begin")
            self._encode(segment, temp, batch, stats, report, coding)
            if coding.encoder == NVENC:
                stats.parameters = parameter_hash(temp)
            computed = self._renderer.computed()
            stats.precision, stats.precision_why = computed.precision, computed.why
            stats.remade_frames = computed.remade_frames - remade_before
            failpoint("render.stats")
            self.folder.save_segment_stats(segment.number, asdict(stats))
            failpoint("render.publish")
            publish_file(temp, target, replace=True)
            failpoint("render.end")
        finally:
            temp.unlink(missing_ok=True)
        return stats

    def _encode(
        self, segment: Segment, temp: Path, batch: int, stats: SegmentStats, report: Report, coding: Coding
    ) -> None:
        options = self.prepared.options
        encoder = SegmentEncoder(
            temp,
            self.prepared.video,
            crf=options.crf,
            lossless=options.lossless,
            preset=self._media.preset,
            threads=self._threads,
            log=self.folder.log,
            card=self._card if coding.encoder == NVENC else None,
        )
        with encoder:
            sink: Sink[Frame] = Sink(encoder.write, max_bytes=QUEUE_BYTES, size=_frame_bytes, name="encode")
            try:
                for frame in self._finished(segment, batch, stats, coding):
                    started = time.monotonic()
                    failpoint("render.frame")
                    sink.put(frame)
                    stats.timed("encode_wait", started)
                    stats.num_frames += 1
                    report("render", stats.num_frames, segment.num_frames)
                sink.close()
                # The encoder has all frames, of a short segment only now: its memory is looked at here.
                report("render", stats.num_frames, segment.num_frames)
            except BaseException:
                sink.abandon()
                raise

    def _finished(self, segment: Segment, batch: int, stats: SegmentStats, coding: Coding) -> Iterator[Frame]:
        groups = self._groups(segment, batch, stats, coding)
        try:
            for group, seconds in side_by_side(self._rendered, groups, threads=GROUPS_AT_ONCE, name="render"):
                for stage, spent in seconds.items():
                    stats.seconds[stage] = stats.seconds.get(stage, 0.0) + spent
                for work in group:
                    stats.passed_frames += work.box is None
                    yield work.frame
        finally:
            groups.close()

    def _groups(self, segment: Segment, batch: int, stats: SegmentStats, coding: Coding) -> Generator[list[_Work]]:
        """Frames that go through the engine together, with the frames between them that pass."""
        sources = self._sources[segment.first_frame : segment.stop_frame]
        reader = FrameReader(
            Path(self.prepared.video_path),
            self.prepared.video,
            self._table,
            log=self.folder.log,
            card=self._card if coding.decoder == NVDEC else None,
        )
        frames = prefetch(reader.sequence(sources), max_bytes=QUEUE_BYTES, size=_frame_bytes, name="decode")
        group: list[_Work] = []
        waiting = 0
        started = time.monotonic()
        for index, frame in enumerate(frames, start=segment.first_frame):
            stats.timed("decode_wait", started)
            box = self._renderer.box(index, frame.source_index)
            if box is not None:
                box = self._composer.snap(box, self.prepared.video.width, self.prepared.video.height)
                waiting += 1
            group.append(_Work(index, frame, box))
            if not waiting or len(group) >= batch:  # never more frames held than the memory model counts
                yield group
                group, waiting = [], 0
            started = time.monotonic()
        stats.decoder = NVDEC if reader.on_card else SOFTWARE
        if group:
            yield group

    def _rendered(self, group: list[_Work]) -> tuple[list[_Work], dict[str, float]]:
        """The same frames, painted, and the seconds of each step. Runs on several threads at once."""
        times = [time.monotonic()]
        asked = [(work, work.box) for work in group if work.box is not None]
        regions = [
            Region(work.index, work.frame.source_index, box, self._composer.read(work.frame.planes, box))
            for work, box in asked
        ]
        times.append(time.monotonic())
        patches = self._renderer.render(regions) if regions else []
        times.append(time.monotonic())
        for (work, box), region, patch in zip(asked, regions, patches, strict=True):
            self._composer.blend(work.frame.planes, box, region.image, patch.image, patch.mask)
        if self._mark is not None:
            for work in group:
                self._mark.draw(work.frame.planes)
        times.append(time.monotonic())
        return group, dict(zip(("read", "generate", "blend"), np.diff(times).tolist(), strict=True))


def _frame_bytes(frame: Frame) -> int:
    return frame.buffer.nbytes
