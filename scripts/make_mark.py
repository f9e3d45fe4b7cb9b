#!/usr/bin/env python3
"""Draws the words of the visible mark into heygemd/media/mark.npz, so that no machine needs a font for them.

    python scripts/make_mark.py FONT.ttc    a font with Chinese and Latin letters, such as Noto Sans CJK Bold

Each array is the words' coverage, (height, width) uint8; `NAME_ink` is the height in rows of the letters that the 5 %
of the picture are counted for.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = {"en": ("AI-generated",), "zh": ("AI 合成",), "both": ("AI 合成", "AI-generated")}
COUNTED = {"en": "Ag", "zh": "合成", "both": "合成"}
SIZE = 96
SIMPLIFIED = 2  # the face of a Noto collection with mainland China's forms
TARGET = Path(__file__).resolve().parents[1] / "heygemd/media/mark.npz"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write(__doc__ or "")
        return 2
    font = ImageFont.truetype(arguments[0], SIZE, index=SIMPLIFIED if arguments[0].endswith(".ttc") else 0)
    arrays = {}
    for name, lines in WORDS.items():
        text = "\n".join(lines)
        left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font)
        image = Image.new("L", (round(right - left), round(bottom - top)))
        ImageDraw.Draw(image).multiline_text((-left, -top), text, font=font, fill=255)
        arrays[name] = np.asarray(image)
        _, above, _, below = font.getbbox(COUNTED[name])
        arrays[f"{name}_ink"] = np.array(round(below - above))
    np.savez_compressed(TARGET, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
