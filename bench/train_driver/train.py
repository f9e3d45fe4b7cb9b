#!/usr/bin/env python3
"""Train the driver's networks on synthesised speech and write their weights.

    .venv/bin/python bench/train_driver/train.py heygemd/engines/rewrite/driver/network.npz [--minutes 200 --seed 1]
    .venv/bin/python bench/train_driver/train.py heygemd/engines/rewrite/driver/listener.npz --listener recogniser

Needs espeak-ng's library, the flite program and Faker (`pip install faker`); see docs/driver.md. Nothing of it is real
speech. The same seed on the same machine gives the same weights.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from model import RECOGNISER_LAYERS, SPECTRUM_LAYERS, Net, export
from synthesise import SOUND_NAMES, Clip, make
from torch import nn

ROWS = 300  # six seconds
PART_MINUTES = 100.0
MOTION_SHARE = (1.0, 1.0, 0.5)  # teeth count half


def batches(clips: list[Clip], generator: np.random.Generator, size: int) -> list[tuple[torch.Tensor, ...]]:
    """One epoch: cuts of ROWS rows from a random phase, shuffled."""
    cuts = []
    for number, clip in enumerate(clips):
        for start in range(int(generator.integers(0, ROWS // 2)), max(1, len(clip.features) - ROWS // 3), ROWS):
            cuts.append((number, start))
    generator.shuffle(cuts)
    made = []
    for at in range(0, len(cuts) - size + 1, size):
        x = np.zeros((size, ROWS, clips[0].features.shape[1]), np.float32)
        y = np.zeros((size, ROWS, 5), np.float32)
        label = np.zeros((size, ROWS), np.int64)
        seen = np.zeros((size, ROWS), np.float32)
        for k, (number, start) in enumerate(cuts[at : at + size]):
            clip = clips[number]
            count = min(ROWS, len(clip.features) - start)
            x[k, :count] = clip.features[start : start + count]
            y[k, :count] = clip.targets[start : start + count]
            label[k, :count] = clip.labels[start : start + count]
            seen[k, :count] = 1
        made.append(
            tuple(torch.from_numpy(a) for a in (x.transpose(0, 2, 1).copy(), y.transpose(0, 2, 1).copy(), label, seen))
        )
    return made


def loss_of(net: Net, batch: tuple[torch.Tensor, ...], scale: torch.Tensor, sound_share: float) -> torch.Tensor:
    """Motion in its own deviations by `scale`, both logits, and the sounds."""
    x, y, label, seen = batch
    motion, logits, sounds = net(x)
    error = (((motion - y[:, :3]) * scale[None, :, None]) ** 2).mean(1)
    error = error + nn.functional.binary_cross_entropy_with_logits(logits, y[:, 3:], reduction="none").mean(1)
    error = error + sound_share * nn.functional.cross_entropy(sounds, label, reduction="none")
    return (error * seen).sum() / seen.sum()


@torch.no_grad()
def validate(net: Net, clips: list[Clip]) -> dict[str, float]:
    """Correlations over speech of unseen synthetic clips, mean over clips; F of closures; accuracies."""
    net.eval()
    rows = []
    for clip in clips:
        x = torch.from_numpy(clip.features.astype(np.float32).T[None])
        motion, logits, sounds = net(x)
        y = clip.targets.astype(np.float32)
        if y[:, 4].max() < 0.5:
            continue
        got = motion[0].numpy()
        closed, truth = (logits[0, 0] > 0).numpy(), y[:, 3] > 0.5
        hits = (closed & truth).sum()
        rows.append(
            (
                *(np.corrcoef(got[k], y[:, k])[0, 1] for k in range(3)),
                2 * hits / max(1, closed.sum() + truth.sum()),
                ((logits[0, 1] > 0).numpy() == (y[:, 4] > 0.5)).mean(),
                (sounds[0].argmax(0).numpy() == clip.labels).mean(),
            )
        )
    names = ("opening_r", "width_r", "teeth_r", "closure_f", "activity_accuracy", "sound_accuracy")
    return {n: round(float(v), 3) for n, v in zip(names, np.nanmean(rows, axis=0), strict=True)}


@dataclass(frozen=True)
class Recipe:
    """How a network that listens in one way is trained."""

    layers: tuple[tuple[int, int, int], ...]
    drop: float
    epochs: int
    decay: float
    standardise: bool


RECIPES = {
    "spectrum": Recipe(SPECTRUM_LAYERS, 0.1, 6, 1e-2, standardise=False),
    "recogniser": Recipe(RECOGNISER_LAYERS, 0.2, 4, 3e-2, standardise=True),
}


def train(clips: list[Clip], unseen: list[Clip], seed: int, recipe: Recipe, epochs: int, sound_share: float) -> Net:
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    some = np.concatenate([clip.features[::7] for clip in clips]).astype(np.float32)
    mean, deviation = torch.zeros(some.shape[1]), torch.ones(some.shape[1])
    if recipe.standardise:
        mean, deviation = torch.from_numpy(some.mean(axis=0)), torch.from_numpy(some.std(axis=0))
    net = Net(mean, deviation, len(SOUND_NAMES), recipe.layers, recipe.drop)
    size = 16
    spread = np.concatenate([clip.targets[:, :3] for clip in clips]).astype(np.float32).std(axis=0)
    scale = torch.from_numpy(np.array(MOTION_SHARE, np.float32) / spread)
    steps = epochs * len(batches(clips, np.random.default_rng(0), size))
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps + 50 * epochs)
    for epoch in range(epochs):
        net.train()
        began, total = time.monotonic(), []
        for batch in batches(clips, generator, size):
            loss = loss_of(net, batch, scale, sound_share)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total.append(loss.item())
        print(
            epoch, f"loss {np.mean(total):.3f}", f"{time.monotonic() - began:.0f} s", validate(net, unseen), flush=True
        )
    return net.eval()


def made_afresh(seed: int, minutes: float, listener: str) -> list[Clip]:
    """`make` in a process of its own: libespeak-ng remembers the last voice, and the next clips depend on it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(make, seed, minutes, listener).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=200, help="in parts of 100")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--listener", choices=RECIPES, default="spectrum", help="what the network listens to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sound-share", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order give other weights
    parts = max(1, round(options.minutes / PART_MINUTES))
    clips = [clip for k in range(parts) for clip in made_afresh(options.seed + k, PART_MINUTES, options.listener)]
    unseen = made_afresh(options.seed + 998, 10, options.listener)
    recipe = RECIPES[options.listener]
    epochs = options.epochs or recipe.epochs
    net = train(clips, unseen, options.seed, recipe, epochs, options.sound_share)
    export(
        net,
        options.out,
        {"trained": f"{options.minutes:g} min, seed {options.seed}", "heads": "opening width teeth closure activity"},
    )
    print(options.out, options.out.stat().st_size, "bytes;", sum(p.numel() for p in net.parameters()), "weights")


if __name__ == "__main__":
    main()
