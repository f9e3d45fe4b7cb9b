"""A split render equals the unsplit one, frame for frame: for every engine in its modes, through the real pipeline, at
the turns of a clip that is played back and forth, and with any batch. Lossless, compared by MD5 of decoded frames."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from heygemd.core.options import Options
from heygemd.core.plan import Segment
from heygemd.core.settings import LimitSettings, MediaSettings
from heygemd.engines.base import engine_names
from heygemd.engines.wav2lip.precision import cpu_has_int8
from heygemd.engines.wav2lip.seeded import save_seeded
from heygemd.engines.wav2lip.variants import variant_named
from heygemd.work.item import ItemFolder, Prepared
from heygemd.work.prepare import PrepareRequest, prepare
from heygemd.work.render import SegmentRenderer
from tests import media
from tests.integration.test_pipeline import quiet

pytestmark = pytest.mark.slow

SOURCE_FRAMES = 20
"""Of the clip: the first turn lies between frames 19 and 20 of the result, the second between 38 and 39."""

CUTS = ([20], [1, 19, 21, 38], [7, 13, 26, 39])
BATCHES = (3, 8, 1)

MODES = {
    "rewrite": {"engine": "rewrite"},
    "rewrite, pauses as in the source": {"engine": "rewrite", "silence": "follow"},
    "wav2lip": {"engine": "wav2lip"},
    "wav2lip, bfloat16": {"engine": "wav2lip", "precision": "bfloat16"},
    "wav2lip, pauses as in the source": {"engine": "wav2lip", "silence": "follow", "extend": "loop"},
    "wav2lip, a fixed face": {"engine": "wav2lip", "face": "60,50,190,220"},
    "wav2lip, as published": {"engine": "wav2lip", "reference": True},
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=SOURCE_FRAMES / 25, size=256)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.speech(tmp_path_factory.mktemp("voice") / "voice.wav", "Good morning, Bob. One two three.")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seeded(variant_named("compressed96"), tmp_path_factory.mktemp("weights") / "w.pth")


def prepared_item(folder: Path, clip: Path, voice: Path, checkpoint: Path, options: dict[str, object]) -> Prepared:
    request = PrepareRequest(
        video=clip,
        audio=voice,
        text_file=None,
        text=None,
        options=Options.model_validate({"quality": "lossless", **options}),
        limits=LimitSettings(),
        default_engine="rewrite",
        checkpoint_dir=folder / "none",
        checkpoint=checkpoint if options["engine"] == "wav2lip" else None,
        device_kinds=("cpu",),
    )
    return prepare(request, ItemFolder(folder), quiet)


def frames_of(folder: Path, borders: list[int], batch: int, precision: str) -> list[str]:
    """Rendered by a renderer of its own; MD5 of each frame, in order."""
    item = ItemFolder(folder)
    segments = [Segment(i, a, b) for i, (a, b) in enumerate(itertools.pairwise(borders))]
    renderer = SegmentRenderer(item, device="cpu", precision=precision, media=MediaSettings(), threads=1)
    try:
        # Not in their order: whatever one segment left behind must not help the next.
        for segment in sorted(segments, key=lambda s: (s.number % 2, -s.number)):
            renderer.render(segment, batch=batch, report=quiet)
    finally:
        renderer.close()
    return [frame for segment in segments for frame in media.framemd5(item.segment(segment.number))]


def test_no_engine_is_left_out() -> None:
    assert {str(mode["engine"]) for mode in MODES.values()} == set(engine_names())


@pytest.mark.parametrize("name", MODES)
def test_a_split_render_equals_the_whole(name: str, tmp_path: Path, clip: Path, voice: Path, checkpoint: Path) -> None:
    options = dict(MODES[name])
    precision = str(options.pop("precision", "float32"))
    prepared = prepared_item(tmp_path, clip, voice, checkpoint, options)
    assert prepared.video.num_frames == SOURCE_FRAMES and prepared.num_frames > 2 * SOURCE_FRAMES
    whole = frames_of(tmp_path, [0, prepared.num_frames], 4, precision)
    assert len(whole) == prepared.num_frames and len(set(whole)) > SOURCE_FRAMES, "the mouth moves"
    for cuts, batch in zip(CUTS, BATCHES, strict=True):
        split = frames_of(tmp_path, [0, *cuts, prepared.num_frames], batch, precision)
        assert split == whole, f"cut at {cuts}, batch {batch}: {[i for i, f in enumerate(whole) if split[i] != f]}"


@pytest.mark.skipif(not cpu_has_int8(), reason="NOT RUN: this CPU has no VNNI")
def test_a_render_in_8_bits_is_the_same_in_pieces(tmp_path: Path, clip: Path, voice: Path) -> None:
    weights = save_seeded(variant_named("classic96"), tmp_path / "classic96.pth")
    item = tmp_path / "item"
    prepared = prepared_item(item, clip, voice, weights, {"engine": "wav2lip"})
    assert prepared.memory[0].precision == "int8", "the best where nothing else is wanted"
    whole = frames_of(item, [0, prepared.num_frames], 4, "int8")
    stats = ItemFolder(item).load_segment_stats(0)
    assert stats is not None and (stats["precision"], stats["precision_why"]) == ("int8", "")
    for cuts, batch in zip(CUTS, BATCHES, strict=True):
        assert frames_of(item, [0, *cuts, prepared.num_frames], batch, "int8") == whole, cuts
    assert frames_of(item, [0, prepared.num_frames], 4, "bfloat16") != whole, "it was not 8 bits"


def test_a_still_image_blinks_and_breathes_the_same_in_pieces(tmp_path: Path, voice: Path, checkpoint: Path) -> None:
    portrait = media.portrait(tmp_path / "portrait.png")
    prepared = prepared_item(tmp_path, portrait, voice, checkpoint, {"engine": "rewrite"})
    assert prepared.summary["liveliness"]["blinks"]["used"] and prepared.summary["blinks"] > 0
    whole = frames_of(tmp_path, [0, prepared.num_frames], 4, "float32")
    assert len(set(whole)) == prepared.num_frames, "no frame is like another"
    for cuts, batch in zip(CUTS, BATCHES, strict=True):
        assert frames_of(tmp_path, [0, *cuts, prepared.num_frames], batch, "float32") == whole
