"""How fast a Wav2Lip job is: the reference's way of working, ours, and the limits, side by side on one machine.

    python bench/wav2lip.py                                  a made clip, 576x768, 22 s, seeded weights, a fixed box
    python bench/wav2lip.py --video V.mp4 --audio A.wav --checkpoint wav2lip_gan.pth --device cuda
    python bench/wav2lip.py --size 1920x1080 --seconds 180 --stages ours,codec,network

Stages, each in processes of its own, one after the other:

    reference   our own re-creation of how the published code works, with none of its code: every frame decoded into
                one list, float32 with batch norm as it stands, batches of 128, uint8 paste, a lossy AVI, encoded again
    s3fd        what detection on every frame would add to it: S3FD on --detect-frames frames at the clip's size, times
                the number of frames (random numbers in place of weights cost the same)
    ours        `heygemd run` with the box given, programs started and libraries loaded included
    ours-warm   the same job given to a running daemon whose worker has done one before: what its second job takes, from
                its receipt;  ours-detect: `ours-warm`, and the face is found
    codec       limit: decode and encode alone, with the encoder settings of ours
    network     limit: the network alone in our best layout, precision and batch

Seeded weights (engines/wav2lip/seeded.py) stand for a checkpoint that nobody has to own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STAGES = ("reference", "s3fd", "ours", "ours-warm", "ours-detect", "codec", "network")
CRF, PRESET = "16", "veryfast"


@dataclass
class Job:
    """What every stage gets. `box`: x0, y0, x1, y1."""

    video: str
    audio: str
    checkpoint: str
    device: str
    precision: str
    box: tuple[int, int, int, int]
    frames: int
    fps: float
    folder: str
    detect_frames: int = 3


@dataclass
class Measured:
    """One stage: wall time, peak of the whole process tree, and whatever the stage says of itself."""

    seconds: float
    peak_mib: float
    said: dict[str, Any] = field(default_factory=dict)


# --- stages that run in a process of their own ------------------------------------------------------------------------


def stage_reference(job: Job) -> dict[str, Any]:
    import cv2
    import numpy as np
    import torch

    from heygemd.engines.wav2lip import load_generator
    from heygemd.media.mel import mel_spectrogram

    laps = Laps()
    capture = cv2.VideoCapture(job.video)
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame)
    laps.lap("decode")
    mel = mel_spectrogram(load_wav(job.audio))
    starts = [int(i * 80.0 / job.fps) for i in range(job.frames)]
    chunks = [mel[:, s : s + 16] for s in starts if s + 16 <= mel.shape[1]]
    laps.lap("mel")
    net = load_generator(job.checkpoint, job.device)
    size = net.variant.size
    laps.lap("load")
    height, width = frames[0].shape[:2]
    middle = str(Path(job.folder) / "result.avi")
    writer = cv2.VideoWriter(middle, cv2.VideoWriter.fourcc(*"DIVX"), job.fps, (width, height))
    x0, y0, x1, y1 = job.box
    for first in range(0, len(chunks), 128):
        batch = chunks[first : first + 128]
        pictures = [frames[(first + i) % len(frames)].copy() for i in range(len(batch))]
        crops = np.asarray([cv2.resize(p[y0:y1, x0:x1], (size, size)) for p in pictures])
        masked = crops.copy()
        masked[:, size // 2 :] = 0
        face = np.concatenate((masked, crops), axis=3) / 255.0
        laps.lap("prepare")
        with torch.no_grad():
            out = net(
                torch.FloatTensor(np.asarray(batch)[:, None]).to(job.device),
                torch.FloatTensor(np.transpose(face, (0, 3, 1, 2))).to(job.device),
            )
        made = out.cpu().numpy().transpose(0, 2, 3, 1) * 255.0
        laps.lap("network")
        for pixels, picture in zip(made, pictures, strict=True):
            picture[y0:y1, x0:x1] = cv2.resize(pixels.astype(np.uint8), (x1 - x0, y1 - y0))
            writer.write(picture)
        laps.lap("paste, lossy avi")
    writer.release()
    command = ["ffmpeg", "-v", "error", "-y", "-i", job.audio, "-i", middle, "-strict", "-2", "-q:v", "1"]
    subprocess.run([*command, str(Path(job.folder) / "reference.mp4")], check=True)
    laps.lap("encode again")
    return {"stages": laps.seconds, "frames": len(chunks)}


def stage_s3fd(job: Job) -> dict[str, Any]:
    import cv2
    import torch
    from face_alignment.detection.sfd.net_s3fd import s3fd

    capture = cv2.VideoCapture(job.video)
    net = s3fd().eval().to(job.device)
    spent = 0.0
    for number in range(job.detect_frames + 1):
        _, frame = capture.read()
        picture = torch.from_numpy(frame.transpose(2, 0, 1).copy())[None].float().to(job.device)
        started = time.monotonic()
        with torch.no_grad():
            out = [layer.cpu() for layer in net(picture)]
        if number:  # the first one warms up
            spent += time.monotonic() - started
        del out
    return {"seconds_a_frame": spent / job.detect_frames}


def stage_codec(job: Job) -> dict[str, Any]:
    """With what ours would use: on a card its decoder and encoder, where trials of them pass."""
    from heygemd.core.coding import Card
    from heygemd.media.encode import nvenc_options, nvenc_takes
    from heygemd.media.hardware import card_takes, try_decoder, try_encoder
    from heygemd.media.probe import probe_video

    out = str(Path(job.folder) / "codec.mp4")
    path = Path(job.video)
    decode: list[str] = []
    encode = ["-c:v", "libx264", "-preset", PRESET, "-crf", CRF]
    used = ["software", "software"]
    if job.device != "cpu":
        video, card = probe_video(path), Card.of(job.device)
        if card_takes(video) is None and try_decoder(path, video, card).ok:
            decode, used[0] = ["-hwaccel", "cuda", "-hwaccel_device", str(card.number)], "nvdec"
        if nvenc_takes(video, lossless=False) is None and try_encoder(card, video).ok:
            options = nvenc_options(card, crf=int(CRF), preset=PRESET)
            encode = [part for key, value in options.items() for part in (f"-{key}", str(value))]
            used[1] = "nvenc"
    inputs = ["-stream_loop", "-1", *decode, "-i", job.video, "-i", job.audio, "-map", "0:v:0", "-map", "1:a:0"]
    command = ["ffmpeg", "-v", "error", "-y", *inputs, *encode, "-frames:v", str(job.frames), "-c:a", "aac"]
    started = time.monotonic()
    subprocess.run([*command, "-shortest", out], check=True)
    return {"frames": job.frames, "seconds": time.monotonic() - started, "decoder": used[0], "encoder": used[1]}


def stage_network(job: Job) -> dict[str, Any]:
    """As renders run it: on a CPU several groups of frames at once, each on a thread of its own."""
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from heygemd.core.memory import GROUPS_AT_ONCE
    from heygemd.engines.wav2lip.blend import first_row
    from heygemd.engines.wav2lip.engine import identify
    from heygemd.engines.wav2lip.memory import BEST_BATCH
    from heygemd.engines.wav2lip.runtime import Runtime
    from heygemd.engines.wav2lip.samples import sample_inputs

    checkpoint = Path(job.checkpoint)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // GROUPS_AT_ONCE))
    run = Runtime(checkpoint, job.device, job.precision, first_row(identify(checkpoint).size))
    batch = BEST_BATCH[job.device.partition(":")[0]]
    mel, crops = sample_inputs(run.variant.size, batch, seed=9)
    rounds = -(-job.frames // batch)
    with ThreadPoolExecutor(GROUPS_AT_ONCE) as threads:
        list(threads.map(lambda _: run(mel, crops), range(2 * GROUPS_AT_ONCE)))
        started = time.monotonic()
        list(threads.map(lambda _: run(mel, crops), range(rounds)))
        spent = (time.monotonic() - started) * job.frames / (rounds * batch)
    return {"seconds": spent, "frames": job.frames, "batch": batch, "precision": run.computed().precision}


def stage_ours(job: Job) -> dict[str, Any]:
    return run_heygemd(job, face=",".join(map(str, job.box)))


def stage_ours_warm(job: Job) -> dict[str, Any]:
    return run_daemon(job, face=",".join(map(str, job.box)))


def stage_ours_detect(job: Job) -> dict[str, Any]:
    return run_daemon(job, face="largest")


def run_heygemd(job: Job, face: str) -> dict[str, Any]:
    out = Path(job.folder) / "ours.mp4"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "heygemd.cli", "run", job.video, job.audio, "-o", str(out), "--engine", "wav2lip"]
    command += ["--checkpoint", job.checkpoint, "--option", f"face={face}", "--json"]
    environment = os.environ | {"HEYGEMD_ENGINES__PRECISION": job.precision}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"heygemd run failed ({done.returncode}): {done.stdout[-2000:]}{done.stderr[-2000:]}")
    receipt = json.loads(done.stdout)
    return {"frames": job.frames, "receipt": receipt}


def run_daemon(job: Job, face: str) -> dict[str, Any]:
    """Two jobs through a daemon's inbox, one after the other: a short one, which is not counted, and this one."""
    root = Path(tempfile.mkdtemp(prefix="root-", dir=job.folder))
    (root / "inbox").mkdir(parents=True, exist_ok=True)
    checkpoints = Path(job.folder) / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    (checkpoints / "wav2lip.pth").unlink(missing_ok=True)
    (checkpoints / "wav2lip.pth").symlink_to(job.checkpoint)
    quick = {"INBOX__SETTLE_SECONDS": "0", "INBOX__SCAN_SECONDS": "0.2", "ENGINES__CHECKPOINT_DIR": str(checkpoints)}
    quick["ENGINES__PRECISION"] = job.precision
    environment = os.environ | {f"HEYGEMD_{key}": value for key, value in quick.items()}
    program = [sys.executable, "-m", "heygemd.cli", "--root", str(root)]
    short = Path(job.folder) / "short.wav"
    cut = ["ffmpeg", "-v", "error", "-y", "-i", job.audio, "-t", "1", str(short)]
    subprocess.run(cut, check=True)
    daemon = subprocess.Popen([*program, "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        for name, audio in (("first", str(short)), ("second", job.audio)):
            command = [*program, "submit", job.video, audio, "--name", name, "--engine", "wav2lip"]
            command += ["--option", f"face={face}", "--wait", "--json"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"the job failed ({done.returncode}): {done.stdout[-2000:]}{done.stderr[-2000:]}")
    finally:
        daemon.terminate()
        daemon.wait(60)
    receipt = json.loads(next(root.glob("outbox/second/*.json")).read_text())
    return {"frames": job.frames, "seconds": receipt["seconds"], "receipt": receipt}


CHILDREN = {
    "reference": stage_reference,
    "s3fd": stage_s3fd,
    "ours": stage_ours,
    "ours-warm": stage_ours_warm,
    "ours-detect": stage_ours_detect,
    "codec": stage_codec,
    "network": stage_network,
}


class Laps:
    """Seconds of each part of a stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 3)
        self._last = now


def load_wav(path: str) -> Any:
    import numpy as np

    command = ["ffmpeg", "-v", "error", "-i", path, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(stage: str, job: Job) -> Measured:
    """Run one stage elsewhere. Peak memory: proportional set sizes of its whole process tree, sampled."""
    command = [sys.executable, __file__, "--child", stage, json.dumps(job.__dict__)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0.0]
    stop = threading.Event()

    def watch() -> None:
        pause = 0.1
        while not stop.wait(pause):
            looked = time.monotonic()
            peak[0] = max(peak[0], tree_mib(process.pid))
            pause = max(0.1, 50 * (time.monotonic() - looked))  # adding up a tree's pages takes up to .05 s of a core

    watcher = threading.Thread(target=watch)
    watcher.start()
    text, _ = process.communicate()
    seconds = time.monotonic() - started
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"stage {stage} failed")
    said = json.loads(text.splitlines()[-1])
    return Measured(float(said.get("seconds", seconds)), peak[0], said)


def tree_mib(root: int) -> float:
    """MiB that a process and its descendants hold, pages that they share counted once."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    todo, total = [root], 0.0
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) / 1024
        except OSError:
            continue
    return total


# --- the clip ---------------------------------------------------------------------------------------------------------


def make_clip(folder: Path, width: int, height: int, seconds: float, fps: int) -> tuple[Path, Path]:
    """A moving picture and a noise that comes and goes like speech, made on the spot."""
    video, audio = folder / "clip.mp4", folder / "speech.wav"
    source = f"testsrc2=s={width}x{height}:r={fps}:d={seconds},noise=alls=6:allf=t"
    encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-g", "50"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *encode, str(video)], check=True)
    sound = f"anoisesrc=d={seconds}:c=pink:r=16000:a=0.4,volume='0.2+0.8*gt(sin(2*PI*1.5*t),0)':eval=frame"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", sound, str(audio)], check=True)
    return video, audio


def facts_of(video: Path, audio: Path) -> tuple[int, int, float, int]:
    """Width, height, frame rate, and how many frames the sound lasts."""
    from fractions import Fraction

    ask = ["ffprobe", "-v", "error", "-of", "json", "-show_entries"]
    stream = json.loads(
        subprocess.run(
            [*ask, "stream=width,height,r_frame_rate", "-select_streams", "v:0", str(video)],
            capture_output=True,
            check=True,
        ).stdout
    )["streams"][0]
    length = json.loads(subprocess.run([*ask, "format=duration", str(audio)], capture_output=True, check=True).stdout)[
        "format"
    ]["duration"]
    fps = Fraction(stream["r_frame_rate"])
    return stream["width"], stream["height"], float(fps), round(float(length) * fps)


def best_precision(checkpoint: Path, device: str) -> str:
    from heygemd.engines.wav2lip.engine import identify
    from heygemd.engines.wav2lip.precision import precisions

    return precisions(device.partition(":")[0], identify(checkpoint), reference=False)[0]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def table(results: dict[str, Measured], job: Job, title: str) -> str:
    """Markdown, ready for docs/performance.md."""
    lines = [title, "", "| | seconds | frames/s | peak MiB | |", "|---|---:|---:|---:|---|"]
    for stage, result in results.items():
        seconds = result.seconds
        note = ""
        if stage == "s3fd":
            each = result.said["seconds_a_frame"]
            seconds = each * job.frames
            note = f"{each:.2f} s a frame, times {job.frames}"
        elif "stages" in result.said:
            note = ", ".join(f"{name} {value:.1f}" for name, value in result.said["stages"].items())
        elif stage == "codec":
            note = f"decoder {result.said['decoder']}, encoder {result.said['encoder']}"
        elif stage == "network":
            note = f"{result.said['precision']}, batch {result.said['batch']}"
        elif "receipt" in result.said:
            made = (result.said["receipt"].get("items") or [result.said["receipt"]])[0]
            note = f"{made['precision']}, {made['frames_remade']} frames made twice"
        lines.append(f"| {stage} | {seconds:.1f} | {job.frames / seconds:.1f} | {result.peak_mib:.0f} | {note} |")
    seconds_of = {stage: result.seconds for stage, result in results.items()}
    lines.append("")
    if {"reference", "ours"} <= seconds_of.keys():
        lines.append(f"- ours against the reference, box given: {seconds_of['reference'] / seconds_of['ours']:.1f}x")
    if {"reference", "ours-warm"} <= seconds_of.keys():
        times = seconds_of["reference"] / seconds_of["ours-warm"]
        lines.append(f"- the same with a warm worker: {times:.1f}x")
    if {"reference", "s3fd", "ours-detect"} <= seconds_of.keys():
        whole = seconds_of["reference"] + results["s3fd"].said["seconds_a_frame"] * job.frames
        lines.append(f"- with detection included: {whole / seconds_of['ours-detect']:.1f}x")
    if {"ours-warm", "codec", "network"} <= seconds_of.keys():
        limit, both = max(seconds_of["codec"], seconds_of["network"]), seconds_of["codec"] + seconds_of["network"]
        warm = seconds_of["ours-warm"]
        lines.append(f"- ours, warm, against the larger limit: {warm / limit:.2f}x; against both, {warm / both:.2f}x")
        lines.append("  (on a CPU the two share the cores, so their sum is the limit; on a GPU the larger one is)")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--variant", default="classic96", help="of the seeded weights")
    parser.add_argument("--size", default="576x768", help="of the made clip")
    parser.add_argument("--seconds", type=float, default=22.0, help="of the made clip")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("int8", "bfloat16", "float32"), help="of ours; default: the best")
    parser.add_argument("--box", help="x0,y0,x1,y1; by default a third of the picture in its middle")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--detect-frames", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        stage, text = given.child
        print(json.dumps(CHILDREN[stage](Job(**json.loads(text)))))
        return 0
    with tempfile.TemporaryDirectory(prefix="heygemd-bench-") as name:
        folder = Path(name)
        video, audio, checkpoint = given.video, given.audio, given.checkpoint
        if video is None or audio is None:
            width, height = (int(side) for side in given.size.split("x"))
            video, audio = make_clip(folder, width, height, given.seconds, 25)
        if checkpoint is None:
            from heygemd.engines.wav2lip.seeded import save_seeded
            from heygemd.engines.wav2lip.variants import variant_named

            checkpoint = save_seeded(variant_named(given.variant), folder / "seeded.pth")
        width, height, fps, frames = facts_of(video, audio)
        side = min(width, height) // 2
        x0, y0 = (width - side) // 2, (height - side) // 3
        box = tuple(int(v) for v in given.box.split(",")) if given.box else (x0, y0, x0 + side, y0 + side)
        paths = (str(video.resolve()), str(audio.resolve()), str(checkpoint.resolve()))
        precision = given.precision or best_precision(checkpoint, given.device)
        job = Job(*paths, given.device, precision, box, frames, fps, name, given.detect_frames)
        results: dict[str, Measured] = {}
        for stage in given.stages.split(","):
            print(f"… {stage}", file=sys.stderr, flush=True)
            results[stage] = measure(stage, job)
        now = datetime.now(UTC).strftime("%Y-%m-%d")
        machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, device {given.device}"
        title = f"{now}, {machine}: {width}x{height}, {frames} frames, face {box[2] - box[0]}x{box[3] - box[1]}"
        print(table(results, job, title))
        if given.json:
            given.json.write_text(json.dumps({key: value.__dict__ for key, value in results.items()}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
