"""The network made ready for one device: folded, laid out and narrowed, run in batches of a few fixed sizes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heygemd.core.errors import OutOfMemoryError
from heygemd.core.heartbeat import beat
from heygemd.engines.base import Computed
from heygemd.engines.wav2lip import int8, onednn
from heygemd.engines.wav2lip.loading import load_generator
from heygemd.engines.wav2lip.memory import BEST_BATCH, compute_batch
from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.precision import INT8, cpu_has_int8, takes_int8, wide_precision
from heygemd.engines.wav2lip.samples import sample_inputs
from heygemd.engines.wav2lip.variants import MEL_BANDS, MEL_COLUMNS, Variant

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LEAST_INT8_DB = 45.0
"""The least PSNR of a generated crop in int8 that is believed: what a good encode has."""
_SAMPLE_BATCHES = 2
_LOOK_FRAMES, _MOST_REMADE = 128, 0.1


class Runtime:
    """`__call__` is a pure function of its input. Threads may share it: on a GPU they take turns, so that its memory
    stays that of one batch; on the CPU each computes with the threads that OMP_NUM_THREADS gives it.

    In int8, frames that go beyond its scales are made anew in `wide_precision()`; where too many do, all are until the
    next `begin`: the one thing that it remembers."""

    def __init__(self, checkpoint: Path, device: str, precision: str, first_row: int = 0) -> None:
        """`device`: cpu, cuda or cuda:N. `precision`: float32 or bfloat16; on a CPU int8, too, where this CPU and the
        network take it and the error is small. `first_row`: rows above it are not made.

        Raises CheckpointError, OutOfMemoryError.
        """
        self.device = torch.device(device)
        self._first_row = first_row
        self._turn = threading.Lock() if self.device.type == "cuda" else nullcontext()
        net = load_generator(checkpoint)
        self.variant = net.variant
        precision, self._refused = _possible(precision, self.device.type, self.variant)
        self._wide = wide_precision() if precision == INT8 else precision
        self._dtype = DTYPES[self._wide]
        net.fold()
        weights = int8.weights_of(net) if precision == INT8 else None
        last = net.output_block[1]
        # The last step stays in float32: a sigmoid in bfloat16 has 128 steps between .5 and 1, which shows as bands.
        net.output_block = nn.Sequential(net.output_block[0])
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # a few fixed batch sizes: the search pays
        try:
            self._net = net.to(self.device, self._dtype)
            _channels_last(self._net)
            self._last = last.to(self.device)
            if self.device.type == "cpu" and onednn.is_available():
                self._pack(self._net)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"the network does not fit {device}", path=str(checkpoint)) from error
        self._int8: int8.Int8Decoder | None = None
        self.begin()
        if weights is not None:
            self._make_narrow(weights)

    def __call__(self, mel: NDArray[np.float32], crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """mel (n, 80, 16), crops (n, S, S, 3) BGR 0..1 → (n, S - first_row, S, 3) BGR 0..1. Raises OutOfMemoryError."""
        results = []
        start = 0
        while start < len(crops):
            batch = compute_batch(self.device.type, len(crops) - start)
            stop = min(start + batch, len(crops))
            results.append(self._batch(mel[start:stop], crops[start:stop], batch))
            start = stop
        size = self.variant.size
        return np.concatenate(results) if results else np.empty((0, size - self._first_row, size, 3), np.float32)

    def begin(self) -> None:
        """Another job: what the one before it showed of its frames says nothing of this one's."""
        self._narrow, self._why, self._count = self._int8, self._refused, _Count()

    def computed(self) -> Computed:
        return Computed(self._wide if self._narrow is None else INT8, self._why, self._count.remade)

    def _pack(self, net: Generator) -> None:
        batch, size = BEST_BATCH["cpu"], self.variant.size
        mel = torch.zeros((batch, 1, MEL_BANDS, MEL_COLUMNS), dtype=self._dtype)
        face = torch.zeros((batch, 6, size, size), dtype=self._dtype)
        layout = torch.channels_last
        onednn.pack(net, mel.contiguous(memory_format=layout), face.contiguous(memory_format=layout), self._first_row)

    def _batch(self, mel: NDArray[np.float32], crops: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
        """One run of exactly `batch` frames: a short one is filled up with its last frame."""
        missing = batch - len(crops)
        if missing:
            mel = np.concatenate([mel, np.repeat(mel[-1:], missing, axis=0)])
            crops = np.concatenate([crops, np.repeat(crops[-1:], missing, axis=0)])
        failed = False
        try:
            with self._turn, torch.inference_mode():
                out = self._forward(torch.from_numpy(mel), torch.from_numpy(crops)).cpu().numpy()
        except torch.OutOfMemoryError:
            failed = True
        if failed:
            # Out here the traceback no longer holds the tensors, so that their memory is free when the ladder goes on.
            torch.cuda.empty_cache()
            raise OutOfMemoryError(f"{batch} frames at once do not fit {self.device}", batch=batch)
        return np.asarray(out[: batch - missing], np.float32)

    def _forward(self, mel: Tensor, crops: Tensor) -> Tensor:
        audio, features = self._encoded(mel, crops)
        narrow = self._narrow
        if narrow is None:
            return self._finished(self._net.decode(audio, features, self._first_row))
        made, beyond = narrow(audio, features)
        if beyond.any():
            made[beyond] = self._net.decode(audio, features, self._first_row)[beyond].float()
        if self._count.too_many(len(beyond), int(beyond.sum())):
            self._narrow = None
            self._why = "too many frames went beyond the scales of int8"
        return self._finished(made)

    def _encoded(self, mel: Tensor, crops: Tensor) -> tuple[Tensor, list[Tensor]]:
        size = self.variant.size
        face = crops.to(self.device).to(self._dtype)
        pair = torch.empty((len(face), size, size, 6), dtype=self._dtype, device=self.device)
        pair[..., 3:] = face
        pair[:, : size // 2, :, :3] = face[:, : size // 2]
        pair[:, size // 2 :, :, :3] = 0.0
        faces = pair.permute(0, 3, 1, 2)  # NHWC seen as NCHW is channels-last already
        mels = mel[:, None].to(self.device).to(self._dtype, memory_format=torch.channels_last)
        return self._net.audio_encoder(mels), self._net.encode_face(faces)

    def _finished(self, features: Tensor) -> Tensor:
        out: Tensor = torch.sigmoid(self._last(features.float()))
        return out.permute(0, 2, 3, 1)

    @torch.inference_mode()
    def _make_narrow(self, weights: Mapping[str, int8.Weights]) -> None:
        """Lay the decoder out in 8 bits, and keep it if its error on other samples is small."""
        with int8.watched(self._net) as seen:
            for seed in range(_SAMPLE_BATCHES):
                self._forward(*self._samples(seed))
                beat()  # on a slow CPU a large network takes a minute for all of this
        others = self._samples(_SAMPLE_BATCHES)
        wide = self._forward(*others)
        beat()
        self._narrow = int8.Int8Decoder(self._net, weights, seen, self._first_row)
        beat()
        narrow = self._forward(*others)
        worst_db = float(-10 * torch.log10((narrow - wide).square().mean((1, 2, 3)).max().clamp_min(1e-12)))
        if self._count.remade:
            self._refused = "other samples go beyond what the scales of int8 were taken from"
        elif not worst_db >= LEAST_INT8_DB:  # not a number, too
            self._refused = (
                f"in int8 this checkpoint gives {worst_db:.0f} dB; less than {LEAST_INT8_DB:.0f} is not taken"
            )
        else:
            self._int8 = self._narrow
        self.begin()

    def _samples(self, seed: int) -> tuple[Tensor, Tensor]:
        mel, crops = sample_inputs(self.variant.size, BEST_BATCH["cpu"], seed)
        return torch.from_numpy(mel), torch.from_numpy(crops)


class _Count:
    """Of frames in int8 that had to be made anew: `remade` in all. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames = self._remade = 0  # since the last look
        self.remade = 0

    def too_many(self, frames: int, remade: int) -> bool:
        """After so many more, at the last look. A batch with one such frame takes more than twice the time."""
        with self._lock:
            self.remade += remade
            self._frames += frames
            self._remade += remade
            if self._frames < _LOOK_FRAMES:
                return False
            found = self._remade > _MOST_REMADE * self._frames
            self._frames = self._remade = 0
            return found


def _possible(precision: str, device: str, variant: Variant) -> tuple[str, str]:
    """What is computed in on this machine, and why it is not what was asked for: a plan is made on another machine
    sometimes."""
    if precision != INT8:
        return precision, ""
    if device != "cpu" or not takes_int8(variant):
        wide = wide_precision() if device == "cpu" else "bfloat16"
        return wide, f"{variant.name} is not computed in int8 on {device}"
    if not cpu_has_int8():
        return wide_precision(), "this CPU does not compute in int8"
    if not int8.is_available():
        return wide_precision(), f"torch {torch.__version__} does not compute in int8 as it is known here"
    return precision, ""


def _channels_last(net: nn.Module) -> None:
    """The layout in which oneDNN and the tensor cores compute."""
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
