"""The memory model: how many bytes a worker takes while it renders, and what measured peaks teach it. Pure.

A worker's RAM is the pipeline's part (interpreter, OpenCV, ffmpeg beside it, frames on their way) plus the engine's.
On a GPU lies only the engine's part. Formulas give a first number, a calibration pass a better one (core.fit), and
every segment's measured peak corrects that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from heygemd.core.fit import Fit

MIB = 2**20
QUEUE_BYTES = 64 * MIB
"""What each of the two frame queues of a render may hold; one frame is always let in."""
GROUPS_AT_ONCE = 2
"""A render works on so many groups of `batch` frames at once: one in the network while the other is cropped and put
back; on a CPU both where they are, each with its share of the threads."""

WORKER_BYTES = 115 * MIB
"""An interpreter with numpy and OpenCV loaded, and two idle ffmpeg processes."""

CHUNK_BYTES = 128 * MIB
"""What the decoder keeps at most while a clip runs backwards (media.decode)."""

FIRST_MARGIN = 0.15
"""On top of a prediction that no measurement has confirmed yet."""
LEAST_RATIO = 0.6
"""No measurement was ever below 0.65 of its formula: what a formula puts so far above a device will never fit it."""
CALIBRATED_MARGIN = 0.10
"""On top of one that a calibration pass has measured, and no segment yet."""
LEAST_MARGIN = 0.05
MOST_MARGIN = 0.5
_RISE, _FALL = 0.5, 0.125
_OOM_FACTOR = 1.25
_SIZES = ((480, "480p"), (720, "720p"), (1080, "1080p"), (1440, "1440p"), (2160, "2160p"))


@dataclass(frozen=True)
class Picture:
    """What the pipeline's memory depends on. `bytes_per_pixel`: of a decoded frame (1.5 for 4:2:0 with 8 bits)."""

    width: int
    height: int
    bytes_per_pixel: float = 1.5
    deep: bool = False  # more than 8 bits a sample: HEVC encodes it, and takes more
    backward_frames: int = 0  # of the source, where the clip is played backwards too; 0: it is not

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def frame_bytes(self) -> int:
        return int(self.pixels * self.bytes_per_pixel)


def bytes_per_pixel(pix_fmt: str, bit_depth: int) -> float:
    """Of planar YUV as ffmpeg names it."""
    chroma = {"420": 0.5, "422": 1.0, "444": 2.0, "440": 1.0, "411": 0.5, "410": 0.125}
    share = next((value for name, value in chroma.items() if name in pix_fmt), 2.0 if "gray" not in pix_fmt else 0.0)
    return (1.0 + share) * (1 if bit_depth <= 8 else 2)


def pipeline_bytes(picture: Picture, batch: int, threads: int = 1) -> int:
    """RAM of a render without its engine. Measured; see docs/scheduling.md."""
    frame = picture.frame_bytes
    queues = 2 * (min(QUEUE_BYTES, _QUEUED_FRAMES * frame) + frame)
    encoder_frames = (_DEEP_FRAMES if picture.deep else _ENCODER_FRAMES) + _ENCODER_FRAMES_PER_THREAD * threads
    coders = _CODER_BYTES + int(frame * (_DECODER_FRAMES + encoder_frames))
    backwards = min(CHUNK_BYTES, picture.backward_frames * frame)
    return WORKER_BYTES + queues + coders + backwards + GROUPS_AT_ONCE * batch * frame


def mib(num_bytes: int) -> int:
    """Mebibytes, rounded up: what must be offered for it to fit."""
    return -(-num_bytes // MIB)


def preparing_bytes(picture: Picture) -> int:
    """RAM of a worker that prepares, without its engine: a decoder of the source, and a few small pictures."""
    return WORKER_BYTES + _CODER_BYTES + int(picture.frame_bytes * _DECODER_FRAMES)


def host_bytes(picture: Picture, batch: int) -> int:
    """RAM of a worker that renders on a GPU: the pipeline, and torch with its CUDA libraries. Not measured yet: the
    first segment corrects it."""
    return pipeline_bytes(picture, batch) + _CUDA_HOST_BYTES


def coder_bytes(picture: Picture) -> int:
    """Memory on a card of its encoder and decoder beside one render: two contexts, and the frames that they hold.
    From what their makers say, not measured."""
    return 2 * _CODER_CONTEXT_BYTES + int(_CARD_FRAMES * picture.frame_bytes)


_CODER_CONTEXT_BYTES = 300 * MIB
_CARD_FRAMES = 64
_CUDA_HOST_BYTES = 1536 * MIB
HOST_KIND = "cuda-host"
"""In a Load: the RAM of a worker on a GPU, which is measured and corrected like all else."""


_QUEUED_FRAMES = 64
_CODER_BYTES = 70 * MIB
_DECODER_FRAMES = 8
_ENCODER_FRAMES = 16
_DEEP_FRAMES = 40
_ENCODER_FRAMES_PER_THREAD = 2


def size_class(picture: Picture) -> str:
    """480p, 720p, 1080p, 1440p, 2160p or 4320p, by the shorter side of a 16:9 frame of as many pixels; a plus stands
    for more than 8 bits."""
    side = math.sqrt(picture.pixels * 9 / 16)
    return next((name for limit, name in _SIZES if side <= limit * 1.2), "4320p") + ("+" if picture.deep else "")


@dataclass(frozen=True)
class Load:
    """What is rendered how: measurements of one load say something about the next of the same kind."""

    engine: str
    variant: str
    kind: str  # of the device: "cpu", "cuda"
    precision: str
    size: str  # size_class
    batch: int

    @property
    def keys(self) -> tuple[str, str, str]:
        """Under which measurements are kept, from the most to the least like it: exactly this, the same with any batch,
        and with any size."""
        start = self.family
        return f"{start}/{self.size}/{self.batch}", f"{start}/{self.size}/any", f"{start}/any/any"

    @property
    def family(self) -> str:
        """What one calibration pass speaks for, on one model of device."""
        return f"{self.engine}/{self.variant or '-'}/{self.kind}/{self.precision}"

    @property
    def key(self) -> str:
        return self.keys[0]


@dataclass(frozen=True)
class Correction:
    """Measured over formula. `ratio`: its running mean, which rises faster than it falls; `spread`: the mean distance
    of the measurements from it; `count`: how many there were; `raised`: how often out-of-memory pushed it up."""

    ratio: float = 1.0
    spread: float = 0.0
    count: int = 0
    raised: int = 0

    @property
    def margin(self) -> float:
        """What a reservation takes on top of a prediction: three times the spread, within bounds."""
        if self.count == 0:
            return FIRST_MARGIN
        few = FIRST_MARGIN / (1 + self.count)  # one measurement is not yet a habit
        return min(MOST_MARGIN, max(LEAST_MARGIN + few, 3 * self.spread / max(self.ratio, 1e-6)))

    def measured(self, ratio: float) -> Correction:
        """After one more measurement."""
        if self.count == 0 and not self.raised:
            return Correction(ratio, 0.0, 1)
        weight = _RISE if ratio > self.ratio else _FALL
        mean = self.ratio + weight * (ratio - self.ratio)
        spread = self.spread + 0.25 * (abs(ratio - mean) - self.spread)
        return Correction(mean, spread, self.count + 1, self.raised)

    def out_of_memory(self, tried: float) -> Correction:
        """After a run that had `tried` times the formula's bytes and found them too few."""
        return replace(self, ratio=max(self.ratio, tried) * _OOM_FACTOR, raised=self.raised + 1)


@dataclass(frozen=True)
class Estimate:
    """`predicted_bytes` is the expected peak, `reserved_bytes` the same with the margin; `source` says whence.
    `host_bytes`: for a GPU, what is to be reserved of the host's RAM beside."""

    predicted_bytes: int
    reserved_bytes: int
    source: str
    host_bytes: int = 0


@dataclass(frozen=True)
class Calibration:
    """What was measured: `fits` of calibration passes, by family and model of device, and `corrections` of segments,
    by load, against what the fit (or else the formula) says. `learn`, `raise_after_oom` and `fitted` give a new one."""

    corrections: Mapping[str, Correction] = field(default_factory=dict)
    fits: Mapping[str, Fit] = field(default_factory=dict)

    def fits_of(self, load: Load) -> dict[str, Fit]:
        """Of every model of device that this kind of load was measured on."""
        start = load.family + "/"
        return {key.removeprefix(start): fit for key, fit in self.fits.items() if key.startswith(start)}

    def base_bytes(self, load: Load, formula_bytes: int) -> int:
        """What the calibration passes make of the formula; the largest, where several models of device were measured.
        Without a pass, the formula."""
        ratios = [fit.ratio(load.batch) for fit in self.fits_of(load).values()]
        return int(formula_bytes * max(ratios)) if ratios else formula_bytes

    def find(self, load: Load) -> tuple[Correction, str]:
        """The correction that is most like the load, and in words which it is."""
        words = ("measured", "measured with another batch", "measured at another size")
        for key, source in zip(load.keys, words, strict=True):
            found = self.corrections.get(key)
            if found is not None:
                return found, source
        return Correction(), "calibrated" if self.fits_of(load) else "formula"

    def estimate(self, load: Load, formula_bytes: int) -> Estimate:
        correction, source = self.find(load)
        predicted = int(self.base_bytes(load, formula_bytes) * correction.ratio)
        margin = correction.margin
        if source == "calibrated":
            margin = max(CALIBRATED_MARGIN, 2 * max(fit.largest_error for fit in self.fits_of(load).values()))
        return Estimate(predicted, int(predicted * (1 + margin)), source)

    def learn(self, load: Load, formula_bytes: int, measured_bytes: int) -> Calibration:
        """With one measured peak."""
        ratio = measured_bytes / self.base_bytes(load, formula_bytes)
        changed = {key: self.corrections.get(key, Correction()).measured(ratio) for key in load.keys}
        return replace(self, corrections={**self.corrections, **changed})

    def raise_after_oom(self, load: Load, formula_bytes: int, reserved_bytes: int) -> Calibration:
        """The load did not fit into what was reserved for it. Only its own key and size rise."""
        tried = reserved_bytes / self.base_bytes(load, formula_bytes)
        changed = {key: self.corrections.get(key, self.find(load)[0]).out_of_memory(tried) for key in load.keys[:2]}
        return replace(self, corrections={**self.corrections, **changed})

    def fitted(self, family: str, model: str, fit: Fit) -> Calibration:
        """With one calibration pass. Corrections of the family go: they were measured against another base."""
        kept = {key: value for key, value in self.corrections.items() if not key.startswith(family + "/")}
        return Calibration(kept, {**self.fits, f"{family}/{model}": fit})

    def least_ratio(self, kind: str) -> float:
        """What share of a formula a reservation on such a device comes to at least, by all that was ever measured on
        one, and with room for what will be measured next."""
        fits = [fit for key, fit in self.fits.items() if key.split("/")[2] == kind]
        fitted = min((fit.ratio(batch) for fit in fits for batch in fit.formula_bytes), default=1.0)
        corrected = min((c.ratio for key, c in self.corrections.items() if key.split("/")[2] == kind), default=1.0)
        return min(LEAST_RATIO, 0.8 * min(fitted, 1.0) * min(corrected, 1.0))

    def to_dict(self) -> dict[str, Any]:
        return {
            "corrections": {key: asdict(value) for key, value in sorted(self.corrections.items())},
            "fits": {key: fit.to_dict() for key, fit in sorted(self.fits.items())},
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Calibration:
        """Raises KeyError, TypeError or ValueError for what `to_dict` did not write."""
        corrections = {key: Correction(**value) for key, value in data["corrections"].items()}
        return Calibration(corrections, {key: Fit.from_dict(value) for key, value in data["fits"].items()})
