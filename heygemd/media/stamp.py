"""Machine-readable labels inside finished files: an XMP box in an MP4, an XMP segment in a JPEG.

ffmpeg writes the AIGC key itself (mux.py) but no XMP, and exiftool would bring Perl for one box. The box is appended
after everything else: no offset changes, so index and packets stay byte for byte what ffmpeg wrote.
Sources: ISO/IEC 14496-12 (boxes), Adobe XMP Specification part 3 (where XMP lies in MPEG-4 and JPEG).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heygemd.core.errors import ProvenanceError, VerifyError
from heygemd.core.provenance import AIGC_KEY, SOURCE_TYPE, Provenance
from heygemd.media.inputs import MediaLimits
from heygemd.media.probe import probe_streams

XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
_MAX_XMP_BYTES = 1_000_000
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class Box:
    """A box at the top of an MP4. `start`, `size`: bytes, header included; `uuid` only where `kind` is uuid."""

    kind: bytes
    start: int
    size: int
    uuid: bytes | None = None


def top_boxes(path: Path) -> Iterator[Box]:
    """The boxes that a file consists of, in order. Raises VerifyError where they do not end with the file."""
    end = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start < end:
            file.seek(start)
            head = file.read(32)
            if len(head) < 8:
                raise VerifyError(f"{path.name}: {end - start} stray bytes at its end", path=str(path))
            size, kind = struct.unpack(">I4s", head[:8])
            skip = 8
            if size == 1 and len(head) >= 16:
                size, skip = struct.unpack(">Q", head[8:16])[0], 16
            elif size == 0:
                size = end - start
            if size < skip or start + size > end:
                raise VerifyError(f"{path.name}: the box {kind!r} at {start} ends beyond the file", path=str(path))
            yield Box(kind, start, size, head[skip : skip + 16] if kind == b"uuid" else None)
            start += size


def append_xmp(path: Path, packet: bytes) -> None:
    """Put an XMP packet behind everything else of our own MP4. Raises VerifyError when one is there already."""
    boxes = list(top_boxes(path))
    if any(box.uuid == XMP_UUID for box in boxes):
        raise VerifyError(f"{path.name}: it has an XMP packet already", path=str(path))
    with path.open("rb+") as file:
        file.seek(boxes[-1].start)
        if file.read(4) == b"\0\0\0\0":  # "up to the end of the file": what is appended would become part of it
            raise VerifyError(f"{path.name}: its last box has no size", path=str(path))
        file.seek(0, os.SEEK_END)
        file.write(struct.pack(">I4s16s", 24 + len(packet), b"uuid", XMP_UUID) + packet)


def read_xmp(path: Path) -> bytes | None:
    """The XMP packet of an MP4; None where there is none."""
    for box in top_boxes(path):
        if box.uuid == XMP_UUID and box.size <= _MAX_XMP_BYTES:
            with path.open("rb") as file:
                file.seek(box.start + 24)
                return file.read(box.size - 24)
    return None


def add_xmp_to_jpeg(path: Path, packet: bytes) -> None:
    """Put an XMP packet into our own JPEG, behind the JFIF segment. Not atomic: for files that have no name yet."""
    data = path.read_bytes()
    if data[:2] != b"\xff\xd8":
        raise VerifyError(f"{path.name} is no JPEG", path=str(path))
    place = 2
    if data[2:4] == b"\xff\xe0":
        place = 4 + int.from_bytes(data[4:6], "big")
    body = _JPEG_XMP + packet
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    path.write_bytes(data[:place] + segment + data[place:])


def check_labels(path: Path, provenance: Provenance, limits: MediaLimits | None = None) -> None:
    """Read the labels back with ffprobe, which wrote none of them by itself. Raises ProvenanceError that says which."""
    data = probe_streams(path, limits=limits or MediaLimits(), extra=["-export_xmp", "1"])
    tags = data["format"].get("tags", {})
    wrong = []
    if tags.get(AIGC_KEY) != provenance.aigc_text():
        wrong.append(f"the {AIGC_KEY} label is {tags.get(AIGC_KEY)!r}")
    packet = str(tags.get("xmp", ""))
    if SOURCE_TYPE not in packet or provenance.content_id not in packet:
        wrong.append("the IPTC digital source type cannot be read back")
    if wrong:
        raise ProvenanceError(f"{path.name}: {'; '.join(wrong)}", path=str(path))
