"""Reads sound: exact length, and speech as mono 16 kHz that survives odd channel layouts and late starts."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from heygemd.core.clip import AudioInfo
from heygemd.core.errors import LimitError, NoAudioError, UnreadableMediaError
from heygemd.core.heartbeat import beat
from heygemd.media.ffmpeg import GLOBAL_ARGUMENTS, Child
from heygemd.media.inputs import MediaLimits, input_options, input_url
from heygemd.media.probe import probe_streams, sensible

SPEECH_RATE = 16000
SHORTEST_SECONDS = 0.02
_CHUNK_SAMPLES = 1 << 16
_CANCELLED_SHARE = 0.1  # a mix this much weaker than its loudest channel has cancelled itself out


@dataclass(frozen=True)
class AudioTrack:
    """Which stream of a file is meant, and where on the container's clock its sample 0 shall lie."""

    path: Path
    stream_index: int
    sample_rate: int
    channels: int
    codec: str
    origin_seconds: float

    def input(self, **more: Any) -> Any:
        """The stream for ffmpeg-python."""
        return ffmpeg.input(input_url(self.path), **input_options(self.path), copyts=None, threads=1, **more)[
            str(self.stream_index)
        ]

    @property
    def timeline_filter(self) -> str:
        """Puts sample 0 at the origin: a late stream gets silence before it, gaps are filled, overlaps cut."""
        return f"asetpts=PTS-({self.origin_seconds:.6f})/TB,aresample=async=1:first_pts=0"


@dataclass(frozen=True)
class _Measure:
    num_samples: int
    gram: NDArray[np.float64]  # (channels, channels): sums of products, the diagonal is the channels' energy
    num_errors: int


def audio_track(
    path: Path, *, origin_seconds: float | None = None, limits: MediaLimits | None = None, log: Path | None = None
) -> AudioTrack:
    """The default (else first) audio stream. The origin is the container's start unless given.

    Raises NoAudioError, UnreadableMediaError.
    """
    data = probe_streams(path, limits=limits or MediaLimits(), log=log)
    with sensible(path):
        return _audio_track(path, data, origin_seconds)


def _audio_track(path: Path, data: dict[str, Any], origin_seconds: float | None) -> AudioTrack:
    streams = [
        s
        for s in data["streams"]
        if s.get("codec_type") == "audio" and int(s.get("sample_rate") or 0) > 0 and int(s.get("channels") or 0) > 0
    ]
    if not streams:
        raise NoAudioError(f"{path.name}: has no sound", path=str(path))
    chosen = next((s for s in streams if s.get("disposition", {}).get("default")), streams[0])
    if origin_seconds is None:
        origin_seconds = float(data["format"].get("start_time") or 0.0)
    if not math.isfinite(origin_seconds):
        raise ValueError(f"it starts at {origin_seconds}")
    return AudioTrack(
        path=path,
        stream_index=int(chosen["index"]),
        sample_rate=int(chosen["sample_rate"]),
        channels=int(chosen["channels"]),
        codec=str(chosen.get("codec_name", "")),
        origin_seconds=origin_seconds,
    )


def probe_audio(path: Path, *, limits: MediaLimits | None = None, log: Path | None = None) -> AudioInfo:
    """The sound of `path`, decoded to its end: `duration_seconds` is exact.

    Raises NoAudioError when there is none or it is shorter than SHORTEST_SECONDS, LimitError, UnreadableMediaError.
    """
    limits = limits or MediaLimits()
    track = audio_track(path, limits=limits, log=log)
    return _info(track, _measure(track, limits, log))


def load_speech(
    path: Path,
    *,
    log: Path | None = None,
    origin_seconds: float | None = None,
    limits: MediaLimits | None = None,
    keep: Path | None = None,
) -> NDArray[np.float32]:
    """The samples alone of `hear`."""
    return hear(path, log=log, origin_seconds=origin_seconds, limits=limits, keep=keep)[1]


def hear(
    path: Path,
    *,
    log: Path | None = None,
    origin_seconds: float | None = None,
    limits: MediaLimits | None = None,
    keep: Path | None = None,
) -> tuple[AudioInfo, NDArray[np.float32]]:
    """What `probe_audio` says, and (n,) float32 mono at 16 kHz in [-1, 1]; n = duration * 16000, rounded.

    Reads the file twice, streaming.

    `origin_seconds`: absolute time on the container's clock of sample 0, for a clip's own sound the time of its first
    frame (`FrameTable.start_seconds`); by default the start of the file. Channels are mixed by their energy, so
    silence in one does not halve the other, and the loudest is taken alone where they would cancel.
    `keep`: a file to write the samples into; the array then reads from there, and hours of it are the system's cache
    rather than this process's memory (`kept_samples`).
    Raises NoAudioError, LimitError, UnreadableMediaError; OSError where `keep` cannot be written.
    """
    limits = limits or MediaLimits()
    track = audio_track(path, origin_seconds=origin_seconds, limits=limits, log=log)
    measure = _measure(track, limits, log)
    info = _info(track, measure)
    filters = track.timeline_filter
    if track.channels > 1:
        parts = "+".join(f"{weight:.6f}*c{i}" for i, weight in enumerate(mix_weights(measure.gram).tolist()))
        filters += f",aformat=sample_fmts=flt,pan=mono|c0={parts}"
    filters += f",aresample={SPEECH_RATE},aformat=sample_fmts=flt"
    num_samples = round(info.duration_seconds * SPEECH_RATE)
    chunks = _exactly(num_samples, _samples(track, filters, 1, SPEECH_RATE, limits, log))
    if keep is not None:
        with keep.open("wb") as file:
            for chunk in chunks:
                file.write(chunk.tobytes())
        return info, kept_samples(keep, num_samples)
    return info, np.concatenate([np.zeros(0, np.float32), *chunks])


def _exactly(num_samples: int, chunks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The first channel, in [-1, 1], of so many samples; zeros where there are fewer. Reads all of `chunks`."""
    left = num_samples
    for chunk in chunks:
        part = chunk[:left, 0]
        left -= len(part)
        yield np.clip(part, -1.0, 1.0)
    while left:
        count = min(left, _CHUNK_SAMPLES)
        left -= count
        yield np.zeros(count, np.float32)


def kept_samples(path: Path, num_samples: int) -> NDArray[np.float32]:
    """(num_samples,) of a file that `hear` kept, to be read only. It is made longer with silence where it is too
    short."""
    if path.stat().st_size < 4 * num_samples:
        os.truncate(path, 4 * num_samples)
    return np.asarray(np.memmap(path, np.float32, "r", shape=(num_samples,)))


def mix_weights(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels,) weights, sum 1, for a mono mix of channels with this matrix of products."""
    energy = np.diag(gram)
    if energy.sum() <= 0:
        return np.full(len(energy), 1 / len(energy))
    weights = energy / energy.sum()
    if float(weights @ gram @ weights) < _CANCELLED_SHARE * float(energy.max()) / len(energy):
        weights = np.zeros(len(energy))
        weights[int(energy.argmax())] = 1.0
    return np.asarray(weights, dtype=np.float64)


def _info(track: AudioTrack, measure: _Measure) -> AudioInfo:
    name = track.path.name
    seconds = measure.num_samples / track.sample_rate
    if measure.num_samples == 0 and measure.num_errors:
        raise UnreadableMediaError(f"{name}: its sound cannot be decoded", path=str(track.path), case="sound")
    if seconds < SHORTEST_SECONDS:
        raise NoAudioError(
            f"{name}: its sound lasts only {seconds:.3f} s", path=str(track.path), case="too_short", seconds=seconds
        )
    notes: tuple[str, ...] = ()
    if measure.num_errors:
        notes = (f"damaged: the decoder complained {measure.num_errors} times; what could be decoded was used",)
    if not measure.gram.any():
        notes = (*notes, "the sound is digital silence")
    return AudioInfo(track.sample_rate, track.channels, seconds, track.codec, track.stream_index, notes)


def _measure(track: AudioTrack, limits: MediaLimits, log: Path | None) -> _Measure:
    gram = np.zeros((track.channels, track.channels))
    num_samples = 0
    errors: list[int] = []
    # the timeline filter again after the decoder: counts must hold for what the other readers see
    for chunk in _samples(track, track.timeline_filter, track.channels, track.sample_rate, limits, log, errors):
        num_samples += len(chunk)
        if num_samples > limits.max_seconds * track.sample_rate:
            raise LimitError(
                f"{track.path.name}: its sound lasts longer than the limit of {limits.max_seconds:.0f} s",
                path=str(track.path),
                case="longer",
                limit_seconds=limits.max_seconds,
            )
        wide = chunk.astype(np.float64)
        gram += wide.T @ wide
    return _Measure(num_samples, gram, sum(errors))


def _samples(
    track: AudioTrack,
    filters: str,
    channels: int,
    rate: int,
    limits: MediaLimits,
    log: Path | None,
    errors: list[int] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Chunks of (n, channels) float32, finite. The number of complaints is appended to `errors` at the end."""
    output = ffmpeg.output(
        track.input(), "pipe:1", format="f32le", acodec="pcm_f32le", af=filters, ac=channels, ar=rate
    )
    with Child(
        output.global_args(*GLOBAL_ARGUMENTS).compile(),
        log=log,
        stall_seconds=limits.stall_seconds,
        address_space_bytes=limits.address_space_bytes,
    ) as child:
        row_bytes = 4 * channels
        for _ in itertools.count():
            buffer = np.empty(_CHUNK_SAMPLES * row_bytes, np.uint8)
            count = child.read_into(buffer.data) // row_bytes * row_bytes
            beat()
            if count:
                chunk = buffer[:count].view("<f4").reshape(-1, channels)
                yield np.nan_to_num(chunk, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
            if count < len(buffer):
                break
        status = child.wait(limits.stall_seconds)
        if status < 0:
            raise child.failure(f"{track.path.name}: ffmpeg was killed by signal {-status}", UnreadableMediaError)
        if errors is not None:
            errors.append(child.num_errors + (status != 0))
