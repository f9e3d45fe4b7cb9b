"""Joins segments and sound into the result by copying the picture, and checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from heygemd.core.clip import VideoInfo
from heygemd.core.errors import FfmpegError, VerifyError
from heygemd.media.audio import audio_track
from heygemd.media.concat import CONCAT_OPTIONS, write_listing
from heygemd.media.encode import REORDER_FRAMES, track_timescale
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child
from heygemd.media.inputs import MediaLimits, input_url
from heygemd.media.probe import probe_streams

_MOST_CHANNELS = 6
_SLOW_DISK = 40e6
"""Bytes a second."""


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
    listing = write_listing(work / f"{out.stem}.ffconcat", segments, segment_frames, video.fps)
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
    streams = [ffmpeg.input(input_url(listing), **CONCAT_OPTIONS)["v:0"]]
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
        status = child.wait_while_writing(out)  # an hour's sound takes a minute
        if status != 0:
            out.unlink(missing_ok=True)
            raise child.failure(f"{out.name}: joining {len(segments)} segments failed", FfmpegError, out)
    listing.unlink()


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
    # All of it is read; hours of 4K from a slow disk take longer than any header.
    patience = max(limits.probe_timeout_seconds, path.stat().st_size / _SLOW_DISK)
    data = probe_streams(path, limits=replace(limits, probe_timeout_seconds=patience), extra=["-count_packets"])
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
