"""What each member of the Wav2Lip family looks like: one short table a variant. No torch in here.

A block is a string of layers, read left to right:

    c<channels>   convolution, kernel 3, stride 1, padding kernel // 2, then batch norm and ReLU
    t<channels>   the same, transposed; a stride of 2 brings an output padding of 1, unless o0 says otherwise
    r             convolution to the same number of channels, its input added before the ReLU
    k<n> p<n>     kernel and padding; s<n> or s<n>x<n> the stride (rows x columns)

So `c64s3x1` is a 3x3 convolution to 64 channels with stride (3, 1). A layer whose checkpoint has an `act.weight` ends
in a PReLU instead: forks of the 288 network use it in some layers or in all. Input: (B, 6, size, size) faces and
(B, 1, 80, 16) mel; each decoder block's output is concatenated with the face feature of the same size, last in, first
out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from heygemd.weights.container import Shape

MEL_BANDS = 80
MEL_COLUMNS = 16


@dataclass(frozen=True)
class Layer:
    """One convolution with its batch norm and ReLU. `path` is the module's name in the public checkpoints."""

    path: str
    inputs: int
    outputs: int
    kernel: int
    stride: tuple[int, int]
    padding: int
    output_padding: int = 0
    transposed: bool = False
    residual: bool = False
    prelu: bool = False

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output."""
        if self.transposed:
            extra = self.kernel - 2 * self.padding + self.output_padding
            return (height - 1) * self.stride[0] + extra, (width - 1) * self.stride[1] + extra
        room = 2 * self.padding - self.kernel
        return (height + room) // self.stride[0] + 1, (width + room) // self.stride[1] + 1

    def state(self) -> dict[str, Shape]:
        """Names and shapes of its tensors in a state dict."""
        ends = (self.inputs, self.outputs) if self.transposed else (self.outputs, self.inputs)
        found: dict[str, Shape] = {
            f"{self.path}.conv_block.0.weight": (*ends, self.kernel, self.kernel),
            f"{self.path}.conv_block.0.bias": (self.outputs,),
        }
        for name in ("weight", "bias", "running_mean", "running_var"):
            found[f"{self.path}.conv_block.1.{name}"] = (self.outputs,)
        found[f"{self.path}.conv_block.1.num_batches_tracked"] = ()
        if self.prelu:
            found[f"{self.path}.act.weight"] = (1,)
        return found


_TOKEN = re.compile(r"([ct])(\d+)(?:k(\d+))?(?:s(\d+)(?:x(\d+))?)?(?:p(\d+))?(o0)?")


def _block(path: str, text: str, inputs: int, prelu: frozenset[str]) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    for number, word in enumerate(text.split()):
        name = f"{path}.{number}"
        if word == "r":
            layers.append(Layer(name, inputs, inputs, 3, (1, 1), 1, residual=True, prelu=name in prelu))
            continue
        match = _TOKEN.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is not a layer")
        kind, outputs, kernel, rows, columns, padding, tight = match.groups()
        size = int(kernel or 3)
        stride = (int(rows or 1), int(columns or rows or 1))
        pad = size // 2 if padding is None else int(padding)
        extra = int(kind == "t" and stride == (2, 2) and not tight)
        layers.append(
            Layer(name, inputs, int(outputs), size, stride, pad, extra, transposed=kind == "t", prelu=name in prelu)
        )
        inputs = int(outputs)
    return tuple(layers)


@dataclass(frozen=True)
class Variant:
    """One network of the family. `size`: side of the face crop in pixels; `prelu`: the layers that end in one."""

    name: str
    title: str
    size: int
    face: tuple[str, ...]
    audio: str
    decoder: tuple[str, ...]
    output: str
    prelu: frozenset[str] = frozenset()

    @cached_property
    def face_blocks(self) -> tuple[tuple[Layer, ...], ...]:
        blocks: list[tuple[Layer, ...]] = []
        inputs = 6
        for number, text in enumerate(self.face):
            blocks.append(_block(f"face_encoder_blocks.{number}", text, inputs, self.prelu))
            inputs = blocks[-1][-1].outputs
        return tuple(blocks)

    @cached_property
    def audio_layers(self) -> tuple[Layer, ...]:
        return _block("audio_encoder", self.audio, 1, self.prelu)

    @cached_property
    def decoder_blocks(self) -> tuple[tuple[Layer, ...], ...]:
        blocks: list[tuple[Layer, ...]] = []
        inputs = self.audio_layers[-1].outputs
        skips = [block[-1].outputs for block in self.face_blocks]
        for number, text in enumerate(self.decoder):
            blocks.append(_block(f"face_decoder_blocks.{number}", text, inputs, self.prelu))
            inputs = blocks[-1][-1].outputs + skips.pop()
        return tuple(blocks)

    @cached_property
    def output_layer(self) -> Layer:
        inputs = self.decoder_blocks[-1][-1].outputs + self.face_blocks[0][-1].outputs
        return _block("output_block", self.output, inputs, self.prelu)[0]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers but the last 1x1 convolution (`output_block.1`), which has neither batch norm nor ReLU."""
        faces = [layer for block in self.face_blocks for layer in block]
        decoders = [layer for block in self.decoder_blocks for layer in block]
        return (*faces, *self.audio_layers, *decoders, self.output_layer)

    @cached_property
    def state(self) -> dict[str, Shape]:
        """Every key of the state dict with its shape, without `module.`."""
        found: dict[str, Shape] = {}
        for layer in self.layers:
            found |= layer.state()
        found["output_block.1.weight"] = (3, self.output_layer.outputs, 1, 1)
        found["output_block.1.bias"] = (3,)
        return found

    @cached_property
    def parameters(self) -> int:
        """Trainable numbers: what the public descriptions count."""
        total = 0
        for key, shape in self.state.items():
            if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
                count = 1
                for side in shape:
                    count *= side
                total += count
        return total


_CLASSIC_AUDIO = "c32 r r c64s3x1 r r c128s3 r r c256s3x2 r c512p0 c512k1"

CLASSIC96 = Variant(
    name="classic96",
    title="Wav2Lip 96 (classic or GAN)",
    size=96,
    face=("c16k7", "c32s2 r r", "c64s2 r r r", "c128s2 r r", "c256s2 r r", "c512s2 r", "c512p0 c512k1"),
    audio=_CLASSIC_AUDIO,
    decoder=("c512k1", "t512p0 r", "t512s2 r r", "t384s2 r r", "t256s2 r r", "t128s2 r r", "t64s2 r r"),
    output="c32",
)

COMPRESSED96 = Variant(
    name="compressed96",
    title="Wav2Lip 96 compressed (the mobile class)",
    size=96,
    face=("c4k7", "c8s2", "c16s2", "c32s2", "c64s2", "c128s2", "c128p0 c128k1"),
    audio="c8 c16s3x1 c32s3 c64s3x2 c128p0 c128k1",
    decoder=("c128k1", "t128p0", "t128s2", "t96s2", "t64s2", "t32s2", "t16s2"),
    output="c8",
)

HD256 = Variant(
    name="hd256",
    title="Wav2Lip 256",
    size=256,
    face=(
        *("c16k7", "c32s2 r r", "c64s2 r r r", "c128s2 r r", "c256s2 r r"),
        *("c512s2 r", "c512s2 r", "c512k4p0 c512k1"),
    ),
    audio=_CLASSIC_AUDIO,
    decoder=(
        *("c512k1", "t512k4p0 r", "t512s2 r", "t512s2 r r"),
        *("t384s2 r r", "t256s2 r r", "t128s2 r r", "t64s2 r r"),
    ),
    output="c32",
)

HD288 = Variant(
    name="hd288",
    title="Wav2Lip 288",
    size=288,
    face=(
        *("c16k7", "c32k5s2 r", "c32s2 r r", "c64s2 r r r", "c128s2 r r"),
        *("c256s2 r r", "c512s2 r", "c512p0 c512k1", "c512p0 c512k1"),
    ),
    audio=_CLASSIC_AUDIO,
    decoder=(
        *("c512k1", "t512p0 r", "t512s2o0 r r", "t512s2o0 r r", "t384s2 r r"),
        *("t256s2 r r", "t128s2 r r", "t64s2 r r", "t64s2 r r"),
    ),
    output="c32",
)

VARIANTS: tuple[Variant, ...] = (CLASSIC96, COMPRESSED96, HD256, HD288)


def variant_named(name: str) -> Variant:
    """The variant of that name. Raises KeyError."""
    return {variant.name: variant for variant in VARIANTS}[name]


def recognise(shapes: Mapping[str, Shape]) -> Variant | str:
    """The variant whose keys and shapes these are (without `module.`), or one line that says what was seen."""
    prelu = frozenset(key.removesuffix(".act.weight") for key in shapes if key.endswith(".act.weight"))
    for plain in VARIANTS:
        variant = replace(plain, prelu=prelu)
        if variant.state == dict(shapes):
            return variant
    return _describe(shapes)


def _describe(shapes: Mapping[str, Shape]) -> str:
    """What a state dict that is no known variant looks like, in words."""
    if not shapes:
        return "it holds no tensors"
    if any(key.startswith("sam.") for key in shapes):
        return 'it is a Wav2Lip SAM ("384") generator, which heygemd does not support'
    first = shapes.get("face_encoder_blocks.0.0.conv_block.0.weight")
    if first is None:
        if any(key.startswith("face_encoder.") and "conv_block" in key for key in shapes):
            return "it is the SyncNet of Wav2Lip (the sync expert), not a generator"
        if any(key.startswith("binary_pred") for key in shapes):
            return "it is the quality discriminator of Wav2Lip, not a generator"
        if "conv1_1.weight" in shapes and any("mbox" in key for key in shapes):
            return "it is the S3FD face detector, not a Wav2Lip generator"
        sample = ", ".join(list(shapes)[:3])
        return f"it holds {len(shapes)} tensors ({sample}, …) and no face_encoder_blocks: not a Wav2Lip generator"
    blocks = {key.split(".")[1] for key in shapes if key.startswith("face_encoder_blocks.")}
    near = min(VARIANTS, key=lambda variant: len(_differences(variant, shapes)))
    differences = _differences(near, shapes)
    seen = f"first convolution {'x'.join(map(str, first))}, {len(blocks)} face-encoder blocks, {len(shapes)} tensors"
    return f"no known variant: {seen}; nearest {near.name}, {len(differences)} differences, first: {differences[0]}"


def _differences(variant: Variant, shapes: Mapping[str, Shape]) -> list[str]:
    found = [f"{key} is missing" for key in variant.state if key not in shapes]
    found += [f"{key} is unknown" for key in shapes if key not in variant.state]
    found += [
        f"{key} is {'x'.join(map(str, shapes[key]))}, not {'x'.join(map(str, shape))}"
        for key, shape in variant.state.items()
        if key in shapes and tuple(shapes[key]) != shape
    ]
    return found
