"""A whole item with every label: in the file, in the picture, in the contact sheet, in what the receipt gets."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from heygemd.core.errors import ProvenanceError
from heygemd.core.plan import Plan, Segment
from heygemd.core.provenance import SOURCE_TYPE
from heygemd.core.settings import MediaSettings, ProvenanceSettings
from heygemd.work.finish import finish
from heygemd.work.item import ItemFolder
from heygemd.work.render import SegmentRenderer
from tests import media
from tests.certificates import make_chain
from tests.integration.test_pipeline import prepared_item, quiet

pytest.importorskip("c2pa")


def first_and_last(path: Path) -> list[NDArray[np.uint8]]:
    """The luma of the first and the last frame."""
    size = media.probe(path)
    command = ["ffmpeg", "-v", "error", "-i", f"file:{path}", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    frames = np.frombuffer(data, np.uint8).reshape(-1, int(size["height"]), int(size["width"]))
    return [frames[0], frames[-1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ItemFolder:
    """A still that speaks, rendered with a mark, not yet finished."""
    place = tmp_path_factory.mktemp("marked")
    picture = media.portrait(place / "face.png", size=256)
    item = ItemFolder(place / "item")
    prepared = prepared_item(item.path, picture, media.tone(place / "a.wav", 0.5), quality="high", mark="both")
    renderer = SegmentRenderer(item, device="cpu", precision="float32", media=MediaSettings(), threads=1)
    try:
        renderer.render(Segment(0, 0, prepared.num_frames), batch=4, report=quiet)
    finally:
        renderer.close()
    return item


def finished(item: ItemFolder, settings: ProvenanceSettings) -> dict[str, object]:
    item.result_file.unlink(missing_ok=True)
    frames = item.load_prepared().num_frames
    return finish(item, Plan((Segment(0, 0, frames),), 4, "float32", 0, "cpu"), MediaSettings(), quiet, settings)


def test_everything_is_there_and_told(folder: ItemFolder, tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    settings = ProvenanceSettings(
        producer="示例公司", certificate=str(chain.certificate), private_key=str(chain.private_key)
    )
    told = finished(folder, settings)
    video = folder.result / "video.mp4"
    assert told["sha256"] == hashlib.sha256(video.read_bytes()).hexdigest(), "the sum is not of the final file"
    assert told["size_bytes"] == video.stat().st_size
    about = told["provenance"]
    assert isinstance(about, dict)
    assert about["digital_source_type"] == SOURCE_TYPE
    assert about["aigc"]["ContentProducer"] == "示例公司"
    assert about["aigc"]["ProduceID"] == about["content_id"]
    assert about["mark"] == "both"
    assert about["content_credentials"]["signer"] == "Test signer"
    tags = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "format_tags=AIGC,comment", "-of", "json", f"file:{video}"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert json.loads(json.loads(tags)["format"]["tags"]["AIGC"]) == about["aigc"]
    with Image.open(folder.result / "sheet.jpg") as sheet:
        assert SOURCE_TYPE.encode() in sheet.info["xmp"]


def test_the_mark_is_in_every_frame_of_a_still_too(folder: ItemFolder) -> None:
    finished(folder, ProvenanceSettings())
    source = cv2.imread(str(folder.path.parent / "face.png"), cv2.IMREAD_GRAYSCALE)
    for frame in first_and_last(folder.result / "video.mp4"):
        corner, rest = frame[8:40, 8:90].astype(int), frame[200:, :].astype(int)
        assert np.count_nonzero(corner > 215) > 100, "no white letters"
        assert np.abs(rest - source[200:, :]).mean() < 6, "the rest of the picture changed"


def test_labels_can_be_left_out(folder: ItemFolder) -> None:
    told = finished(folder, ProvenanceSettings(metadata=False))["provenance"]
    assert isinstance(told, dict)
    assert told["aigc"] is told["digital_source_type"] is told["content_credentials"] is None


def test_a_video_that_cannot_be_signed_is_not_published(folder: ItemFolder, tmp_path: Path) -> None:
    for leftover in folder.result.iterdir():
        leftover.unlink()
    chain = make_chain(tmp_path, valid_days=-1)
    with pytest.raises(ProvenanceError):
        finished(folder, ProvenanceSettings(certificate=str(chain.certificate), private_key=str(chain.private_key)))
    assert list(folder.result.iterdir()) == []
