"""Says what a file holds, without trusting its name or its header more than needed."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import median_low
from typing import Any

import ffmpeg
import numpy as np

from heygemd.core.clip import ColourTags, VideoInfo
from heygemd.core.errors import LimitError, NoVideoError, UnreadableMediaError
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child
from heygemd.media.frames import FrameTable
from heygemd.media.inputs import MediaLimits, as_arguments, image_demuxer, input_options, input_url
from heygemd.media.pixels import at_depth, is_rgb, working_colour, working_format
from heygemd.media.rate import Rate, choose_rate

_PROBED_PACKETS = 3000
_INTERLACED = {"tt", "bb", "tb", "bt"}
_PHOTO_FORMATS = {"gif", "apng"}


def probe_streams(
    path: Path, *, limits: MediaLimits, log: Path | None = None, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """ffprobe's streams and format as it prints them in JSON. Raises UnreadableMediaError with one line."""
    wanted = ["-show_streams", "-show_format", "-show_error", *extra]
    data = _ffprobe(path, wanted, limits, log)
    if not data.get("streams"):
        raise UnreadableMediaError(f"{path.name}: no picture or sound found in it", path=str(path), case="not_media")
    return data


def parameter_hash(path: Path) -> str:
    """A hash of the codec parameters (SPS, PPS) of our own segment. Raises UnreadableMediaError."""
    data = probe_streams(path, limits=MediaLimits(), extra=["-show_data_hash", "sha256"])
    return str(data["streams"][0].get("extradata_hash", ""))


def probe_video(path: Path, *, limits: MediaLimits | None = None, log: Path | None = None) -> VideoInfo:
    """The picture of `path`: the first real video stream (cover art is none) or a still image.

    Decodes the first frame, so what is reported can be decoded at least once, and reads the timestamps of the first
    packets. Raises UnreadableMediaError, NoVideoError, LimitError.
    """
    with sensible(path):
        return _probe_video(path, limits or MediaLimits(), log)


@contextlib.contextmanager
def sensible(path: Path) -> Iterator[None]:
    """What ffprobe prints comes from the file, and so from strangers: numbers may be words, missing, or endless."""
    try:
        yield
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        text = f"{path.name}: what it says of itself makes no sense ({type(error).__name__})"
        raise UnreadableMediaError(text, path=str(path)) from error


def _probe_video(path: Path, limits: MediaLimits, log: Path | None) -> VideoInfo:
    data = probe_streams(path, limits=limits, log=log)
    stream = next((s for s in data["streams"] if _is_picture(s)), None)
    if stream is None:
        raise NoVideoError(f"{path.name}: has sound but no moving picture (cover art does not count)", path=str(path))
    index = int(stream["index"])
    still = image_demuxer(path) is not None
    declared_pixels = int(stream.get("width", 0)) * int(stream.get("height", 0))
    if declared_pixels > limits.max_pixels:
        raise LimitError(
            f"{path.name}: {stream['width']}x{stream['height']} pixels are more than the limit of {limits.max_pixels}",
            path=str(path),
            case="picture_too_large",
            width=int(stream["width"]),
            height=int(stream["height"]),
            limit_pixels=limits.max_pixels,
        )
    first = _first_frame(path, index, limits, log)
    notes: list[str] = []
    interlaced = stream.get("field_order") in _INTERLACED or first.interlaced
    if interlaced:
        notes.append("interlaced; deinterlaced to one frame for each frame")
    time_base = first.time_base / 2 if interlaced else first.time_base
    if still:
        rate, count = Rate(Fraction(25)), 1
        duration_seconds = 1 / 25
    else:
        rate, count, duration_seconds = _timing(path, stream, data["format"], limits, log)
    notes += rate.notes
    if duration_seconds > limits.max_seconds:
        raise LimitError(
            f"{path.name}: {duration_seconds:.0f} s are more than the limit of {limits.max_seconds:.0f} s",
            path=str(path),
            case="too_long",
            seconds=duration_seconds,
            limit_seconds=limits.max_seconds,
        )
    photo = still or data["format"].get("format_name") in _PHOTO_FORMATS
    try:
        pix_fmt, depth = working_format(first.pix_fmt, first.width, first.height, photo=photo)
        if first.pix_fmt != stream.get("pix_fmt") and depth > 8:
            # turning 4:2:2 by 90 degrees went through a deeper format; the source has no more than it has
            _, own = working_format(str(stream["pix_fmt"]), first.width, first.height, photo=photo)
            pix_fmt, depth = at_depth(pix_fmt, min(depth, own))
    except ValueError as error:
        raise UnreadableMediaError(f"{path.name}: {error}", path=str(path)) from error
    if pix_fmt.removesuffix("le") != first.pix_fmt.replace("yuvj", "yuv").removesuffix("le"):
        notes.append(f"pixel format {first.pix_fmt} is worked on as {pix_fmt}")
    rotation = _rotation(stream)
    tags = ColourTags(
        primaries=_tag(stream.get("color_primaries")),
        transfer=_tag(stream.get("color_transfer")),
        matrix=_tag(stream.get("color_space")),
        range=_tag(stream.get("color_range")),
        chroma_location=_tag(stream.get("chroma_location")),
    )
    return VideoInfo(
        width=first.width,
        height=first.height,
        fps=rate.fps,
        num_frames=count,
        duration_seconds=duration_seconds,
        pix_fmt=pix_fmt,
        bit_depth=depth,
        sample_aspect=first.sample_aspect,
        colour=working_colour(first.pix_fmt, tags),
        rotation_degrees=rotation,
        interlaced=interlaced,
        variable_rate=rate.variable,
        still=still,
        codec=str(stream.get("codec_name", "")),
        source_pix_fmt=first.pix_fmt,
        time_base=time_base,
        stream_index=index,
        has_audio=any(s.get("codec_type") == "audio" for s in data["streams"]),
        notes=tuple(notes),
    )


def scaled(video: VideoInfo, longest_side: int | None) -> VideoInfo:
    """`video` at the working size that `resolution_limit` allows: never larger, the shape kept, even where chroma
    needs it."""
    if longest_side is None or max(video.width, video.height) <= longest_side:
        return video
    factor = Fraction(longest_side // 2 * 2, max(video.width, video.height))
    width, height = (max(2, round(side * factor / 2) * 2) for side in (video.width, video.height))
    pix_fmt, depth = video.pix_fmt, video.bit_depth
    if is_rgb(video.source_pix_fmt) or "444" not in video.source_pix_fmt:
        pix_fmt, depth = working_format(video.source_pix_fmt, width, height, photo=video.still)
    note = f"scaled from {video.width}x{video.height} to {width}x{height} by resolution_limit"
    return replace(video, width=width, height=height, pix_fmt=pix_fmt, bit_depth=depth, notes=(*video.notes, note))


def counted(video: VideoInfo, table: FrameTable) -> VideoInfo:
    """`video` with what pass 1 found out: the true number of frames, their spacing, damage."""
    if video.still:
        return video
    notes = list(video.notes)
    if table.num_errors:
        notes.append(f"damaged: the decoder complained {table.num_errors} times; what could be decoded was used")
    constant = table.constant_rate(video.fps)
    duration_seconds = len(constant) / float(video.fps)
    if video.duration_seconds - duration_seconds > max(1.0, 0.02 * video.duration_seconds):
        notes.append(f"ends early: {duration_seconds:.1f} s of the {video.duration_seconds:.1f} s it promises")
    return replace(
        video,
        num_frames=len(table),
        duration_seconds=duration_seconds,
        variable_rate=not np.array_equal(constant, np.arange(len(table))),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _FirstFrame:
    width: int
    height: int
    pix_fmt: str
    sample_aspect: Fraction
    time_base: Fraction
    interlaced: bool


_SHOWINFO = re.compile(
    r"^\[Parsed_showinfo.*? n: *0 .* fmt:(?P<fmt>\w+) .*?sar:(?P<sn>\d+)/(?P<sd>\d+) "
    r"s:(?P<w>\d+)x(?P<h>\d+) i:(?P<i>[PTB])"
)
_TIME_BASE = re.compile(r"^\[Parsed_showinfo.*? config in time_base: (\d+)/(\d+)")


def _first_frame(path: Path, index: int, limits: MediaLimits, log: Path | None) -> _FirstFrame:
    """What the first decodable frame is, after rotation."""
    lines: list[str] = []
    source = ffmpeg.input(
        input_url(path), **input_options(path), max_pixels=limits.decoder_max_pixels, threads=1, copyts=None
    )[str(index)]
    argv = (
        ffmpeg.output(source, "-", format="null", vf="showinfo=checksum=0", vframes=1)
        .global_args(*GLOBAL_ARGUMENTS)
        .compile()
    )
    with Child(
        argv,
        log=log,
        on_info=lambda text: lines.append(text) if text.startswith("[Parsed_showinfo") else None,
        address_space_bytes=limits.address_space_bytes,
    ) as child:
        try:
            child.read_all(1 << 20, limits.probe_timeout_seconds)
        except UnreadableMediaError as error:
            raise UnreadableMediaError(f"{path.name}: first frame {error.message}", path=str(path)) from error
        child.wait()
        frame = next((m for m in map(_SHOWINFO.match, lines) if m), None)
        base = next((m for m in map(_TIME_BASE.match, lines) if m), None)
        if frame is None or base is None:
            raise child.failure(f"{path.name}: no frame can be decoded", UnreadableMediaError, path)
    numerator, denominator = int(frame["sn"]), int(frame["sd"])
    return _FirstFrame(
        width=int(frame["w"]),
        height=int(frame["h"]),
        pix_fmt=frame["fmt"],
        sample_aspect=Fraction(numerator, denominator) if numerator and denominator else Fraction(1),
        time_base=Fraction(int(base[1]), int(base[2])),
        interlaced=frame["i"] != "P",
    )


def _timing(
    path: Path, stream: dict[str, Any], container: dict[str, Any], limits: MediaLimits, log: Path | None
) -> tuple[Rate, int, float]:
    """(rate, estimated frames, estimated seconds) from the first packets' timestamps and the header's claims."""
    wanted = ["-select_streams", str(stream["index"]), "-read_intervals", f"%+#{_PROBED_PACKETS}"]
    data = _ffprobe(path, [*wanted, "-show_entries", "packet=pts,dts,duration,flags"], limits, log)
    packets = [p for p in data.get("packets", []) if "D" not in str(p.get("flags", ""))]
    # Program streams stamp some packets only; mixing the two clocks would look like a variable rate.
    clock = "pts" if all("pts" in p for p in packets) else "dts"
    pts = np.unique(np.array([p[clock] for p in packets if clock in p], dtype=np.int64))
    time_base = Fraction(stream["time_base"])
    declared = tuple(_fraction(stream.get(key)) for key in ("r_frame_rate", "avg_frame_rate"))
    if not len(pts) and packets:
        # A raw stream: its packets' durations come from its own headers. ffmpeg 7 declares fields a second beside them.
        usual = median_low([int(_number(p.get("duration")) or 0) for p in packets])
        declared = (Fraction(0) if usual <= 0 else 1 / (usual * time_base), *declared)
    rate = choose_rate(pts, time_base, declared)
    if len(packets) < _PROBED_PACKETS:
        if not len(pts):
            return rate, max(1, len(packets)), max(1, len(packets)) / float(rate.fps)
        span_seconds = float((int(pts[-1]) - int(pts[0])) * time_base)
        return rate, max(1, len(packets)), max(span_seconds, 0.0) + 1 / float(rate.fps)
    seconds = float(_number(stream.get("duration")) or _number(container.get("duration")) or 0.0)
    count = int(_number(stream.get("nb_frames")) or 0) or round(seconds * float(rate.fps)) or len(packets)
    return rate, count, seconds or count / float(rate.fps)


def _ffprobe(path: Path, wanted: list[str], limits: MediaLimits, log: Path | None) -> dict[str, Any]:
    argv = ["ffprobe", "-hide_banner", "-loglevel", "repeat+level+error", *as_arguments(input_options(path))]
    argv += [*wanted, "-of", "json", input_url(path)]
    with Child(argv, log=log, address_space_bytes=limits.address_space_bytes) as child:
        try:
            text = child.read_all(16 << 20, limits.probe_timeout_seconds)
        except UnreadableMediaError as error:
            raise UnreadableMediaError(f"{path.name}: {error.message}", path=str(path)) from error
        status = child.wait()
        if status != 0:
            if path.stat().st_size == 0:
                raise UnreadableMediaError(f"{path.name}: the file is empty (0 bytes)", path=str(path), case="empty")
            if status == -signal.SIGKILL:
                raise child.failure(f"{path.name}: not probed", UnreadableMediaError, path)
            reason = child.reason().replace(input_url(path), path.name)
            if "not on whitelist" in reason:  # the list itself helps nobody
                reason = "its format is not accepted (a playlist, a subtitle, or a rare container)"
            raise UnreadableMediaError(
                f"{path.name}: not a video, image or recording: {reason}", path=str(path), case="not_media"
            )
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnreadableMediaError(f"{path.name}: ffprobe's answer is not JSON", path=str(path)) from error
    return dict(data)


def _is_picture(stream: dict[str, Any]) -> bool:
    disposition = stream.get("disposition", {})
    return (
        stream.get("codec_type") == "video"
        and not disposition.get("attached_pic")
        and not disposition.get("timed_thumbnails")
    )


def _rotation(stream: dict[str, Any]) -> int:
    """Degrees clockwise by which players turn the picture."""
    for side in stream.get("side_data_list", []):
        if "rotation" in side:
            return round(-float(side["rotation"])) % 360
    return 0


def _tag(value: object) -> str | None:
    return None if value in (None, "unknown", "unspecified", "reserved") else str(value)


def _fraction(value: object) -> Fraction:
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
