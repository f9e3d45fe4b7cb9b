"""The engine Protocol: what the pipeline asks of whatever makes a mouth move.

Two passes. Pass 1: an `Analyser` sees every source frame once, small, in order, and returns arrays that are stored with
the job. Then `drive` turns speech into motion for every *output* frame, again as arrays. Pass 2: a `Renderer` gets
the region of one output frame's source picture and returns the picture to blend over it. A renderer is a pure function
of (arrays, index, source_index, region): it keeps nothing from one frame to the next, so a split render equals
the unsplit one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box, Phone, VideoInfo
from heygemd.core.errors import EngineUnavailableError
from heygemd.core.options import Options

if TYPE_CHECKING:
    from heygemd.faces.detect import FaceDetector  # brings OpenCV, which the daemon does not load
    from heygemd.faces.landmarks import Landmarks

SPEECH_RATE = 16000
"""Samples a second of all speech given to engines."""

Arrays = dict[str, NDArray[Any]]
"""Stored as .npz without pickle: only numeric, bool and fixed-width string arrays."""


@dataclass(frozen=True)
class AnalysisFrame:
    """One source frame for pass 1. `image`: (h, w, 3) uint8 BGR, scaled down; times `scale` gives source pixels."""

    index: int
    image: NDArray[np.uint8]
    scale: float


@dataclass(frozen=True)
class Speech:
    """What is to be spoken. `samples`: (n,) float32 mono at 16 kHz in [-1, 1]. The output has `num_frames` at `fps`."""

    samples: NDArray[np.float32]
    num_frames: int
    fps: Fraction
    phones: tuple[Phone, ...] | None = None
    language: str | None = None


@dataclass(frozen=True)
class Region:
    """The picture under `box` of source frame `source_index`, for output frame `index`.

    `image`: (h, w, 3) float32 RGB, 0..255 (full range, non-linear, whatever the source's depth).
    """

    index: int
    source_index: int
    box: Box
    image: NDArray[np.float32]


@dataclass(frozen=True)
class Patch:
    """The new picture of a region. `image` as in Region, `mask`: (h, w) float32 0..1; where it is 0 nothing changes."""

    image: NDArray[np.float32]
    mask: NDArray[np.float32]


@dataclass(frozen=True)
class Analysis:
    """Result of pass 1. `summary` is JSON-ready and goes into the receipt (faces found, choices and their reasons).

    Two of its keys are read by the pipeline, where they are there: `variant` (of the network) and `region`, [width,
    height] of the largest region that the renderer will ask for, which the memory prediction counts with.
    """

    arrays: Arrays
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Availability:
    """Whether the engine can run here, and why or why not, in words for the user."""

    ok: bool
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class MemoryQuery:
    """What a memory estimate depends on. `width`, `height`: the source frame in pixels; `device`: "cpu" or "cuda";
    `region_pixels`: of the largest region that a renderer will ask for, 0 where that is not known."""

    device: str
    precision: str
    batch: int
    width: int
    height: int
    variant: str = ""
    region_pixels: int = 0


@dataclass(frozen=True)
class PrepareQuery:
    """What the memory of preparing depends on: `width`, `height` of the source in pixels, its `video_frames` (1 for a
    still), the `speech_seconds`."""

    width: int
    height: int
    video_frames: int
    speech_seconds: float


class Analyser(Protocol):
    """Pass 1 over one clip. Frames come in order, each once."""

    def update(self, frame: AnalysisFrame) -> None: ...

    def finish(self) -> Analysis:
        """Raises NoFaceError when the whole clip shows no face."""
        ...


@dataclass(frozen=True)
class Computed:
    """How a renderer computes. `precision`, and `why` it is another one than was asked for; `remade_frames`: so many
    were made twice so far, because the first time was not exact enough."""

    precision: str
    why: str = ""
    remade_frames: int = 0


class Renderer(Protocol):
    """Pass 2. Holds the model on its device until `close`. `box` and `render` keep nothing from call to call, and
    several threads call `render` at once."""

    def box(self, index: int, source_index: int) -> Box | None:
        """The region that output frame `index` needs, inside the frame, or None: the frame passes through unchanged."""
        ...

    def render(self, regions: Sequence[Region]) -> list[Patch]:
        """One patch for each region, of the same height and width."""
        ...

    def computed(self) -> Computed: ...

    def close(self) -> None: ...


PASS_1_SIDE = 1280
"""Enough to find faces and follow mouths. Larger clips are analysed at this size."""


class LipSyncEngine(Protocol):
    """One way of making a mouth move. Made without arguments; neither that nor the two predictions import torch."""

    name: ClassVar[str]
    description: ClassVar[str]
    needs_checkpoint: ClassVar[bool]
    uses_landmarks: ClassVar[bool]

    def availability(self, checkpoint: Path | None) -> Availability: ...

    @property
    def variant(self) -> str:
        """Of the network that `availability` found, as `Analysis.summary` will name it; "" where there is but one."""
        ...

    def precisions(self, kind: str, options: Options) -> tuple[str, ...]:
        """What a device of that kind (cpu, cuda) can compute in, the best first."""
        ...

    def memory_bytes(self, query: MemoryQuery) -> int:
        """Predicted peak bytes on the device beyond a bare worker process, everything included. A larger batch or
        region never takes less, nor does one that is not known."""
        ...

    def prepare_bytes(self, query: PrepareQuery) -> int:
        """Predicted peak of RAM that `analyser` and `drive` take beyond a worker that decodes; speech itself stays on
        the disk."""
        ...

    def import_ahead(self) -> None:
        """Load the libraries that `renderer` needs; called on a thread of its own while pass 1 waits for the decoder,
        in workers that will render too."""
        ...

    def analysis_side(self, options: Options) -> int:
        """The longest side, in pixels, of the pictures that pass 1 wants; `PASS_1_SIDE` unless it looks at none."""
        ...

    def analyser(
        self,
        video: VideoInfo,
        options: Options,
        own_speech: NDArray[np.float32] | None,
        work: Path,
        detector: FaceDetector,
        landmarks: Landmarks | None = None,
    ) -> Analyser:
        """`own_speech`: the clip's own sound, 16 kHz mono from frame 0 on, or None. `work`: a scratch folder.
        `landmarks`: of use where `uses_landmarks` says so."""
        ...

    def drive(self, speech: Speech, analysis: Analysis, options: Options) -> Analysis:
        """Motion arrays, one row for each output frame where they depend on time."""
        ...

    def mouth_speed(self, motion: Analysis) -> NDArray[np.float32]:
        """(num_frames,), 0 or more in any unit: how far the mouth moves from the frame before into each one. Segments
        are cut where it rests."""
        ...

    def stand_in(self, video: VideoInfo, region: tuple[int, int], num_frames: int) -> tuple[Analysis, Analysis]:
        """Analysis and motion of a face that nobody has, whose region has about `region` (width, height) pixels: the
        renderer that is made of them takes as much as any does. For measuring before there is a job."""
        ...

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
    ) -> Renderer: ...


def engine_names() -> list[str]:
    """Names of all registered engines."""
    return sorted({point.name for point in entry_points(group="heygemd.engines")})


def load_engine(name: str) -> LipSyncEngine:
    """The engine of that name, imported now. Raises EngineUnavailableError."""
    for point in entry_points(group="heygemd.engines"):
        if point.name == name:
            engine: LipSyncEngine = point.load()()
            return engine
    known = ", ".join(engine_names()) or "none"
    raise EngineUnavailableError(f"there is no engine named {name!r}; known: {known}", case="unknown", engine=name)
