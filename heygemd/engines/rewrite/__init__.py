"""`rewrite`: lip sync from nothing but the clip, the speech and the installed packages.

Named after Bregler, Covell, Slaney: Video Rewrite (1997). A driver turns speech into the motion of a mouth; a warp
makes the mouth of the frame obey it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.memory import GROUPS_AT_ONCE
from heygemd.core.options import Options
from heygemd.engines.base import (
    PASS_1_SIDE,
    Analyser,
    Analysis,
    Availability,
    MemoryQuery,
    PrepareQuery,
    Renderer,
    Speech,
)

if TYPE_CHECKING:
    from heygemd.faces.detect import FaceDetector
    from heygemd.faces.landmarks import Landmarks


class RewriteEngine:
    """Warps with OpenCV on the CPU, or with torch on a card. Everything heavy is imported when it is first used."""

    name: ClassVar[str] = "rewrite"
    description: ClassVar[str] = "warps the person's own mouth; needs no checkpoint"
    needs_checkpoint: ClassVar[bool] = False
    uses_landmarks: ClassVar[bool] = True
    best_batch: ClassVar[dict[str, int]] = {"cpu": 8, "cuda": 8}
    """It draws one face after the other: on a card more would only take the host's RAM."""

    variant: ClassVar[str] = ""

    def availability(self, checkpoint: Path | None) -> Availability:
        return Availability(True, "always available: it needs nothing but the installed packages")

    def precisions(self, kind: str, options: Options) -> tuple[str, ...]:
        return ("float32",)

    def memory_bytes(self, query: MemoryQuery) -> int:
        region = query.region_pixels or query.width * query.height // 3
        if query.device == "cuda":
            # Each thread has one region there, however large the batch. Its tensors were 81 bytes a pixel and 2 MiB at
            # most with torch on a CPU; twice that, for what its allocator keeps of other sizes. Not measured on a card,
            # nor is the context.
            return (600 << 20) + GROUPS_AT_ONCE * ((4 << 20) + 160 * region)
        # Measured: pass 1 adds 60 to 90 MiB whatever the clip's length. In pass 2 each region of the batch has its
        # picture, the new one and a mask in float32 (28 bytes a pixel); the one being drawn has fields and copies too.
        return (100 << 20) + region * GROUPS_AT_ONCE * (28 * query.batch + 110)

    def prepare_bytes(self, query: PrepareQuery) -> int:
        # Measured (docs/performance.md): 47 kB for a second of speech (band levels, the network's last layer, tracks),
        # 2.7 kB for a frame of the clip; the rest is blocks, models and libraries.
        return (120 << 20) + 3_000 * query.video_frames + round(55_000 * query.speech_seconds)

    def import_ahead(self) -> None:
        """Nothing: pass 1 needs the same libraries as the CPU's renderer."""

    def analysis_side(self, options: Options) -> int:
        return PASS_1_SIDE

    def analyser(
        self,
        video: VideoInfo,
        options: Options,
        own_speech: NDArray[np.float32] | None,
        work: Path,
        detector: FaceDetector,
        landmarks: Landmarks | None = None,
    ) -> Analyser:
        from heygemd.engines.rewrite.source import RewriteAnalyser
        from heygemd.faces.landmarks import Landmarks

        found = landmarks or Landmarks(None, "nobody asked for landmarks")
        return RewriteAnalyser(video, options, own_speech, work, detector, found)

    def drive(self, speech: Speech, analysis: Analysis, options: Options) -> Analysis:
        from heygemd.engines.rewrite.driver import PersonalDriver, drive
        from heygemd.engines.rewrite.lively import live
        from heygemd.engines.rewrite.motion import commands, full_opening

        motion = drive(
            speech.samples,
            speech.num_frames,
            speech.fps,
            phones=speech.phones,
            language=speech.language,
            offset_seconds=options.sync_offset_seconds,
            personal=PersonalDriver.from_arrays(analysis.arrays),
        )
        full = full_opening(analysis)
        made = commands(
            motion.opening,
            motion.width,
            motion.closure,
            motion.teeth,
            motion.activity,
            full=full,
            follow=options.silence == "follow",
        )
        summary = {"driver": dict(motion.summary), "full_opening_px": round(full, 1), "silence": options.silence}
        life, lived = live(analysis.arrays, motion.activity, float(speech.fps), speech.samples)
        return Analysis(made.to_arrays() | life, summary | lived)

    def mouth_speed(self, motion: Analysis) -> NDArray[np.float32]:
        from heygemd.engines.rewrite.motion import Commands, speed

        return speed(Commands.from_arrays(motion.arrays))

    def stand_in(self, video: VideoInfo, region: tuple[int, int], num_frames: int) -> tuple[Analysis, Analysis]:
        from heygemd.engines.rewrite.stand_in import stand_in

        return stand_in(video, region, num_frames)

    def renderer(
        self,
        analysis: Analysis,
        motion: Analysis,
        video: VideoInfo,
        options: Options,
        *,
        device: str,
        precision: str,
        checkpoint: Path | None,
    ) -> Renderer:
        """Raises OutOfMemoryError."""
        from heygemd.engines.rewrite.render import RewriteRenderer

        if device == "cpu":
            return RewriteRenderer(analysis, motion, video)
        from heygemd.engines.rewrite.torch_canvas import TorchCanvas

        return RewriteRenderer(analysis, motion, video, TorchCanvas(device))
