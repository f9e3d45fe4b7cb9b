"""`wav2lip`: the Wav2Lip family behind the engine Protocol. Imports no torch until a renderer is made."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import CheckpointError, EngineUnavailableError
from heygemd.core.options import Options
from heygemd.engines import warm
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
from heygemd.engines.wav2lip.memory import BEST_BATCH, predict_bytes, predict_prepare_bytes
from heygemd.engines.wav2lip.precision import precisions
from heygemd.engines.wav2lip.variants import HD256, Variant, recognise
from heygemd.weights.container import read_shapes, strip_prefix

if TYPE_CHECKING:
    from heygemd.faces.detect import FaceDetector
    from heygemd.faces.landmarks import Landmarks

S3FD = "s3fd-619a316812.pth"
"""The reference's own detector: used in reference mode when it lies beside the checkpoint."""


def identify(checkpoint: Path) -> Variant:
    """The network in a file, by its shapes. Raises CheckpointError."""
    shapes = read_shapes(checkpoint)
    found = recognise({name: shapes[key] for name, key in strip_prefix(list(shapes)).items()})
    if isinstance(found, str):
        raise CheckpointError(f"{checkpoint.name} is not a Wav2Lip generator: {found}", path=str(checkpoint))
    return found


class Wav2LipEngine:
    """Remembers the checkpoint that `availability` was asked about: pass 1 then knows the variant and the detector."""

    name: ClassVar[str] = "wav2lip"
    description: ClassVar[str] = "the Wav2Lip networks (96, compressed, 256, 288), with the operator's checkpoint"
    needs_checkpoint: ClassVar[bool] = True
    uses_landmarks: ClassVar[bool] = False
    best_batch: ClassVar[dict[str, int]] = BEST_BATCH

    def __init__(self) -> None:
        self._checkpoint: Path | None = None
        self._variant: Variant | None = None

    def availability(self, checkpoint: Path | None) -> Availability:
        """Looks at names and shapes in the file, not at its numbers."""
        remedy = "Run `heygemd checkpoints list`, then `heygemd checkpoints import FILE`; or use `engine: auto`."
        if checkpoint is None:
            return Availability(False, "it needs a Wav2Lip checkpoint, and none is there", remedy)
        if find_spec("torch") is None:
            return Availability(False, "torch is not installed", "Install heygemd again.")
        try:
            self._variant = identify(checkpoint)
        except CheckpointError as error:
            return Availability(False, error.message, remedy)
        self._checkpoint = checkpoint
        return Availability(True, f"{checkpoint.name} is a {self._variant.title}")

    @property
    def variant(self) -> str:
        return "" if self._variant is None else self._variant.name

    def precisions(self, kind: str, options: Options) -> tuple[str, ...]:
        return precisions(kind, self._variant or HD256, reference=options.reference)

    def memory_bytes(self, query: MemoryQuery) -> int:
        return predict_bytes(query)

    def prepare_bytes(self, query: PrepareQuery) -> int:
        return predict_prepare_bytes(query)

    def import_ahead(self) -> None:
        import_module("heygemd.engines.wav2lip.runtime")  # torch takes longer to load than to set up

    def analysis_side(self, options: Options) -> int:
        return PASS_1_SIDE if options.face_box is None else 64  # a given box needs no pictures, only their times

    def analyser(
        self,
        video: VideoInfo,
        options: Options,
        own_speech: NDArray[np.float32] | None,
        work: Path,
        detector: FaceDetector,
        landmarks: Landmarks | None = None,
    ) -> Analyser:
        from heygemd.engines.wav2lip.analyse import FixedBoxAnalyser, ReferenceAnalyser, TrackAnalyser

        facts: dict[str, Any] = {"variant": self.variant}
        if options.face_box is not None:
            return FixedBoxAnalyser(options.face_box, video, facts)
        beside = None if self._checkpoint is None else self._checkpoint.with_name(S3FD)
        if options.reference and beside is not None and beside.is_file():
            from heygemd.faces.detectors_alignment import alignment_detector

            published = alignment_detector("s3fd", beside, as_wav2lip=True)
            return ReferenceAnalyser(published, video, options, facts | {"detector": published.name})
        return TrackAnalyser(detector, video, options, facts | {"detector": detector.name})

    def drive(self, speech: Speech, analysis: Analysis, options: Options) -> Analysis:
        """Arrays: `mel` (80, T), `first_column` (frames,), `weight` (frames,) 0..1: how much of the mouth is taken."""
        from heygemd.engines.wav2lip import drive

        weight = np.ones(speech.num_frames, np.float32)
        if options.reference:
            mel, first = drive.reference_windows(speech.samples, speech.num_frames, speech.fps)
            return Analysis({"mel": mel, "first_column": first, "weight": weight}, {"mode": "reference"})
        offset = options.sync_offset_seconds
        heard = drive.windows(speech.samples, speech.num_frames, speech.fps, offset)
        mel, activity = heard.mel, heard.activity_of_frames
        if options.silence == "rest":
            mel = drive.gated(mel, heard.activity)
        else:
            weight = activity
        summary = {
            "mode": "blend",
            "silence": options.silence,
            "sync_offset_seconds": offset,
            "speech_share": round(float(activity.mean()), 3) if len(activity) else 0.0,
        }
        return Analysis({"mel": mel, "first_column": heard.first_column, "weight": weight}, summary)

    def mouth_speed(self, motion: Analysis) -> NDArray[np.float32]:
        from heygemd.engines.wav2lip.drive import speed

        return speed(motion.arrays["mel"], motion.arrays["first_column"], motion.arrays["weight"])

    def stand_in(self, video: VideoInfo, region: tuple[int, int], num_frames: int) -> tuple[Analysis, Analysis]:
        from heygemd.engines.wav2lip.stand_in import stand_in

        return stand_in(video, region, num_frames, self.variant)

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
        """Raises EngineUnavailableError, CheckpointError, OutOfMemoryError."""
        from heygemd.engines.wav2lip.blend import first_row
        from heygemd.engines.wav2lip.renderer import BlendRenderer, ReferenceRenderer
        from heygemd.engines.wav2lip.runtime import Runtime

        if checkpoint is None:
            raise EngineUnavailableError(
                "engine wav2lip needs a checkpoint, and none was given", case="unavailable", engine=self.name
            )
        shown_from = 0 if options.reference else first_row(identify(checkpoint).size)
        key = ("wav2lip", *warm.file_key(checkpoint), device, precision, shown_from)
        network = warm.borrow(key, lambda: Runtime(checkpoint, device, precision, shown_from))
        network.begin()
        kind = ReferenceRenderer if options.reference else BlendRenderer
        renderer = kind(analysis, motion, video.width, video.height, network, network.variant.size)
        warm.returned_with(renderer, key)
        return renderer
