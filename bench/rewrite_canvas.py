"""How long `rewrite` draws a mouth, with OpenCV on the CPU and with torch on a card: a made face of several sizes.

    python bench/rewrite_canvas.py                                      the CPU, and the first card if there is one
    python bench/rewrite_canvas.py --devices cpu,cuda:0 --sides 200,800 --frames 200

A frame is uploaded, drawn and fetched. `start` is what the device takes before its first frame, torch's import with it.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np

from heygemd.core.clip import VideoInfo
from heygemd.core.memory import GROUPS_AT_ONCE
from heygemd.core.options import Options
from heygemd.engines.base import Region
from heygemd.engines.rewrite import RewriteEngine
from heygemd.gpu.devices import render_cards


def renderer_of(side: int, device: str):
    engine, video = RewriteEngine(), VideoInfo(3840, 2160, Fraction(25), 100, 4.0, "yuv420p")
    parts = *engine.stand_in(video, (side, side), 100), video, Options()
    return engine.renderer(*parts, device=device, precision="float32", checkpoint=None)


def main() -> None:
    usable = any(card.problem is None for card in render_cards())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="cpu,cuda:0" if usable else "cpu")
    parser.add_argument("--sides", default="150,300,600,1200")
    parser.add_argument("--frames", type=int, default=100)
    args = parser.parse_args()
    print(f"| device | face | start s | ms a frame | ms a frame, {GROUPS_AT_ONCE} threads |\n|---|---:|---:|---:|---:|")
    for device in args.devices.split(","):
        for side in (int(word) for word in args.sides.split(",")):
            begun = time.perf_counter()
            renderer = renderer_of(side, device)
            start = time.perf_counter() - begun
            box = renderer.box(0, 0)
            image = np.random.default_rng(0).uniform(0, 255, (box.height, box.width, 3)).astype(np.float32)
            regions = [Region(i % 100, 0, box, image) for i in range(args.frames)]
            renderer.render(regions[:10])
            begun = time.perf_counter()
            renderer.render(regions)
            one = time.perf_counter() - begun
            begun = time.perf_counter()
            with ThreadPoolExecutor(GROUPS_AT_ONCE) as threads:
                list(threads.map(lambda region, to=renderer: to.render([region]), regions))
            both = time.perf_counter() - begun
            figures = f"{start:.2f} | {one / args.frames * 1e3:.2f} | {both / args.frames * 1e3:.2f}"
            print(f"| {device} | {box.width}x{box.height} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
