"""From a file to a network: read, recognise, build, strictly."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from heygemd.core.errors import CheckpointError
from heygemd.engines.wav2lip.network import Generator
from heygemd.engines.wav2lip.variants import Variant, recognise
from heygemd.weights.archive import read_state
from heygemd.weights.container import strip_prefix


def read_generator_state(path: Path) -> tuple[Variant, dict[str, Tensor]]:
    """The variant and its tensors, float32, named without `module.`. Raises CheckpointError."""
    found = read_state(path)
    state = {name: found[key] for name, key in strip_prefix(list(found)).items()}
    # TorchScript keeps some buffers that hold no weights beside the state; and batch norm's counter does not matter.
    variant = recognise({name: tuple(tensor.shape) for name, tensor in state.items()})
    if isinstance(variant, str):
        raise CheckpointError(f"{path.name} is not a Wav2Lip generator heygemd knows: {variant}", path=str(path))
    numbers: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            numbers[name] = tensor.to(torch.int64)
            continue
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path.name}: {name} is {tensor.dtype}, not floating point", path=str(path))
        numbers[name] = tensor.to(torch.float32)
        if not bool(torch.isfinite(numbers[name]).all()):
            raise CheckpointError(f"{path.name}: {name} holds numbers that are not finite", path=str(path))
    return variant, numbers


def load_generator(path: str | Path, device: str | torch.device = "cpu") -> Generator:
    """The network of a checkpoint, float32, in eval mode. Call `net(mel, face)`.

    The variant is recognised by the names and shapes of the tensors; anything else is rejected with what was seen.
    Raises CheckpointError.
    """
    variant, state = read_generator_state(Path(path))
    with torch.device("meta"):
        net = Generator(variant)
    net.load_state_dict(state, strict=True, assign=True)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net.eval().to(device)
