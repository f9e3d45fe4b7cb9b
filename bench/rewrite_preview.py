"""Render with `rewrite` through plain ffmpeg pipes, to look at it without the pipeline.

    python bench/rewrite_preview.py VIDEO AUDIO OUT.mp4 [--sheet OUT.png] [--motion MOTION] [--profile]

AUDIO `-` with `--motion constant:0.5` (a mouth held half open), `sweep` (opens, closes, widens, rounds) or `talk`
(a made-up sequence) needs no speech.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from heygemd.core.clip import VideoInfo
from heygemd.core.options import Options
from heygemd.engines.base import SPEECH_RATE, Analysis, AnalysisFrame, Region, Speech
from heygemd.engines.rewrite import RewriteEngine
from heygemd.engines.rewrite.motion import commands, full_opening
from heygemd.faces.detect import CascadeDetector
from heygemd.faces.track import FaceTrack


def probe(path: Path) -> VideoInfo:
    out = subprocess.check_output(
        [
            "ffprobe",
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=width,height,r_frame_rate,nb_frames,codec_name,duration",
            "-of",
            "json",
            str(path),
        ]
    )
    stream = json.loads(out)["streams"][0]
    still = stream["codec_name"] in ("png", "mjpeg", "webp")
    fps = Fraction(25) if still else Fraction(stream["r_frame_rate"])
    return VideoInfo(stream["width"], stream["height"], fps, 1 if still else 0, 0.0, "yuv420p", still=still)


def frames(path: Path, info: VideoInfo):
    size = info.width * info.height * 3
    with subprocess.Popen(
        [
            "ffmpeg",
            "-v",
            "quiet",
            "-threads",
            "1",
            "-i",
            str(path),
            "-map",
            "0:v:0",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "bgr24",
            "-",
        ],
        stdout=subprocess.PIPE,
        bufsize=size,
    ) as process:
        while len(data := process.stdout.read(size)) == size:
            yield np.frombuffer(data, np.uint8).reshape(info.height, info.width, 3)


def speech_of(path: Path) -> np.ndarray:
    raw = subprocess.check_output(
        ["ffmpeg", "-v", "error", "-i", str(path), "-ac", "1", "-ar", str(SPEECH_RATE), "-f", "f32le", "-"]
    )
    return np.frombuffer(raw, np.float32).copy()


def made_up(kind: str, n: int, fps: float) -> dict[str, np.ndarray]:
    t = np.arange(n) / fps
    zero = np.zeros(n, np.float32)
    if kind.startswith("constant:"):
        parts = [float(v) for v in kind.split(":")[1:]]
        opening, width = zero + parts[0], zero + (parts[1] if len(parts) > 1 else 0.0)
    elif kind == "sweep":
        opening, width = 0.5 - 0.5 * np.cos(2 * np.pi * t / 2.0), 0.9 * np.sin(2 * np.pi * t / 5.0)
    else:
        rng = np.random.default_rng(5)
        knots = np.clip(rng.normal(0.35, 0.3, int(t[-1] * 6) + 3), 0, 1)
        opening = np.clip(np.interp(t, np.arange(len(knots)) / 6, knots) * (np.sin(2 * np.pi * t / 4) > -0.7), 0, 1)
        width = np.interp(t, np.arange(len(knots)) / 6, np.clip(rng.normal(0, 0.5, len(knots)), -1, 1))
    return {
        "opening": opening.astype(np.float32),
        "width": width.astype(np.float32),
        "closure": zero,
        "teeth": zero,
        "activity": zero + 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("audio")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--motion")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--option", action="append", default=[])
    args = parser.parse_args()
    cv2.setNumThreads(1)
    options = Options(**dict(pair.split("=", 1) for pair in args.option))
    info = probe(args.video)
    engine = RewriteEngine()
    clock = {"decode": 0.0, "analyse": 0.0, "finish": 0.0, "drive": 0.0, "render": 0.0}

    with tempfile.TemporaryDirectory() as work:
        analyser = engine.analyser(info, options, None, Path(work), CascadeDetector())
        # Half size while the face stays well above the canonical frame's; bounded like the pipeline's first pass.
        scale = max(1.0, max(info.width, info.height) / 1920)
        count = 0
        for image in frames(args.video, info):
            start = time.process_time()
            small = (
                image
                if scale == 1.0
                else cv2.resize(image, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
            )
            analyser.update(AnalysisFrame(count, small, scale))
            clock["analyse"] += time.process_time() - start
            count += 1
        start = time.process_time()
        analysis = analyser.finish()
        clock["finish"] = time.process_time() - start
    print(json.dumps(analysis.summary))

    start = time.process_time()
    fps = float(info.fps)
    if args.motion:
        n = round(args.seconds * fps)
        made = made_up(args.motion, n, fps)
        full = full_opening(analysis)
        motion = Analysis(commands(**made, full=full, follow=False).to_arrays(), {"full": full})
    else:
        samples = speech_of(Path(args.audio))
        n = round(len(samples) / SPEECH_RATE * fps)
        motion = engine.drive(Speech(samples, n, info.fps), analysis, options)
    clock["drive"] = time.process_time() - start
    print(json.dumps(motion.summary, default=str)[:600])
    np.savez(args.out.with_suffix(".motion.npz"), **motion.arrays)

    renderer = engine.renderer(analysis, motion, info, options, device="cpu", precision="float32", checkpoint=None)
    sound = [] if args.motion else ["-i", args.audio, "-map", "0:v", "-map", "1:a", "-c:a", "aac"]
    encoder = subprocess.Popen(
        [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "bgr24",
            "-s",
            f"{info.width}x{info.height}",
            "-r",
            str(info.fps),
            "-i",
            "-",
            *sound,
            "-vf",
            "pad=ceil(iw/2)*2:ceil(ih/2)*2",
            "-c:v",
            "libx264",
            "-crf",
            "14",
            "-preset",
            "veryfast",
            "-threads",
            "1",
            "-pix_fmt",
            "yuv420p",
            str(args.out),
        ],
        stdin=subprocess.PIPE,
    )
    track = FaceTrack.from_arrays(analysis.arrays)
    cells = []
    step = max(1, n // 24)
    stream, last, source = frames(args.video, info), None, -1
    order = _pingpong(count, n)
    held: dict[int, np.ndarray] = {}
    for index in range(n):
        wanted = order[index]
        while source < wanted and source < count - 1:
            last = next(stream)
            source += 1
            held[source] = last
            if len(held) > 700:
                held.pop(min(held))
        image = held[wanted]
        start = time.process_time()
        box = renderer.box(index, wanted)
        out = image
        if box is not None:
            region = image[box.y0 : box.y1, box.x0 : box.x1, ::-1].astype(np.float32)
            patch = renderer.render([Region(index, wanted, box, region)])[0]
            mask = patch.mask[..., None]
            mixed = region + mask * (patch.image - region)
            out = image.copy()
            out[box.y0 : box.y1, box.x0 : box.x1] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)[..., ::-1]
        clock["render"] += time.process_time() - start
        encoder.stdin.write(out.tobytes())
        if args.sheet and index % step == 0 and track.found[wanted]:
            cells.append(_cell(image, out, track.canonical[wanted], f"{index} o{motion.arrays['opening'][index]:.0f}"))
    encoder.stdin.close()
    encoder.wait()
    renderer.close()
    seconds = {"analyse": count / fps, "finish": count / fps, "drive": n / fps, "render": n / fps}
    print("CPU seconds for a second of video:", {k: round(clock[k] / v, 3) for k, v in seconds.items()})
    if args.sheet:
        cells = cells[:24]
        wide = min(8, len(cells))
        rows = [cv2.hconcat(cells[i : i + wide]) for i in range(0, len(cells) - wide + 1, wide)]
        cv2.imwrite(str(args.sheet), cv2.vconcat(rows))


def _pingpong(count: int, n: int) -> list[int]:
    if count == 1:
        return [0] * n
    return [k if k < count else 2 * count - 2 - k for k in (i % (2 * count - 2) for i in range(n))]


def _cell(before: np.ndarray, after: np.ndarray, matrix: np.ndarray, words: str) -> np.ndarray:
    parts = []
    for image in (before, after):
        inner = matrix[:, :2] * 0.5, matrix @ np.array([72.0, 104.0, 1.0])
        part = cv2.warpAffine(
            image, np.hstack([inner[0], inner[1][:, None]]), (224, 224), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        )
        parts.append(part)
    cv2.putText(parts[1], words, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.vconcat(parts)


if __name__ == "__main__":
    main()
