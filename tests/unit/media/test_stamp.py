"""Labels in finished files: read back by other programs, and nothing else of the file changed."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from PIL import Image

from heygemd.core.errors import ProvenanceError, VerifyError
from heygemd.core.provenance import AIGC_KEY, SOURCE_TYPE, Provenance, stronger_mark
from heygemd.media.stamp import add_xmp_to_jpeg, append_xmp, check_labels, read_xmp, top_boxes

ABOUT = Provenance("0f" * 16, '制作者 <"& Co>', "rewrite", "heygemd 1.2.3", "2026-11-22T10:00:00+00:00")


def make_mp4(path: Path, provenance: Provenance | None) -> Path:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc=d=1:s=160x120:r=25", "-f", "lavfi"]
    command += ["-i", "sine=d=1", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac"]
    if provenance is not None:
        command += ["-metadata", f"{AIGC_KEY}={provenance.aigc_text()}"]
    subprocess.run([*command, "-movflags", "+faststart+use_metadata_tags", f"file:{path}"], check=True)
    return path


def stream_hashes(path: Path) -> str:
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-map", "0", "-c", "copy", "-f", "streamhash", "-"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def probed_tags(path: Path) -> dict[str, str]:
    command = ["ffprobe", "-v", "error", "-export_xmp", "1", "-show_entries", "format_tags", "-of", "json"]
    done = subprocess.run([*command, f"file:{path}"], check=True, capture_output=True, text=True)
    tags: dict[str, str] = json.loads(done.stdout)["format"]["tags"]
    return tags


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mp4(tmp_path_factory.mktemp("stamp") / "plain.mp4", ABOUT)


@pytest.fixture
def stamped(plain: Path, tmp_path: Path) -> Path:
    path = tmp_path / "stamped.mp4"
    path.write_bytes(plain.read_bytes())
    append_xmp(path, ABOUT.xmp())
    return path


def test_the_label_has_the_standards_keys_in_its_order() -> None:
    label = json.loads(ABOUT.aigc_text())
    assert list(label) == [
        "Label",
        "ContentProducer",
        "ProduceID",
        "ReservedCode1",
        "ContentPropagator",
        "PropagateID",
        "ReservedCode2",
    ]
    assert (label["Label"], label["ContentProducer"], label["ProduceID"]) == ("1", '制作者 <"& Co>', "0f" * 16)


def test_the_xmp_is_well_formed_and_says_the_source_type() -> None:
    packet = ABOUT.xmp()
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>')
    tree = ET.fromstring(packet.decode())  # noqa: S314 - our own words
    found = {element.tag.rpartition("}")[2]: element.text for element in tree.iter()}
    assert found["DigitalSourceType"] == SOURCE_TYPE
    assert json.loads(found["AIGC"] or "") == ABOUT.aigc()
    assert found["li"] == "AI-generated lip sync; heygemd 1.2.3, engine rewrite"


def test_what_is_stamped_is_read_back_by_ffprobe(stamped: Path) -> None:
    tags = probed_tags(stamped)
    assert json.loads(tags[AIGC_KEY]) == ABOUT.aigc()
    assert SOURCE_TYPE in tags["xmp"]
    assert read_xmp(stamped) == ABOUT.xmp()
    check_labels(stamped, ABOUT)


def test_packets_and_index_stay_and_the_index_stays_in_front(plain: Path, stamped: Path) -> None:
    assert stamped.read_bytes().startswith(plain.read_bytes())
    assert stream_hashes(stamped) == stream_hashes(plain)
    assert [box.kind for box in top_boxes(stamped)] == [b"ftyp", b"moov", b"free", b"mdat", b"uuid"]
    assert sum(box.size for box in top_boxes(stamped)) == stamped.stat().st_size


def test_a_second_stamp_is_refused(stamped: Path) -> None:
    with pytest.raises(VerifyError, match="has an XMP packet already"):
        append_xmp(stamped, ABOUT.xmp())


def test_a_cut_file_is_told(stamped: Path) -> None:
    with stamped.open("rb+") as file:
        file.truncate(stamped.stat().st_size - 5)
    with pytest.raises(VerifyError, match="ends beyond the file"):
        list(top_boxes(stamped))


def test_large_and_open_ended_boxes_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "boxes.mp4"
    path.write_bytes(struct.pack(">I4sQ", 1, b"mdat", 20) + b"1234" + struct.pack(">I4s", 0, b"free") + b"12345")
    assert [(box.kind, box.start, box.size) for box in top_boxes(path)] == [(b"mdat", 0, 20), (b"free", 20, 13)]
    with pytest.raises(VerifyError, match="no size"):
        append_xmp(path, b"x")


@pytest.mark.parametrize("lost", ["aigc", "xmp"])
def test_a_label_that_is_lost_is_an_error(plain: Path, tmp_path: Path, lost: str) -> None:
    path = tmp_path / "lost.mp4"
    if lost == "aigc":
        make_mp4(path, None)
        append_xmp(path, ABOUT.xmp())
    else:
        path.write_bytes(plain.read_bytes())
    with pytest.raises(ProvenanceError, match="AIGC" if lost == "aigc" else "digital source type"):
        check_labels(path, ABOUT)


def test_a_jpeg_carries_the_packet_and_shows_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "sheet.jpg"
    picture = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    cv2.imwrite(str(path), picture)
    before = cv2.imread(str(path))
    add_xmp_to_jpeg(path, ABOUT.xmp())
    assert np.array_equal(cv2.imread(str(path)), before)
    with Image.open(path) as image:
        assert image.info["xmp"] == ABOUT.xmp()
    path.write_bytes(b"GIF89a")
    with pytest.raises(VerifyError, match="no JPEG"):
        add_xmp_to_jpeg(path, b"")


def test_a_job_may_add_a_mark_but_not_put_the_operators_off() -> None:
    assert stronger_mark("off", None) == "off"
    assert stronger_mark("off", "zh") == "zh"
    assert stronger_mark("both", "off") == "both"
    assert stronger_mark("both", "en") == "en"
