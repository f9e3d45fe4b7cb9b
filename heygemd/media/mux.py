"""Joins segments and sound into the result by copying the picture, checks it, and draws its contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import Box, VideoInfo
from heygemd.core.errors import FfmpegError, UnreadableMediaError, VerifyError
from heygemd.media.audio import audio_track
from heygemd.media.encode import REORDER_FRAMES, track_timescale
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child, MediaLimits, input_options, input_url, passthrough_options
from heygemd.media.probe import probe_streams

_MOST_CHANNELS = 6
_ONE_PASS_FRAMES = 3000  # a contact sheet of a longer video jumps from key frame to key frame


def join(
    segments: Sequence[Path],
    audio: Path | None,
    out: Path,
    *,
    video: VideoInfo,
    segment_frames: Sequence[int],
    work: Path,
    audio_seconds: float | None = None,
    audio_origin_seconds: float | None = None,
    lossless: bool = False,
    audio_bitrate_kbps: int = 192,
    tags: Mapping[str, str] | None = None,
    log: Path | None = None,
    limits: MediaLimits | None = None,
) -> None:
    """Write `out` (MP4, index first): the segments' pictures copied one after the other, the sound encoded once.

    `segment_frames`: frames in each segment. `audio`: the speech file; its sound starts at time 0 of the result as
    `load_speech` reads it and ends after `audio_seconds`. AAC, or ALAC when lossless; at most six channels.
    `work`: a folder of ours for the list of segments. `tags`: standard MP4 tags (title, comment …).
    Frame n is shown at exactly n / fps. Raises FfmpegError, DiskFullError, NoAudioError, UnreadableMediaError.
    """
    limits = limits or MediaLimits()
    if len(segments) != len(segment_frames) or not segments:
        raise ValueError(f"{len(segments)} segments, {len(segment_frames)} lengths")
    listing = work / f"{out.stem}.ffconcat"
    listing.write_text(_listing(segments, segment_frames, video.fps), encoding="utf-8")
    picture = ffmpeg.input(input_url(listing), format="concat", safe=0, protocol_whitelist="file,pipe")["v:0"]
    ticks, _ = track_timescale(video.fps)
    frame = f"{video.fps.denominator}/{video.fps.numerator}/TB"
    options: dict[str, Any] = {
        "format": "mp4",
        "vcodec": "copy",
        # The concat demuxer adds durations rounded to microseconds: put every frame back on the grid.
        "bsf:v": f"setts=pts=round(PTS/({frame}))*({frame}):dts=(N-{REORDER_FRAMES})*({frame}):duration={frame}",
        "video_track_timescale": ticks,
        "movflags": "+faststart+use_metadata_tags",  # any key may be a tag: the AIGC label needs it
        "map_metadata": -1,
        "map_chapters": -1,
    }
    streams = [picture]
    if audio is not None:
        track = audio_track(audio, origin_seconds=audio_origin_seconds, limits=limits, log=log)
        streams.append(track.input())
        trim = "" if audio_seconds is None else f",atrim=end={audio_seconds:.6f}"
        options |= {
            "af": track.timeline_filter + trim,
            "ac": min(track.channels, _MOST_CHANNELS),
            **({"acodec": "alac"} if lossless else {"acodec": "aac", "b:a": f"{audio_bitrate_kbps}k"}),
        }
    argv = (
        ffmpeg.output(*streams, input_url(out), **options).global_args(*GLOBAL_ARGUMENTS).overwrite_output().compile()
    )
    place = argv.index(input_url(out))  # ffmpeg-python cannot repeat an option
    argv[place:place] = [part for key, value in (tags or {}).items() for part in ("-metadata", f"{key}={value}")]
    with Child(argv, stdout=False, log=log) as child:
        status = child.wait()
        if status != 0:
            out.unlink(missing_ok=True)
            raise child.failure(f"{out.name}: joining {len(segments)} segments failed", FfmpegError, out)
    listing.unlink()


def _listing(segments: Sequence[Path], segment_frames: Sequence[int], fps: Fraction) -> str:
    lines = ["ffconcat version 1.0"]
    done_frames, done_microseconds = 0, 0
    for path, frames in zip(segments, segment_frames, strict=True):
        quoted = str(path.absolute()).replace("'", "'\\''")
        done_frames += frames
        # differences of rounded sums, so that the rounding never adds up
        end_microseconds = round(done_frames * 1_000_000 / fps)
        step = end_microseconds - done_microseconds
        done_microseconds = end_microseconds
        lines += [f"file 'file:{quoted}'", f"duration {step // 1_000_000}.{step % 1_000_000:06d}"]
    return "\n".join(lines) + "\n"


def verify_output(
    path: Path,
    *,
    num_frames: int,
    fps: Fraction,
    width: int,
    height: int,
    audio_seconds: float | None,
    limits: MediaLimits | None = None,
) -> dict[str, Any]:
    """What the finished file holds, for the receipt. Raises VerifyError naming every difference from the plan."""
    limits = limits or MediaLimits()
    data = probe_streams(path, limits=limits, extra=["-count_packets"])
    pictures = [s for s in data["streams"] if s["codec_type"] == "video"]
    sounds = [s for s in data["streams"] if s["codec_type"] == "audio"]
    if len(pictures) != 1 or len(sounds) != (audio_seconds is not None):
        raise VerifyError(f"{path.name}: {len(pictures)} pictures and {len(sounds)} sounds in it", path=str(path))
    picture = pictures[0]
    found: dict[str, Any] = {
        "frames": int(picture["nb_read_packets"]),
        "fps": str(Fraction(picture["r_frame_rate"])),
        "width": int(picture["width"]),
        "height": int(picture["height"]),
        "video_codec": picture["codec_name"],
        "pix_fmt": picture["pix_fmt"],
        "video_seconds": float(picture["duration"]),
        "audio_codec": sounds[0]["codec_name"] if sounds else None,
        "audio_seconds": float(sounds[0]["duration"]) if sounds else None,
        "size_bytes": int(data["format"]["size"]),
    }
    wrong = [
        f"{key} is {found[key]}, planned {wanted}"
        for key, wanted in (("frames", num_frames), ("width", width), ("height", height))
        if found[key] != wanted
    ]
    frame_seconds = 1 / float(fps)
    # one frame alone has no rate
    if num_frames > 1 and Fraction(picture["avg_frame_rate"]) != fps:
        wrong.append(f"frame rate is {picture['avg_frame_rate']}, planned {fps}")
    if abs(found["video_seconds"] - num_frames * frame_seconds) > 0.001:
        wrong.append(f"the picture lasts {found['video_seconds']} s, planned {num_frames * frame_seconds:.6f}")
    if audio_seconds is not None:
        # encoders work in blocks of up to 4096 samples
        slack_seconds = max(frame_seconds, 4096 / int(sounds[0]["sample_rate"]))
        if abs(found["audio_seconds"] - audio_seconds) > slack_seconds:
            wrong.append(f"the sound lasts {found['audio_seconds']} s, planned {audio_seconds:.3f}")
        if abs(float(sounds[0].get("start_time", 0.0))) > frame_seconds:
            wrong.append(f"the sound starts at {sounds[0]['start_time']} s")
    if wrong:
        raise VerifyError(f"{path.name}: {'; '.join(wrong)}", path=str(path), **found)
    return found


def contact_sheet(
    video: Path,
    out_jpg: Path,
    *,
    num_frames: int,
    fps: Fraction,
    columns: int = 6,
    rows: int = 4,
    cell_width: int = 240,
    boxes: Sequence[Box | None] | None = None,
    shape: tuple[int, int, Fraction] | None = None,
    limits: MediaLimits | None = None,
    log: Path | None = None,
) -> None:
    """A JPEG of evenly spaced frames of our own output with their times. `boxes`: one for each frame, drawn if given.
    `shape`: width, height and sample aspect, where they are known.

    Raises UnreadableMediaError when the video cannot be decoded.
    """
    limits = limits or MediaLimits()
    count = min(columns * rows, num_frames)
    indices = [(2 * cell + 1) * num_frames // (2 * count) for cell in range(count)]
    width, height, aspect = shape or _shape_of(video, limits, log)
    cell_height = max(2, round(cell_width * height / (width * float(aspect))))
    sheet = np.full((-(-count // columns) * cell_height, columns * cell_width, 3), 32, np.uint8)
    if num_frames <= _ONE_PASS_FRAMES:
        pictures = _pick(video, indices, cell_width, cell_height, limits, log)
    else:
        pictures = [
            _pick(video, [0], cell_width, cell_height, limits, log, seek_seconds=i / float(fps))[0] for i in indices
        ]
    for cell, (index, picture) in enumerate(zip(indices, pictures, strict=True)):
        box = boxes[index] if boxes is not None else None
        if box is not None:
            scale_x, scale_y = cell_width / width, cell_height / height
            corners = [(round(x * scale_x), round(y * scale_y)) for x, y in ((box.x0, box.y0), (box.x1, box.y1))]
            cv2.rectangle(picture, corners[0], corners[1], (80, 220, 80), 1)
        _label(picture, index / float(fps))
        top, left = cell // columns * cell_height, cell % columns * cell_width
        sheet[top : top + cell_height, left : left + cell_width] = picture
    done, data = cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise FfmpegError(f"{out_jpg.name}: the contact sheet cannot be encoded", path=str(out_jpg))
    out_jpg.write_bytes(data.tobytes())


def _shape_of(video: Path, limits: MediaLimits, log: Path | None) -> tuple[int, int, Fraction]:
    stream = next(s for s in probe_streams(video, limits=limits, log=log)["streams"] if s["codec_type"] == "video")
    aspect = Fraction(str(stream.get("sample_aspect_ratio", "1:1")).replace(":", "/").replace("0/1", "1"))
    return int(stream["width"]), int(stream["height"]), aspect


def _pick(
    video: Path,
    indices: Sequence[int],
    width: int,
    height: int,
    limits: MediaLimits,
    log: Path | None,
    *,
    seek_seconds: float | None = None,
) -> list[NDArray[np.uint8]]:
    """The frames with these numbers (counted from the place sought), each (height, width, 3) uint8 BGR."""
    # Thumbnails: what the loop filter would smooth is not seen in them, and it is a third of the work.
    options = input_options(video) | {"threads": limits.decoder_threads, "skip_loop_filter": "all"}
    if seek_seconds is not None:
        # the key frame before is near enough for a thumbnail, and needs no decoding up to the place
        options |= {"ss": f"{seek_seconds:.6f}", "noaccurate_seek": None}
    source = ffmpeg.input(input_url(video), **options)["v:0"]
    chosen = "+".join(f"eq(n\\,{index})" for index in indices)
    filters = f"select={chosen},scale=w={width}:h={height}:flags=area,format=bgr24"
    output = ffmpeg.output(
        source, "pipe:1", format="rawvideo", vf=filters, vframes=len(indices), **passthrough_options()
    )
    with Child(output.global_args(*GLOBAL_ARGUMENTS).compile(), log=log, stall_seconds=limits.stall_seconds) as child:
        pictures: list[NDArray[np.uint8]] = []
        for _ in indices:
            buffer: NDArray[np.uint8] = np.empty((height, width, 3), np.uint8)
            if child.read_into(buffer.reshape(-1).data) < buffer.nbytes:
                child.wait()
                raise child.failure(f"{video.name}: no contact sheet of it", UnreadableMediaError, video)
            pictures.append(buffer)
    return pictures


def _label(picture: NDArray[np.uint8], seconds: float) -> None:
    minutes, rest = divmod(seconds, 60)
    text = f"{int(minutes)}:{rest:04.1f}"
    place = (6, picture.shape[0] - 8)
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, thickness, cv2.LINE_AA)
