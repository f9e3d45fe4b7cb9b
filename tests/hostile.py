"""Files that strangers could drop: each is one function that writes it. Nothing here was made by anybody else."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

SECRET = "root-of-all-secrets-7f3a"  # noqa: S105 - of nobody
"""Stands in the file outside the inbox that the hostile ones want to show."""


def _ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *(str(a) for a in arguments)], check=True)


def concat_script(out: Path, secret: Path, _port: int) -> None:
    out.write_text(f"ffconcat version 1.0\nfile '{secret}'\n")


def hls_playlist(out: Path, secret: Path, _port: int) -> None:
    lines = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    out.write_text(lines)


def network_playlist(out: Path, _secret: Path, port: int) -> None:
    out.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n")


def dash_manifest(out: Path, _secret: Path, port: int) -> None:
    out.write_text(
        f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f"<Representation id='1' bandwidth='1'><BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL></Representation>"
        f"</AdaptationSet></Period></MPD>"
    )


def session_description(out: Path, _secret: Path, port: int) -> None:
    out.write_text(f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n")


def subtitle(out: Path, secret: Path, _port: int) -> None:
    out.write_text(f"1\n00:00:00,000 --> 00:00:02,000\n{secret.read_text()}\n")


def ass_script(out: Path, secret: Path, _port: int) -> None:
    out.write_text(f"[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:05.00,x,{secret}\n")


def filter_graph(out: Path, secret: Path, _port: int) -> None:
    out.write_text(f"movie={secret}")


def data_reference(out: Path, secret: Path, _port: int) -> None:
    """A MOV whose media is said to lie in another file (a Macintosh alias in `dref`)."""
    _ffmpeg("-f", "lavfi", "-i", "color=black:size=64x64:duration=0.4:rate=25", "-c:v", "mjpeg", "-f", "mov", out)
    data = bytearray(out.read_bytes())
    entry = data.rindex(b"url \0\0\0\1") - 4  # the video track's; an alias in its place
    path = str(secret).encode()
    tail = struct.pack(">HH", 2, len(path)) + path + b"\0" * (len(path) % 2) + struct.pack(">HH", 0xFFFF, 0)
    body = b"\0" * 10 + b"\x01x" + b"\0" * 26 + b"\0" * 12 + b"\x01x" + b"\0" * 62 + b"\0" * 16
    body += struct.pack(">hh", 1, 1) + b"\0" * 16 + tail
    alias = struct.pack(">I4sI", 12 + len(body), b"alis", 0) + body
    extra = len(alias) - 12
    data[entry : entry + 12] = alias
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = data.rindex(box, 0, entry) - 4
        (size,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", data, place, size + extra)
    out.write_bytes(data)


def giant_png(out: Path, _secret: Path, _port: int) -> None:
    """65,536 x 65,536 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 65536, 65536, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (65536 // 8 + 1) * 64)
    out.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def million_fps(out: Path, _secret: Path, _port: int) -> None:
    source = "testsrc=size=64x64:rate=1000000"
    options = ("-frames:v", 30, "-c:v", "mjpeg", "-video_track_timescale", 1000000, "-f", "mov")
    _ffmpeg("-f", "lavfi", "-i", source, *options, out)


def hour_of_one_pixel(out: Path, _secret: Path, _port: int) -> None:
    source = "color=gray:size=2x2:rate=1:duration=3600"
    _ffmpeg("-f", "lavfi", "-i", source, "-vf", "scale=1:1,format=gray", "-c:v", "ffv1", "-f", "matroska", out)


def claims_a_year(out: Path, _secret: Path, _port: int) -> None:
    """A WAV whose header promises a gigabyte that is not there, as the picture."""
    out.write_bytes(
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\xf0\xff\xff\xff"
    )


def nested_boxes(out: Path, _secret: Path, _port: int) -> None:
    """An MP4 of boxes in boxes in boxes."""
    data = b""
    for _ in range(20_000):
        data = struct.pack(">I4s", 8 + len(data), b"moov") + data
    out.write_bytes(struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + data)


def empty(out: Path, _secret: Path, _port: int) -> None:
    out.touch()


def noise(out: Path, _secret: Path, _port: int) -> None:
    out.write_bytes(bytes((n * 167 + 13) % 251 for n in range(50_000)))


Maker = Callable[[Path, Path, int], None]
ZOO: dict[str, tuple[Maker, frozenset[str]]] = {
    maker.__name__.replace("_", "-"): (maker, frozenset(errors))
    for maker, *errors in (
        (concat_script, "UnreadableMediaError"),
        (hls_playlist, "UnreadableMediaError"),
        (network_playlist, "UnreadableMediaError"),
        (dash_manifest, "UnreadableMediaError"),
        (session_description, "UnreadableMediaError"),
        (subtitle, "UnreadableMediaError"),
        (ass_script, "UnreadableMediaError"),
        (filter_graph, "UnreadableMediaError"),
        (data_reference, "NoFaceError", "UnreadableMediaError"),
        (giant_png, "LimitError", "UnreadableMediaError"),
        (million_fps, "NoFaceError", "LimitError"),
        (hour_of_one_pixel, "NoFaceError", "LimitError"),
        (claims_a_year, "NoVideoError", "UnreadableMediaError"),
        (nested_boxes, "UnreadableMediaError"),
        (empty, "UnreadableMediaError"),
        (noise, "UnreadableMediaError"),
    )
}
"""Name → who writes it, and the errors that are right for it."""
