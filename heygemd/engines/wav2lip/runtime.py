"""The network made ready for one device: folded, laid out and narrowed, run in batches of a few fixed sizes."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heygemd.core.errors import OutOfMemoryError
from heygemd.engines.wav2lip import onednn
from heygemd.engines.wav2lip.loading import load_generator
from heygemd.engines.wav2lip.memory import BEST_BATCH, compute_batch
from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.variants import MEL_BANDS, MEL_COLUMNS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Runtime:
    """`__call__` is a pure function of its input. Threads may share it: on a GPU they take turns, so that its memory
    stays that of one batch; on the CPU each computes with the threads that OMP_NUM_THREADS gives it."""

    def __init__(self, checkpoint: Path, device: str, precision: str, first_row: int = 0) -> None:
        """`device`: cpu, cuda or cuda:N. `precision`: float32 or bfloat16. `first_row`: rows above it are not made.

        Raises CheckpointError, OutOfMemoryError.
        """
        self.device = torch.device(device)
        self._first_row = first_row
        self._turn = threading.Lock() if self.device.type == "cuda" else nullcontext()
        self._dtype = DTYPES[precision]
        net = load_generator(checkpoint)
        self.variant = net.variant
        net.fold()
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
        size = self.variant.size
        face = crops.to(self.device).to(self._dtype)
        pair = torch.empty((len(face), size, size, 6), dtype=self._dtype, device=self.device)
        pair[..., 3:] = face
        pair[:, : size // 2, :, :3] = face[:, : size // 2]
        pair[:, size // 2 :, :, :3] = 0.0
        faces = pair.permute(0, 3, 1, 2)  # NHWC seen as NCHW is channels-last already
        mels = mel[:, None].to(self.device).to(self._dtype, memory_format=torch.channels_last)
        features: Tensor = self._net(mels, faces, self._first_row)
        out: Tensor = torch.sigmoid(self._last(features.float()))
        return out.permute(0, 2, 3, 1)


def _channels_last(net: nn.Module) -> None:
    """The layout in which oneDNN and the tensor cores compute."""
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
