"""face-alignment's network for 68 landmarks (FAN, four hourglasses), known by the names and shapes in its file.

Imports neither torch nor OpenCV: the daemon asks whether such a file is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from heygemd.core.errors import CheckpointError
from heygemd.weights.container import Shape, read_shapes, strip_prefix

VARIANT, TITLE = "fan4", "face-alignment network for 68 landmarks (FAN-4)"
HOURGLASSES, DEPTH, FEATURES, POINTS = 4, 4, 256, 68
_COUNTER = "num_batches_tracked"  # newer files have it, older ones not, and nothing depends on it


def require_network(path: Path) -> None:
    """Raises CheckpointError unless names and shapes in the file are the network's. Reads no numbers."""
    if not path.is_file():
        raise CheckpointError(f"{path.name}, which landmarks need, is not there", path=str(path))
    shapes = read_shapes(path)
    wrong = unlike_network({name: shapes[key] for name, key in strip_prefix(list(shapes)).items()})
    if wrong:
        raise CheckpointError(f"{path.name} does not hold {TITLE}: {wrong}", path=str(path))


def unlike_network(shapes: Mapping[str, Shape]) -> str:
    """What tells names and shapes (without `module.`) from the network's, or nothing. Its 2D and its 3D weights have
    the same."""
    wanted = dict(_network())
    found = {name: shape for name, shape in shapes.items() if not name.endswith(_COUNTER)}
    missing = [name for name in wanted if name not in found]
    if missing:
        return f"{missing[0]} and {len(missing) - 1} more are missing" if missing[1:] else f"{missing[0]} is missing"
    extra = [name for name in found if name not in wanted]
    if extra:
        return f"{extra[0]} is not of it"
    for name, shape in wanted.items():
        if found[name] != shape:
            return f"{name} is {'x'.join(map(str, found[name]))}, not {'x'.join(map(str, shape))}"
    return ""


def _network() -> Iterator[tuple[str, Shape]]:
    yield from _convolution("conv1", 64, 3, 7, bias=True)
    yield from _norm("bn1", 64)
    for name, inputs, outputs in (("conv2", 64, 128), ("conv3", 128, 128), ("conv4", 128, 256)):
        yield from _block(name, inputs, outputs)
    for number in range(HOURGLASSES):
        for level in range(1, DEPTH + 1):
            for branch in ("b1", "b2", "b3") if level > 1 else ("b1", "b2", "b2_plus", "b3"):
                yield from _block(f"m{number}.{branch}_{level}", FEATURES, FEATURES)
        yield from _block(f"top_m_{number}", FEATURES, FEATURES)
        yield from _convolution(f"conv_last{number}", FEATURES, FEATURES, 1, bias=True)
        yield from _norm(f"bn_end{number}", FEATURES)
        yield from _convolution(f"l{number}", POINTS, FEATURES, 1, bias=True)
        if number < HOURGLASSES - 1:
            yield from _convolution(f"bl{number}", FEATURES, FEATURES, 1, bias=True)
            yield from _convolution(f"al{number}", FEATURES, POINTS, 1, bias=True)


def _block(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, Shape]]:
    """Three convolutions whose outputs, a half and two quarters, stand side by side."""
    ends = (inputs, outputs // 2, outputs // 4, outputs // 4)
    for number in (1, 2, 3):
        yield from _norm(f"{name}.bn{number}", ends[number - 1])
        yield from _convolution(f"{name}.conv{number}", ends[number], ends[number - 1], 3)
    if inputs != outputs:
        yield from _norm(f"{name}.downsample.0", inputs)
        yield from _convolution(f"{name}.downsample.2", outputs, inputs, 1)


def _convolution(
    name: str, outputs: int, inputs: int, kernel: int, *, bias: bool = False
) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> Iterator[tuple[str, Shape]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
