"""The child process that has face-alignment's network: `python -P -m heygemd.faces.landmarks_process FILE`.

It says one line of JSON, {"ok": true} or {"ok": false, "error": {…}}, then answers each face picture on stdin (256 x
256 x 3 bytes, BGR) with 68 points on stdout (x, y as float32, pixels of the picture), until stdin closes.

A process of its own, because torch and face-alignment take 330 MiB that no worker gives back: `rewrite` renders without
them, and what a worker holds beside its render must not depend on what was prepared in it before.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from heygemd.core.errors import CheckpointError
from heygemd.faces.landmarks_network import HOURGLASSES, require_network
from heygemd.weights.container import strip_prefix

if TYPE_CHECKING:
    import torch

SIDE = 256
_PR_SET_PDEATHSIG = 1
_REACH = 2
"""Cells of a heatmap to each side of its maximum that say where between them it lies."""


def load_network(path: Path) -> torch.nn.Module:
    """FAN with the file's weights, float32, on the CPU. Raises CheckpointError."""
    import torch
    from face_alignment.models import FAN

    # The same points on every machine; and threads that spin for each other take five times as long on busy cores.
    torch.set_num_threads(1)

    from heygemd.weights.archive import read_state

    require_network(path)
    found = read_state(path)
    state = {name: found[key] for name, key in strip_prefix(list(found)).items()}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            state[name] = tensor.to(torch.float32)
            if not bool(torch.isfinite(state[name]).all()):
                raise CheckpointError(f"{path.name}: {name} holds numbers that are not finite", path=str(path))
    with torch.device("meta"):
        network = FAN(HOURGLASSES)
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:  # shapes were compared: kinds of numbers are left
        first = str(error).strip().splitlines()[-1].strip()[:160]
        raise CheckpointError(f"{path.name} cannot be used for landmarks: {first}", path=str(path)) from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    network.eval()
    return cast("torch.nn.Module", network)


def points_in(network: torch.nn.Module, face: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(68, 2) pixels of `face` (256, 256, 3), BGR."""
    import torch

    rgb = np.ascontiguousarray(face[..., ::-1].transpose(2, 0, 1))
    with torch.inference_mode():
        heat = network(torch.from_numpy(rgb).to(torch.float32)[None] / 255.0)[-1][0]
    return peaks(heat.numpy())


def peaks(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 2) where the highest place of each of n heatmaps (n, 64, 64) lies, in pixels of the picture.

    face-alignment's own reader knows quarters of a cell (1.4 canonical pixels, as much as lips move from frame to
    frame) and compiles itself for five seconds first; the centre of gravity around the highest cell is finer.
    """
    n, _height, width = heat.shape
    best = heat.reshape(n, -1).argmax(axis=1)
    rows, columns = np.divmod(best, width)
    padded = np.pad(np.maximum(heat, 0.0), ((0, 0), (_REACH, _REACH), (_REACH, _REACH)))
    around = np.arange(-_REACH, _REACH + 1)
    dy, dx = np.meshgrid(around, around, indexing="ij")
    near = padded[np.arange(n)[:, None, None], rows[:, None, None] + dy + _REACH, columns[:, None, None] + dx + _REACH]
    weight = near / np.maximum(near.sum(axis=(1, 2), keepdims=True), 1e-12)
    x, y = columns + (weight * dx).sum(axis=(1, 2)), rows + (weight * dy).sum(axis=(1, 2))
    step = SIDE / width
    return np.stack([(x + 0.5) * step - 0.5, (y + 0.5) * step - 0.5], axis=1).astype(np.float32)


def serve(network: torch.nn.Module, source: BinaryIO, sink: BinaryIO) -> None:
    """Until the source ends."""
    size = SIDE * SIDE * 3
    while len(data := source.read(size)) == size:
        sink.write(points_in(network, np.frombuffer(data, np.uint8).reshape(SIDE, SIDE, 3)).tobytes())
        sink.flush()


def main(arguments: list[str]) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not break the protocol
    try:
        network = load_network(Path(arguments[0]))
    except CheckpointError as error:
        sink.write(json.dumps({"ok": False, "error": error.to_dict()}).encode() + b"\n")
        return 1
    sink.write(b'{"ok": true}\n')
    sink.flush()
    serve(network, sys.stdin.buffer, sink)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
