"""The generator of the Wav2Lip family as a torch module, built from its table in `variants`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from heygemd.engines.wav2lip.rows import decoder_starts, row_strides
from heygemd.engines.wav2lip.variants import Layer, Variant


class ConvBlock(nn.Module):
    """Convolution, batch norm, perhaps plus its input, ReLU or PReLU."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        conv: nn.Conv2d | nn.ConvTranspose2d
        if layer.transposed:
            conv = nn.ConvTranspose2d(
                layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, layer.output_padding
            )
        else:
            conv = nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding)
        self.conv_block = nn.Sequential(conv, nn.BatchNorm2d(layer.outputs))
        self.residual = layer.residual
        self.act = nn.PReLU() if layer.prelu else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_block(x)
        activated: Tensor = self.act(out + x if self.residual else out)
        return activated

    def fold(self) -> None:
        """Work the batch norm into the convolution. Eval mode only."""
        conv, norm = self.conv_block
        if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(norm, nn.BatchNorm2d):
            self.conv_block = nn.Sequential(fuse_conv_bn_eval(conv, norm, isinstance(conv, nn.ConvTranspose2d)))


class Generator(nn.Module):
    """`net(mel, face)`: mel (B, 1, 80, 16), face (B, 6, S, S) BGR 0..1 → (B, 3, S, S) BGR 0..1.

    `net(mel, face, first_row)` makes the rows from `first_row` on alone, (B, 3, S - first_row, S), for less work.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        self.face_encoder_blocks = nn.ModuleList(
            nn.Sequential(*(ConvBlock(layer) for layer in block)) for block in variant.face_blocks
        )
        self.audio_encoder = nn.Sequential(*(ConvBlock(layer) for layer in variant.audio_layers))
        self.face_decoder_blocks = nn.ModuleList(
            nn.Sequential(*(ConvBlock(layer) for layer in block)) for block in variant.decoder_blocks
        )
        last = variant.output_layer
        self.output_block = nn.Sequential(ConvBlock(last), nn.Conv2d(last.outputs, 3, 1), nn.Sigmoid())

    def forward(self, mel: Tensor, face: Tensor, first_row: int = 0) -> Tensor:
        return self.decode(self.audio_encoder(mel), self.encode_face(face), first_row)

    def encode_face(self, face: Tensor) -> list[Tensor]:
        """The features of every size, the largest picture first."""
        features: list[Tensor] = []
        for block in self.face_encoder_blocks:
            face = block(face)
            features.append(face)
        return features

    def decode(self, audio: Tensor, features: Sequence[Tensor], first_row: int = 0) -> Tensor:
        """`audio`: what the audio encoder made of the mel, (B, C, 1, 1)."""
        x, row = audio, 0  # the row of the whole where x begins
        starts, strides = decoder_starts(self.variant, first_row), row_strides(self.variant)
        blocks = zip(self.face_decoder_blocks, reversed(features), starts, strides, strict=True)
        for block, feature, start, stride in blocks:
            x = block(x)[:, :, start - row * stride :]
            x = torch.cat((x, feature[:, :, start:]), dim=1)
            row = start
        out: Tensor = self.output_block(x)
        return out[:, :, first_row - row :]

    def fold(self) -> None:
        """Work every batch norm into its convolution: same output to rounding, fewer steps. Eval mode only."""
        for module in self.modules():
            if isinstance(module, ConvBlock):
                module.fold()
