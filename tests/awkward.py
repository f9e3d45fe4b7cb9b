"""Makes the awkward inputs that users will drop, with ffmpeg: `python tests/awkward.py OUT [--only NAME]`.

From the clips of ../shared/media where they are, else from a synthetic talking head. All are two to three seconds long
unless their point is another length. `MAKERS` maps a name to its maker; `EXPECTED_ERRORS` to what must come out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", 16, "-pix_fmt", "yuv420p")
AAC = ("-c:a", "aac")
MEDIA = Path(__file__).resolve().parents[1] / "../shared/media"


@dataclass(frozen=True)
class Item:
    """One awkward input. `kind`: video, audio, or any. `error`: name of the error class it must end in, or None."""

    name: str
    file: str
    make: Callable[[Kitchen, Path], None]
    kind: str = "video"
    error: str | None = None


class Kitchen:
    """Where the ingredients are: a talking clip, another person, speech."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def ffmpeg(*arguments: object) -> None:
        command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")

    @property
    def clip(self) -> Path:
        """Two and a half seconds of a talking face with sound, H.264 with B-frames, 25 fps, even size."""
        return self._made("clip.mp4", self._clip)

    @property
    def other(self) -> Path:
        """The same length of somebody else, same format."""
        return self._made("other.mp4", self._other)

    @property
    def speech(self) -> Path:
        """2.2 seconds of speech, 44.1 kHz stereo."""
        return self._made("speech.wav", self._speech)

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        path = self.folder / name
        if not path.exists():
            partial = path.with_name(f"partial-{name}")
            make(partial)
            partial.rename(path)
        return path

    def _clip(self, out: Path) -> None:
        source = MEDIA / "dev-v2-man-25fps.mp4"
        self._encode(source if source.exists() else None, out, seed=1)

    def _other(self, out: Path) -> None:
        source = MEDIA / "dev-v3-man-15s-25fps.mp4"
        self._encode(source if source.exists() else None, out, seed=2)

    def _encode(self, source: Path | None, out: Path, seed: int) -> None:
        if source is not None:
            inputs: list[object] = ["-t", 2.5, "-i", source]
        else:
            talking_head(self.folder / f"head{seed}.mp4", seed=seed)
            inputs = ["-i", self.folder / f"head{seed}.mp4"]
        self.ffmpeg(
            *inputs, "-vf", "scale=480:480,setsar=1", "-r", 25, "-pix_fmt", "yuv420p", "-c:v", "libx264", "-crf", 16,
            "-preset", "veryfast", "-bf", 3, "-g", 25, "-c:a", "aac", "-ar", 44100, "-ac", 2, out,
        )  # fmt: skip

    def _speech(self, out: Path) -> None:
        source = MEDIA / "speech-dev-a1-en-man.flac"
        inputs: list[object] = ["-ss", 1, "-t", 2.2, "-i", source] if source.exists() else ["-t", 2.2, "-i", self.clip]
        self.ffmpeg(*inputs, "-vn", "-ar", 44100, "-ac", 2, out)


def talking_head(out: Path, *, seed: int = 1, seconds: float = 2.5, size: int = 480) -> None:
    """A drawn face whose mouth opens with a buzzing voice; no person."""
    import cv2

    rate, fps = 16000, 25
    time = np.arange(int(seconds * rate)) / rate
    syllables = np.clip(np.sin(2 * np.pi * (3 + 0.3 * seed) * time + 1.5), 0, None) ** 0.7
    sound = (0.4 * syllables * np.sign(np.sin(2 * np.pi * (100 + 30 * seed) * time)) * 20000).astype("<i2")
    sound_path = out.with_suffix(".wav")
    with wave.open(str(sound_path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(sound.tobytes())
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    command += ["-s", f"{size}x{size}", "-r", str(fps), "-i", "pipe:0", "-i", str(sound_path)]
    command += ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-crf", "14", "-c:a", "aac", str(out)]
    command.remove("-nostdin")
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 12, (size, size, 3), dtype=np.uint8)
    for index in range(int(seconds * fps)):
        picture = np.full((size, size, 3), (90, 80 + 20 * seed, 70), np.uint8)
        x, y = size // 2 + round(6 * np.sin(index / 9)), size // 2
        cv2.ellipse(picture, (x, y), (size * 28 // 100, size * 38 // 100), 0, 0, 360, (150, 180, 220), -1, cv2.LINE_AA)
        for side in (-1, 1):
            eye = (x + side * size // 9, y - size // 10)
            cv2.circle(picture, eye, size // 28, (250, 250, 250), -1, cv2.LINE_AA)
            cv2.circle(picture, eye, size // 60, (40, 30, 30), -1, cv2.LINE_AA)
        cv2.line(picture, (x, y - size // 20), (x, y + size // 24), (110, 140, 180), 5, cv2.LINE_AA)
        opening = 3 + int(size / 14 * syllables[min(len(syllables) - 1, index * rate // fps)])
        cv2.ellipse(picture, (x, y + size // 6), (size // 11, opening), 0, 0, 360, (50, 40, 120), -1, cv2.LINE_AA)
        process.stdin.write((picture + noise).tobytes())
    process.stdin.close()
    if process.wait():
        raise RuntimeError("the talking head was not encoded")


_ITEMS: list[Item] = []


def _item(
    file: str, *, kind: str = "video", error: str | None = None
) -> Callable[[Callable[[Kitchen, Path], None]], Callable[[Kitchen, Path], None]]:
    def register(make: Callable[[Kitchen, Path], None]) -> Callable[[Kitchen, Path], None]:
        _ITEMS.append(Item(make.__name__, file, make, kind, error))
        return make

    return register


def _rotated(k: Kitchen, out: Path, degrees: int, turn: str, *codec: object) -> None:
    """A phone's upright video: stored turned, with a display matrix (which ffmpeg 5.1 writes when copying only)."""
    plain = out.with_name(f"plain{out.suffix}")
    k.ffmpeg("-i", k.clip, "-vf", f"crop=400:480,{turn}", *codec, "-c:a", "copy", plain)
    k.ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v:0", f"rotate={degrees}", out)
    plain.unlink()


@_item("rotated 90.mp4")
def rotated_90(k: Kitchen, out: Path) -> None:
    _rotated(k, out, 90, "transpose=clock", *X264)


@_item("rotated-180.mp4")
def rotated_180(k: Kitchen, out: Path) -> None:
    _rotated(k, out, 180, "hflip,vflip", *X264)


@_item("rotated-270-422.mov")
def rotated_270_422(k: Kitchen, out: Path) -> None:
    _rotated(k, out, 270, "transpose=cclock,setsar=4/3", "-c:v", "prores_ks", "-profile:v", 2)


@_item("variable rate.mp4")
def variable_rate(k: Kitchen, out: Path) -> None:
    jitter = "setpts='(N/30+0.008*sin(N*1.7)+if(gt(N,30),0.25,0))/TB'"
    k.ffmpeg("-i", k.clip, "-vf", f"settb=1/90000,{jitter}", "-vsync", "vfr", *X264, "-video_track_timescale", 90000,
             "-enc_time_base", "1/90000", *AAC, out)  # fmt: skip


@_item("webm-variable.webm")
def webm_variable(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "select='not(eq(mod(n,7),3))'", "-vsync", "vfr", "-c:v", "libvpx-vp9", "-deadline",
             "realtime", "-cpu-used", 8, "-crf", 30, "-b:v", 0, "-c:a", "libopus", out)  # fmt: skip


def _rate(rate: str) -> Callable[[Kitchen, Path], None]:
    def make(k: Kitchen, out: Path) -> None:
        k.ffmpeg("-i", k.clip, "-r", rate, *X264, "-c:a", "copy", out)

    return make


for _name, _fps in (("23.976", "24000/1001"), ("29.97", "30000/1001"), ("60", "60")):
    _ITEMS.append(Item(f"rate_{_name.replace('.', '_')}", f"rate {_name}.mp4", _rate(_fps)))


@_item("million-fps.mp4")
def million_fps(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-an", "-vf", "settb=1/1000000,setpts=N", "-vsync", "passthrough", *X264, "-enc_time_base",
             "1/1000000", "-video_track_timescale", 1000000, out)  # fmt: skip


@_item("rate-240.mp4")
def rate_240(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-t", 0.8, "-i", k.clip, "-r", 240, *X264, "-c:a", "copy", out)


@_item("odd-size.mkv")
def odd_size(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "format=yuv444p,crop=301:333", "-c:v", "libx264", "-crf", 16, "-c:a", "copy", out)


@_item("odd-size-420.webm")
def odd_size_420(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "scale=301:333,setsar=1", "-pix_fmt", "yuv420p", "-c:v", "libvpx-vp9",
             "-deadline", "realtime", "-cpu-used", 8, "-c:a", "libopus", out)  # fmt: skip


@_item("prores-422-10.mov")
def prores_422_10(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "prores_ks", "-profile:v", 2, "-c:a", "pcm_s16le", out)


@_item("prores-4444-alpha.mov")
def prores_4444_alpha(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-t", 1, "-i", k.clip, "-c:v", "prores_ks", "-profile:v", 4, "-pix_fmt", "yuva444p10le", "-c:a",
             "pcm_s24le", out)  # fmt: skip


def _x265(*parameters: str) -> tuple[object, ...]:
    return ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", ":".join(("log-level=error", *parameters)))


@_item("hevc-main10.mp4")
def hevc_main10(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-pix_fmt", "yuv420p10le", *_x265(), "-tag:v", "hvc1", "-c:a", "copy", out)


@_item("hevc-open-gop.mp4")
def hevc_open_gop(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, *_x265("open-gop=1", "keyint=20", "min-keyint=20", "bframes=4", "b-adapt=0"), "-c:a", "copy",
             out)  # fmt: skip


@_item("hlg.mp4")
def hlg(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-pix_fmt", "yuv420p10le", *_x265(), "-color_primaries", "bt2020", "-color_trc",
             "arib-std-b67", "-colorspace", "bt2020nc", "-color_range", "tv", "-c:a", "copy", out)  # fmt: skip


@_item("hdr10.mp4")
def hdr10(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-pix_fmt", "yuv420p10le", *_x265("hdr10=1", "max-cll=1000,400"), "-color_primaries",
             "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-c:a", "copy", out)  # fmt: skip


@_item("full-range.mp4")
def full_range(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "scale=out_range=pc,format=yuvj420p", "-c:v", "libx264", "-crf", 16, "-color_range",
             "pc", "-c:a", "copy", out)  # fmt: skip


@_item("full-range-10.mp4")
def full_range_10(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "scale=out_range=pc,format=yuv420p10le", *_x265("range=full"), "-color_range", "pc",
             "-c:a", "copy", out)  # fmt: skip


@_item("motion-jpeg.avi")
def motion_jpeg(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "mjpeg", "-q:v", 3, "-pix_fmt", "yuvj422p", "-c:a", "pcm_s16le", out)


@_item("anamorphic.mp4")
def anamorphic(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "scale=360:480,setsar=4/3", *X264, "-c:a", "copy", out)


@_item("interlaced.mpg")
def interlaced(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "scale=480:480,fps=50,tinterlace=interleave_top,fieldorder=tff", "-pix_fmt",
             "yuv420p", "-c:v", "mpeg2video",
             "-q:v", 3, "-bf", 2, "-g", 12, "-flags", "+ilme+ildct", "-c:a", "mp2", out)  # fmt: skip


@_item("vp9-opus.webm")
def vp9_opus(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", 8, "-crf", 30, "-b:v", 0, "-c:a",
             "libopus", out)  # fmt: skip


@_item("av1.mp4")
def av1(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "libsvtav1", "-preset", 12, "-crf", 35, "-c:a", "copy", out)


@_item("mpeg4-mp3.avi")
def mpeg4_mp3_avi(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "mpeg4", "-q:v", 3, "-bf", 2, "-c:a", "libmp3lame", out)


@_item("h264-bframes.avi")
def h264_avi(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "copy", "-bsf:v", "h264_mp4toannexb", "-c:a", "libmp3lame", out)


@_item("starts-at-10s.ts")
def ts_from_10s(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c", "copy", "-output_ts_offset", 10, "-f", "mpegts", out)


@_item("windows-media.wmv")
def windows_media(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-c:v", "wmv2", "-b:v", "2M", "-c:a", "wmav2", out)


@_item("two-audio-subtitles.mkv", kind="any")
def two_audio_subtitles(k: Kitchen, out: Path) -> None:
    subtitles = out.with_suffix(".srt")
    subtitles.write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n", encoding="utf-8")
    k.ffmpeg("-i", k.clip, "-i", k.speech, "-i", subtitles, "-map", "0:v", "-map", "0:a", "-map", "1:a", "-map", 2,
             "-c", "copy", "-c:s", "srt", "-disposition:a:0", 0, "-disposition:a:1", "default", out)  # fmt: skip
    subtitles.unlink()


@_item("audio-late.mp4", kind="any")
def audio_late(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-itsoffset", 0.7, "-i", k.clip, "-map", "0:v", "-map", "1:a", "-c", "copy", out)


@_item("video-late.mkv", kind="any")
def video_late(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-itsoffset", 0.7, "-i", k.clip, "-i", k.clip, "-map", "0:v", "-map", "1:a", "-c", "copy", out)


@_item("no-audio.mp4")
def no_audio(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-an", "-c", "copy", out)


@_item("silent-audio.wav", kind="audio")
def silent_audio(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-f", "lavfi", "-i", "anullsrc=r=44100:cl=stereo", "-t", 2, out)


@_item("face-leaves.mp4")
def face_leaves(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-stream_loop", 1, "-i", k.clip, "-vf", "drawbox=c=gray:t=fill:enable='between(t,1.5,3.5)'", *X264, "-c:a",
             "copy", out)  # fmt: skip


@_item("black-gap.mp4")
def black_gap(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "drawbox=c=black:t=fill:enable='between(t,0.8,1.6)'", *X264, "-c:a", "copy", out)


@_item("cut-between-two.mp4")
def cut_between_two(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-t", 1.2, "-i", k.clip, "-t", 1.2, "-i", k.other, "-filter_complex",
             "[0:v][0:a][1:v][1:a]concat=n=2:v=1:a=1", *X264, *AAC, out)  # fmt: skip


@_item("two-people.mp4")
def two_people(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-i", k.other, "-filter_complex", "[0:v][1:v]hstack", "-map", "0:a", *X264, "-c:a", "copy",
             out)  # fmt: skip


@_item("tiny.mp4")
def tiny(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "crop=270:480,scale=160:284,setsar=1", *X264, "-c:a", "copy", out)


@_item("4k.mp4")
def four_k(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-t", 0.6, "-i", k.clip, "-vf", "scale=3840:2160,setsar=1", *X264, "-c:a", "copy", out)


@_item("one-frame.mp4")
def one_frame(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-an", "-frames:v", 1, *X264, out)


@_item("truncated-with-index.mp4")
def truncated_with_index(k: Kitchen, out: Path) -> None:
    whole = out.with_name("whole.mp4")
    k.ffmpeg("-i", k.clip, "-c", "copy", "-movflags", "+faststart", whole)
    data = whole.read_bytes()
    out.write_bytes(data[: len(data) * 6 // 10])
    whole.unlink()


@_item("truncated-without-index.mp4", kind="any", error="UnreadableMediaError")
def truncated_without_index(k: Kitchen, out: Path) -> None:
    data = k.clip.read_bytes()
    out.write_bytes(data[: len(data) * 6 // 10])


@_item("corrupted-bytes.mp4")
def corrupted_bytes(k: Kitchen, out: Path) -> None:
    whole = out.with_name("whole.mp4")
    k.ffmpeg("-i", k.clip, "-c", "copy", "-movflags", "+faststart", whole)
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(7)
    for place in rng.integers(len(data) // 5, len(data), 60).tolist():
        data[place] ^= 0xFF
    out.write_bytes(data)
    whole.unlink()


@_item("zero-bytes.mp4", kind="any", error="UnreadableMediaError")
def zero_bytes(k: Kitchen, out: Path) -> None:
    out.write_bytes(b"")


@_item("text.mp4", kind="any", error="UnreadableMediaError")
def text_named_mp4(k: Kitchen, out: Path) -> None:
    out.write_text("Minutes of the meeting.\n" * 2000, encoding="utf-8")


@_item("playlist.mp4", kind="any", error="UnreadableMediaError")
def playlist_named_mp4(k: Kitchen, out: Path) -> None:
    out.write_text(f"ffconcat version 1.0\nfile '{k.clip.name}'\n", encoding="utf-8")


@_item("hls.mp4", kind="any", error="UnreadableMediaError")
def hls_named_mp4(k: Kitchen, out: Path) -> None:
    out.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.5,\n{k.clip}\n#EXT-X-ENDLIST\n", encoding="utf-8")


@_item("cover-art.mp3", error="NoVideoError")
def cover_art(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.speech, "-i", k.clip, "-map", "0:a", "-map", "1:v", "-frames:v", 1, "-c:a", "libmp3lame", "-c:v",
             "mjpeg", "-pix_fmt", "yuvj420p", "-disposition:v", "attached_pic", "-id3v2_version", 3, out)  # fmt: skip


@_item("cover-art-as-audio.mp3", kind="audio")
def cover_art_as_audio(k: Kitchen, out: Path) -> None:
    cover_art(k, out)


@_item("8khz-u8.wav", kind="audio")
def eight_khz_u8(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.speech, "-ar", 8000, "-ac", 1, "-c:a", "pcm_u8", out)


@_item("six-channels.flac", kind="audio")
def six_channels(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.speech, "-af", "pan=5.1|FC=0.7*FL|FL=0.1*FL|FR=0.1*FR", out)


@_item("right-only.wav", kind="audio")
def right_only(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.speech, "-af", "pan=stereo|FR=FL", out)


@_item("opposite-phase.wav", kind="audio")
def opposite_phase(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.speech, "-af", "pan=stereo|FL=FL|FR=-1*FL", out)


@_item("float-loud.wav", kind="audio")
def float_loud(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.speech, "-af", "volume=20dB", "-c:a", "pcm_f32le", out)


@_item("a-tenth.wav", kind="audio")
def a_tenth_of_a_second(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-ss", 0.8, "-t", 0.1, "-i", k.speech, out)


@_item("no-samples.wav", kind="audio", error="NoAudioError")
def no_samples(k: Kitchen, out: Path) -> None:
    with wave.open(str(out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)


@_item("no-audio-as-audio.mp4", kind="audio", error="NoAudioError")
def no_audio_as_audio(k: Kitchen, out: Path) -> None:
    no_audio(k, out)


@_item("one-hour.flac", kind="audio")
def one_hour(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-stream_loop", -1, "-i", k.speech, "-t", 3600, "-ac", 1, "-ar", 16000, "-compression_level", 0, out)


@_item("portrait.png")
def still_png(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-frames:v", 1, out)


@_item("portrait-odd.jpg")
def still_odd_jpg(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "format=yuvj444p,crop=301:333,format=yuvj420p", "-frames:v", 1, "-q:v", 2, out)


@_item("portrait 100%d.webp")
def still_webp(k: Kitchen, out: Path) -> None:
    plain = out.with_name("plain.webp")
    k.ffmpeg("-i", k.clip, "-frames:v", 1, "-c:v", "libwebp", plain)
    plain.rename(out)


@_item("gray.png")
def still_gray(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-frames:v", 1, "-pix_fmt", "gray", out)


@_item("alpha.tiff")
def still_alpha(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-frames:v", 1, "-pix_fmt", "rgba", out)


@_item("animated.gif")
def animated_gif(k: Kitchen, out: Path) -> None:
    k.ffmpeg("-i", k.clip, "-vf", "fps=10,scale=240:240", out)


@_item('-dash: 引号\' "%03d" 名.mp4')
def nasty_name(k: Kitchen, out: Path) -> None:
    out.write_bytes(k.clip.read_bytes())


MAKERS: dict[str, Callable[[Kitchen, Path], None]] = {item.name: item.make for item in _ITEMS}
ITEMS: dict[str, Item] = {item.name: item for item in _ITEMS}


@lru_cache(maxsize=8)
def kitchen(folder: Path) -> Kitchen:
    ingredients = folder / "ingredients"
    ingredients.mkdir(parents=True, exist_ok=True)
    return Kitchen(ingredients)


def make(name: str, folder: Path) -> Path:
    """Make one item in `folder` (ingredients are shared there); returns its path."""
    item = ITEMS[name]
    out = folder / item.name / item.file
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        item.make(kitchen(folder), out)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=sorted(ITEMS), help="make just this one")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else ITEMS:
        path = make(name, arguments.out.resolve())
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
