"""What keeps a still image from looking frozen: when it blinks and how it breathes, decided before rendering."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box, VideoInfo
from heygemd.engines.base import Arrays
from heygemd.faces import canon
from heygemd.faces.detect import Image
from heygemd.faces.eyes import Lids, eyes_of

Floats = NDArray[np.float32]
CLOSING_SECONDS, CLOSED_SECONDS, OPENING_SECONDS = 0.075, 0.03, 0.125
BETWEEN_SECONDS = (2.0, 6.0)
PAUSE_REACH_SECONDS = 1.2
"""A blink waits or hurries so long for a pause in the speech."""
BREATH_SECONDS = 4.1
BODY_BOX = (-24, -56, 280, 312)
"""What breathes, in canonical pixels: head and shoulders. Nothing moves on its edge."""


@dataclass(frozen=True)
class Life:
    """Of a still image. `lids`: both eyes' where they can be relied on. One row for each output frame: `blink` 0..1,
    how far the lids are closed; `breath` -1..1; `sway` -1..1."""

    lids: tuple[Lids, Lids] | None
    blink: Floats
    breath: Floats
    sway: Floats

    @staticmethod
    def from_arrays(analysis: Arrays, motion: Arrays) -> Life | None:
        if "life_breath" not in motion:
            return None
        rows = analysis.get("life_lids", np.zeros((0, 11), np.float32))
        lids = (Lids.from_row(rows[0]), Lids.from_row(rows[1])) if len(rows) == 2 else None
        return Life(lids, motion["life_blink"], motion["life_breath"], motion["life_sway"])


def look(image: Image, matrix: canon.Affine) -> tuple[Arrays, dict[str, Any]]:
    """What a still image offers: arrays for `live`, and what the receipt says. `matrix`: canonical→image."""
    found = eyes_of(image, matrix)
    if isinstance(found, str):
        rows, blinks = np.zeros((0, 11), np.float32), {"used": False, "why": found}
    else:
        rows, blinks = np.stack([lids.to_row() for lids in found]), {"used": True, "why": "both eyes' lids were found"}
    return {"life_lids": rows}, {"blinks": blinks, "breathing": True}


def live(analysis: Arrays, activity: Floats, fps: float, samples: Floats) -> tuple[Arrays, dict[str, Any]]:
    """Motion of a still image's eyes and shoulders, the same for the same speech; empty for a video.

    `activity` (frames,): 0 in pauses. `samples`: the speech, which seeds what is random.
    """
    if "life_lids" not in analysis:
        return {}, {}
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(samples).data))
    starts = _blinks(activity, fps, rng) if len(analysis["life_lids"]) else []
    t = np.arange(len(activity)) / fps
    phase = rng.uniform(0, 2 * np.pi, 4)
    # Breathing in is quicker than breathing out; no two breaths are quite alike.
    turn = 2 * np.pi * t / BREATH_SECONDS + 0.35 * np.sin(2 * np.pi * t / 17.0 + phase[0]) + phase[1]
    breath = np.sin(turn + 0.35 * np.sin(turn))
    sway = 0.6 * np.sin(2 * np.pi * t / 7.3 + phase[2]) + 0.4 * np.sin(2 * np.pi * t / 3.1 + phase[3])
    arrays = {
        "life_blink": closures(starts, t),
        "life_breath": breath.astype(np.float32),
        "life_sway": sway.astype(np.float32),
    }
    return arrays, {"blinks": len(starts)}


def closures(starts: list[float], t: NDArray[np.float64]) -> Floats:
    """(frames,): how far the lids are closed at times `t` when blinks begin at `starts`, all in seconds."""
    out = np.zeros(len(t))
    for start in starts:
        down = np.clip((t - start) / CLOSING_SECONDS, 0.0, 1.0)
        up = np.clip((t - start - CLOSING_SECONDS - CLOSED_SECONDS) / OPENING_SECONDS, 0.0, 1.0)
        # Lids fall fast and rise softly.
        out = np.maximum(out, np.sin(np.pi / 2 * down) ** 2 * (1.0 - up * up * (3 - 2 * up)))
    return out.astype(np.float32)


def _blinks(activity: Floats, fps: float, rng: np.random.Generator) -> list[float]:
    """Seconds at which blinks begin: two to six apart, drawn to where the speech pauses."""
    pauses = np.flatnonzero((activity[1:] < 0.3) & (activity[:-1] >= 0.3)) / fps
    last = len(activity) / fps - CLOSING_SECONDS - CLOSED_SECONDS - OPENING_SECONDS
    starts: list[float] = []
    at = float(rng.uniform(0.8, 3.0))
    while at < last:
        near = pauses[(np.abs(pauses - at) < PAUSE_REACH_SECONDS) & (pauses < last)]
        near = near[near > (starts[-1] + BETWEEN_SECONDS[0] if starts else 0.3)]
        if len(near):
            at = float(near[np.argmin(np.abs(near - at))])
        starts.append(at)
        at += float(rng.uniform(*BETWEEN_SECONDS))
    return starts


def body_box(matrix: canon.Affine, frame: tuple[int, int]) -> Box:
    """BODY_BOX under canonical→source `matrix`, inside a frame of (width, height) source pixels."""
    x0, y0, x1, y1 = BODY_BOX
    corners = canon.apply(matrix, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], np.float64))
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1])).clamped(*frame)


def still_life(video: VideoInfo, liveliness: str) -> bool:
    """Whether the option has something to do."""
    return video.still and liveliness == "on"
