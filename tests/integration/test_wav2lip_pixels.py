"""wav2lip through the real pipeline, lossless: outside of the face not a bit of the source changes, inside it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heygemd.work.item import ItemFolder
from tests import media
from tests.integration.test_pipeline import frames_of as decoded
from tests.integration.test_split_equality import SOURCE_FRAMES, checkpoint, frames_of, prepared_item

__all__ = ["checkpoint"]

SIZE, BOX = 256, (60, 50, 190, 220)


@pytest.mark.parametrize("reference", [False, True], ids=["blended", "as published"])
def test_pixels_outside_the_face_are_the_sources_bit_for_bit(
    reference: bool,
    tmp_path: Path,
    checkpoint: Path,
) -> None:
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=SOURCE_FRAMES / 25, size=SIZE)
    voice = media.speech(tmp_path / "voice.wav", "One two.")
    folder = tmp_path / "item"
    options = {"engine": "wav2lip", "face": ",".join(map(str, BOX)), "reference": reference}
    prepared = prepared_item(folder, clip, voice, checkpoint, options)
    frames_of(folder, [0, prepared.num_frames], 8, "float32")
    before, after = decoded(clip, SIZE), decoded(ItemFolder(folder).segment(0), SIZE)
    luma_changed = 0
    x0, y0, x1, y1 = BOX
    for made, source in zip(after[:SOURCE_FRAMES], before, strict=True):
        rows, columns = np.nonzero(made[:SIZE] != source[:SIZE])
        luma_changed += len(rows)
        assert rows.min() >= y0 and rows.max() < y1 and columns.min() >= x0 and columns.max() < x1
        if not reference:
            assert rows.min() >= y0 + 0.4 * (y1 - y0), "the eyes were touched"
        # Chroma planes lie below, at half the size each way; a box on odd pixels may touch one sample more.
        for at, width in ((SIZE, SIZE // 2), (SIZE * 5 // 4, SIZE // 2)):
            plane = np.s_[at : at + SIZE // 4]
            u, v = (picture[plane].reshape(-1, width) for picture in (made, source))
            low, high = np.argwhere(u != v).min(axis=0), np.argwhere(u != v).max(axis=0)
            assert (low >= np.array([y0, x0]) // 2).all() and (high <= np.array([y1, x1]) // 2).all()
    assert luma_changed > SOURCE_FRAMES * 1000
