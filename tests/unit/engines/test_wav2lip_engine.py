"""The engine: boxes, windows, blend, both modes, memory, precision; with seeded weights."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.core.clip import Box, VideoInfo
from heygemd.core.errors import CheckpointError, EngineUnavailableError, NoFaceError
from heygemd.core.options import Options
from heygemd.engines.base import Analysis, AnalysisFrame, MemoryQuery, Region, Speech
from heygemd.engines.wav2lip import Wav2LipEngine, blend, boxes, drive
from heygemd.engines.wav2lip.analyse import ReferenceAnalyser
from heygemd.engines.wav2lip.memory import activations_of, compute_batch
from heygemd.engines.wav2lip.renderer import BlendRenderer, ReferenceRenderer
from heygemd.engines.wav2lip.seeded import save_seeded
from heygemd.engines.wav2lip.variants import variant_named
from heygemd.faces.detect import CascadeDetector, Detection
from heygemd.faces.track import FaceTrack
from heygemd.media.mel import SILENCE, mel_spectrogram

FPS = Fraction(25)
VIDEO = VideoInfo(width=320, height=240, fps=FPS, num_frames=10, duration_seconds=0.4, pix_fmt="yuv420p")
BOX = "100,40,220,200"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seeded(variant_named("compressed96"), tmp_path_factory.mktemp("w") / "tiny.pth")


def speech(seconds: float, fps: Fraction = FPS) -> Speech:
    r = np.random.default_rng(0)
    samples = (0.2 * r.standard_normal(int(16000 * seconds))).astype(np.float32)
    return Speech(samples, round(seconds * fps), fps)


# --- boxes ------------------------------------------------------------------------------------------------------------


def test_the_reference_smooths_in_place_and_truncates() -> None:
    column = np.arange(100, 180, 10, dtype=np.int64)
    place = np.repeat(column[:, None], 4, axis=1)
    boxes.smooth_reference(place)
    assert place[:, 0].tolist() == [120, 130, 140, 150, 154, 156, 158, 157]


def test_the_reference_pads_and_clamps_before_it_smooths() -> None:
    detected = np.array([[-5.7, 10.9, 50.2, 115.0]] * 6, np.float32)
    found, shot = np.ones(6, bool), np.zeros(6, np.int32)
    place = boxes.reference_boxes(detected, found, shot, 48, 120)
    assert place[0].tolist() == [0, 10, 48, 120]
    detected[:, 3] = 105.9
    assert boxes.reference_boxes(detected, found, shot, 48, 120)[0].tolist() == [0, 10, 48, 115]


def test_frames_without_a_face_do_not_pull_their_neighbours() -> None:
    detected = np.full((12, 4), 100, np.float32)
    detected[:, 2:] = 200
    found = np.ones(12, bool)
    found[5:7] = False
    detected[5:7] = 0
    place = boxes.reference_boxes(detected, found, np.zeros(12, np.int32), 400, 400)
    assert np.all(place[found] == [100, 100, 200, 210])


def track(matrices: NDArray[np.float32]) -> FaceTrack:
    n = len(matrices)
    return FaceTrack(
        found=np.ones(n, bool),
        box=np.zeros((n, 4), np.float32),
        shot=np.zeros(n, np.int32),
        canonical=matrices,
        quality=np.ones(n, np.float32),
        turn=np.zeros(n, np.float32),
        eyes=np.zeros((1, 2, 2), np.float32),
    )


def test_boxes_follow_the_pose_and_stay_upright() -> None:
    plain = np.array([[1, 0, 10], [0, 1, 20]], np.float32)
    turned = np.hstack([cv2.getRotationMatrix2D((0, 0), 20, 2.0)[:, :2], [[300], [400]]]).astype(np.float32)
    place = boxes.boxes_of_track(track(np.stack([plain, turned])))
    np.testing.assert_allclose(place[0], [60, 38, 216, 231])
    np.testing.assert_allclose(place[1, 2:] - place[1, :2], [2 * 156, 2 * 193], rtol=1e-5)
    without = boxes.boxes_of_track(track(plain[None]), chin=False)
    np.testing.assert_allclose(without[0], [60, 38, 216, 222])


def test_boxes_mostly_outside_or_tiny_are_not_used() -> None:
    place = np.array([[0, 0, 100, 100], [-80, 0, 20, 100], [50, 50, 60, 60], [-20, 0, 80, 100]], np.float32)
    assert boxes.usable(place, 200, 200).tolist() == [True, False, False, True]


# --- windows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "short"), [(Fraction(25), 3), (Fraction(30000, 1001), 4), (Fraction(50), 7)])
def test_every_frame_has_a_window_where_the_reference_stops(fps: Fraction, short: int) -> None:
    said = speech(4.0, fps)
    heard = drive.windows(said.samples, said.num_frames, fps, 0.0)
    assert len(heard.first_column) == said.num_frames
    assert heard.first_column.min() >= 0
    assert heard.first_column.max() + 16 <= heard.mel.shape[1]
    mel, first = drive.reference_windows(said.samples, said.num_frames, fps)
    assert len(first) == said.num_frames
    # Where a window would pass the end, the reference emits the last one once and stops; ours repeats it to the end.
    beyond = [int(i * 80.0 / float(fps)) + 16 > mel.shape[1] for i in range(said.num_frames)]
    assert sum(beyond) - 1 == short
    assert np.all(first[np.array(beyond)] == mel.shape[1] - 16)


def test_the_reference_starts_at_the_frame_and_the_default_one_frame_earlier() -> None:
    said = speech(2.0)
    mel = mel_spectrogram(said.samples)
    reference, first = drive.reference_windows(said.samples, said.num_frames, FPS)
    assert first[:5].tolist() == [0, 3, 6, 9, 12]
    np.testing.assert_array_equal(reference[:, 3:-3], mel[:, 3:-3])
    heard = drive.windows(said.samples, said.num_frames, FPS, 0.0)
    for i in (3, 10, 30):
        start = int(80 * (i - 1) / 25)
        window = heard.mel[:, heard.first_column[i] : heard.first_column[i] + 16]
        np.testing.assert_array_equal(window, mel[:, start : start + 16])


@pytest.mark.parametrize("offset", [-2.0, -0.1, 0.0, 0.1, 2.0])
def test_the_offset_moves_the_windows(offset: float) -> None:
    said = speech(1.0)
    plain, moved = (drive.windows(said.samples, said.num_frames, FPS, value) for value in (0.0, offset))
    assert np.all(np.abs((plain.first_column - moved.first_column) - 80 * offset) <= 1)
    assert moved.first_column.min() >= 0
    assert moved.first_column.max() + 16 <= moved.mel.shape[1]


def test_very_short_speech() -> None:
    for count in (0, 1, 100, 1600):
        said = np.zeros(count, np.float32)
        heard = drive.windows(said, 3, FPS, 0.0)
        assert heard.first_column.max() + 16 <= heard.mel.shape[1]
        mel, first = drive.reference_windows(said, 3, FPS)
        assert first.max() + 16 <= mel.shape[1]


def test_pauses_are_found_and_made_silent() -> None:
    r = np.random.default_rng(1)
    noise = (0.002 * r.standard_normal(64000)).astype(np.float32)
    noise[:16000] += (0.3 * r.standard_normal(16000)).astype(np.float32)
    noise[20000:32000] += (0.3 * r.standard_normal(12000)).astype(np.float32)
    noise[48000:] += (0.3 * r.standard_normal(16000)).astype(np.float32)
    mel = mel_spectrogram(noise)
    activity = drive.speech_activity(mel)
    assert np.all(activity[10:150] == pytest.approx(1.0))  # the gap of a quarter second is inside a word
    assert np.all(activity[180:220] < 1e-6)
    assert np.all(activity[260:310] == pytest.approx(1.0))
    quiet = drive.gated(mel.copy(), activity)
    assert np.all(quiet[:, 190:210] == SILENCE)
    assert mel[:, 190:210].mean() > SILENCE + 0.5
    np.testing.assert_allclose(quiet[:, 20:100], mel[:, 20:100], atol=1e-5)


def test_silence_and_steady_sound() -> None:
    assert np.all(drive.speech_activity(mel_spectrogram(np.zeros(16000, np.float32))) == 0)
    steady = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    assert np.all(drive.speech_activity(mel_spectrogram(steady)) == 1)


# --- blend ------------------------------------------------------------------------------------------------------------


def test_the_region_is_the_lower_face_and_ends_inside_the_crop() -> None:
    mask = blend.region_mask(96)
    assert mask.max() == 1.0
    assert np.all(mask[:40] == 0)
    for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
        assert np.all(edge == 0)
    assert np.abs(np.diff(mask, axis=0)).max() < 0.2
    assert mask[70, 48] == 1.0


def test_crop_and_put_agree_to_a_fraction_of_a_pixel() -> None:
    y, x = np.mgrid[0:200, 0:260].astype(np.float32)
    picture = np.stack([x, y, x + y], axis=2)
    box = np.array([30.3, 20.7, 190.9, 181.2], np.float32)
    matrix = blend.crop_matrix(box, (0, 0), 96)
    crop = blend.take(picture, matrix, 96)
    expected = 30.3 + (np.arange(96) + 0.5) * (190.9 - 30.3) / 96 - 0.5
    np.testing.assert_allclose(crop[48, 1:-1, 0], expected[1:-1], atol=0.06)
    back, mask = blend.put(crop, matrix, 260, 200)
    inside = mask > 0
    assert inside.sum() > 1000
    np.testing.assert_allclose(back[inside], picture[inside], atol=0.3)


def test_colour_is_matched_at_the_border_and_lips_keep_theirs() -> None:
    rng = np.random.default_rng(0)
    original = cv2.GaussianBlur(rng.uniform(0.3, 0.7, (96, 96, 3)).astype(np.float32), (0, 0), 6)
    generated = original + np.float32([0.1, -0.05, 0.02])
    generated[66:74, 40:56] += np.float32(0.3)  # lips
    matched = blend.match_colour(generated, original)
    mask = blend.region_mask(96)
    border = (mask > 0.05) & (mask < 0.6)
    assert np.abs(matched - original)[border].max() < 0.01
    lips = matched[66:74, 40:56] - original[66:74, 40:56]
    assert lips.mean() == pytest.approx(0.3, abs=0.02)


# --- engine -----------------------------------------------------------------------------------------------------------


def picture() -> NDArray[np.float32]:
    y, x = np.mgrid[0:240, 0:320].astype(np.float32)
    return np.stack([x * 0.7, 255 - y, 60 + 0.3 * x + 0.3 * y], axis=2)


def rendered(
    checkpoint: Path, options: Options, indices: list[int], batch: int, precision: str = "float32", snap: int = 1
) -> list[tuple[Region, Any]]:
    engine = Wav2LipEngine()
    assert engine.availability(checkpoint).ok
    analyser = engine.analyser(VIDEO, options, None, Path(), CascadeDetector())
    for i in range(10):
        analyser.update(AnalysisFrame(i, np.zeros((120, 160, 3), np.uint8), 2.0))
    analysis = analyser.finish()
    assert analysis.summary["variant"] == "compressed96"
    motion = engine.drive(speech(1.0), analysis, options)
    renderer = engine.renderer(
        analysis, motion, VIDEO, options, device="cpu", precision=precision, checkpoint=checkpoint
    )
    pairs = []
    image = picture()
    for start in range(0, len(indices), batch):
        regions = []
        for index in indices[start : start + batch]:
            box = renderer.box(index, index % 10)
            assert box is not None
            box = Box(
                box.x0 // snap * snap, box.y0 // snap * snap, -(-box.x1 // snap) * snap, -(-box.y1 // snap) * snap
            )
            region = Region(index, index % 10, box, image[box.y0 : box.y1, box.x0 : box.x1])
            regions.append(region)
        pairs += list(zip(regions, renderer.render(regions), strict=True))
    assert renderer.render([]) == []
    renderer.close()
    return pairs


def test_a_split_render_equals_the_whole_bit_for_bit(tiny: Path) -> None:
    options = Options(face=BOX)
    whole = rendered(tiny, options, list(range(20)), 20)
    for batch in (1, 3, 7):
        for (_, one), (_, other) in zip(whole, rendered(tiny, options, list(range(20)), batch), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)


def test_default_mode_changes_only_the_lower_face(tiny: Path) -> None:
    region, patch = rendered(tiny, Options(face=BOX), [5], 1)[0]
    assert patch.image.shape == region.image.shape
    assert patch.mask.shape == region.image.shape[:2]
    top = region.box.y0 + np.arange(patch.mask.shape[0]) < 40 + 0.42 * 160
    assert np.all(patch.mask[top] == 0)
    assert patch.mask.max() == pytest.approx(1.0)
    for edge in (patch.mask[0], patch.mask[-1], patch.mask[:, 0], patch.mask[:, -1]):
        assert np.all(edge == 0)
    assert patch.image.min() >= 0
    assert patch.image.max() <= 255.0 * 1.1  # bicubic overshoot, clipped by the compositor


def test_the_region_may_be_larger_than_the_box(tiny: Path) -> None:
    """The compositor snaps regions to whole chroma samples: the picture must not move."""
    plain = rendered(tiny, Options(face="101,41,219,199"), [3], 1)[0]
    wide = rendered(tiny, Options(face="101,41,219,199"), [3], 1, snap=8)[0]
    dx, dy = plain[0].box.x0 - wide[0].box.x0, plain[0].box.y0 - wide[0].box.y0
    height, width = plain[1].mask.shape
    cut = (slice(dy, dy + height), slice(dx, dx + width))
    np.testing.assert_allclose(wide[1].mask[cut], plain[1].mask, atol=0.02)
    np.testing.assert_allclose(wide[1].image[cut], plain[1].image, atol=1.5)
    assert wide[1].mask.sum() == pytest.approx(plain[1].mask.sum(), rel=1e-3)


def test_reference_mode_pastes_the_whole_rectangle_in_eight_bits(tiny: Path) -> None:
    import torch

    from heygemd.engines.wav2lip import load_generator

    options = Options(face=BOX, reference=True)
    region, patch = rendered(tiny, options, [5], 1, snap=16)[0]
    x0, y0 = 100 - region.box.x0, 40 - region.box.y0
    inside = np.zeros_like(patch.mask)
    inside[y0 : y0 + 160, x0 : x0 + 120] = 1
    np.testing.assert_array_equal(patch.mask, inside)
    # The published steps, one by one.
    bgr = np.rint(picture()).astype(np.uint8)[40:200, 100:220, ::-1]
    small = cv2.resize(np.ascontiguousarray(bgr), (96, 96))
    masked = small.copy()
    masked[48:] = 0
    face = np.concatenate((masked, small), axis=2)[None] / 255.0
    mel = mel_spectrogram(speech(1.0).samples, padding="reflect")[:, int(5 * 80.0 / 25) :][:, :16]
    net = load_generator(tiny)
    with torch.inference_mode():
        out = net(
            torch.from_numpy(mel[None, None].astype(np.float32)),
            torch.from_numpy(face.transpose(0, 3, 1, 2).astype(np.float32)),
        )
    pixels = (out[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    expected = cv2.resize(pixels, (120, 160))[..., ::-1]
    got = patch.image[y0 : y0 + 160, x0 : x0 + 120]
    assert np.abs(got - expected).max() <= 1  # folding moves a value over a whole number now and then
    assert np.mean(got != expected) < 0.01


@pytest.mark.parametrize("name", ["classic96", "compressed96"])
def test_bfloat16_is_close_to_float32(name: str, tmp_path: Path) -> None:
    from heygemd.engines.wav2lip.runtime import Runtime

    path = save_seeded(variant_named(name), tmp_path / "w.pth")
    r = np.random.default_rng(2)
    mel = r.uniform(-4, 4, (3, 80, 16)).astype(np.float32)
    crops = r.uniform(0, 1, (3, 96, 96, 3)).astype(np.float32)
    exact, narrow = (Runtime(path, "cpu", precision)(mel, crops) for precision in ("float32", "bfloat16"))
    assert exact.shape == (3, 96, 96, 3)
    assert exact.std() > 0.01
    assert -10 * np.log10(np.mean((exact - narrow) ** 2)) > 45


def test_follow_leaves_pauses_to_the_source(tiny: Path) -> None:
    engine = Wav2LipEngine()
    analysis = Analysis({"found": np.ones(1, bool), "box": np.array([[100, 40, 220, 200]], np.float32)})
    samples = np.concatenate([speech(1.0).samples, np.zeros(32000, np.float32)])
    said = Speech(samples, 75, FPS)
    follow = engine.drive(said, analysis, Options(silence="follow"))
    rest = engine.drive(said, analysis, Options(silence="rest"))
    assert np.all(rest.arrays["weight"] == 1)
    assert follow.arrays["weight"][5] == pytest.approx(1.0)
    assert np.all(follow.arrays["weight"][40:] < 0.004)
    renderer = BlendRenderer(analysis, follow, 320, 240, lambda _mel, crops: crops, 96)
    assert renderer.box(5, 0) is not None
    assert renderer.box(60, 0) is None


def test_frames_without_a_face_pass_through() -> None:
    found = np.array([True, False, True])
    analysis = Analysis({"found": found, "box": np.array([[100, 40, 220, 200]] * 3, np.float32)})
    motion = Wav2LipEngine().drive(speech(0.2), analysis, Options())
    for kind in (BlendRenderer, ReferenceRenderer):
        renderer = kind(analysis, motion, 320, 240, lambda _mel, crops: crops, 96)
        assert [renderer.box(i, i) is None for i in range(3)] == [False, True, False]


def test_fixed_boxes_outside_the_picture_are_refused() -> None:
    analyser = Wav2LipEngine().analyser(VIDEO, Options(face="400,300,500,400"), None, Path(), CascadeDetector())
    with pytest.raises(NoFaceError, match="not inside the picture"):
        analyser.finish()


def test_a_clip_without_a_face_is_refused() -> None:
    analyser = Wav2LipEngine().analyser(VIDEO, Options(), None, Path(), CascadeDetector())
    for i in range(3):
        analyser.update(AnalysisFrame(i, np.full((120, 160, 3), 90, np.uint8), 2.0))
    with pytest.raises(NoFaceError, match="no face was found in 3 frames"):
        analyser.finish()


def test_reference_detection_on_every_frame() -> None:
    class Detector:
        def __init__(self) -> None:
            self.calls = 0

        def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
            self.calls += 1
            if self.calls == 3:
                return []
            small = Detection(np.array([2, 2, 30, 40], np.float32), 0.99)
            return [small, Detection(np.array([50, 20, 110, 90], np.float32), 0.5)]

    detector = Detector()
    analyser = ReferenceAnalyser(detector, VIDEO, Options(reference=True), {})
    for i in range(6):
        analyser.update(AnalysisFrame(i, np.zeros((120, 160, 3), np.uint8), 2.0))
    analysis = analyser.finish()
    assert detector.calls == 6
    assert analysis.arrays["found"].tolist() == [True, True, False, True, True, True]
    assert analysis.arrays["box"][0].tolist() == [100, 40, 220, 190]
    assert analysis.summary["frames_without_face"] == 1


def test_availability_says_what_is_wrong(tiny: Path, tmp_path: Path) -> None:
    engine = Wav2LipEngine()
    assert not engine.availability(None).ok
    (tmp_path / "bad.pth").write_bytes(b"text")
    state = engine.availability(tmp_path / "bad.pth")
    assert not state.ok
    assert "bad.pth is a text file" in state.reason
    assert engine.availability(tiny).reason == "tiny.pth is a Wav2Lip 96 compressed (the mobile class)"
    analysis = Analysis({"found": np.ones(1, bool), "box": np.zeros((1, 4), np.float32)})
    motion = engine.drive(speech(0.2), analysis, Options())
    with pytest.raises(EngineUnavailableError, match="needs a checkpoint"):
        engine.renderer(analysis, motion, VIDEO, Options(), device="cpu", precision="float32", checkpoint=None)
    with pytest.raises(CheckpointError):
        engine.renderer(
            analysis, motion, VIDEO, Options(), device="cpu", precision="float32", checkpoint=tmp_path / "bad.pth"
        )


# --- memory -----------------------------------------------------------------------------------------------------------


def test_batches_are_few_and_bounded() -> None:
    assert [compute_batch("cpu", n) for n in (1, 2, 3, 9, 16, 17, 500)] == [8] * 7
    assert [compute_batch("cuda", n) for n in (1, 3, 100)] == [1, 4, 64]


def test_predictions_grow_with_what_they_depend_on() -> None:
    engine = Wav2LipEngine()

    def predict(**changes: Any) -> int:
        query = {"device": "cpu", "precision": "float32", "batch": 8, "width": 1280, "height": 720}
        return engine.memory_bytes(MemoryQuery(**(query | {"variant": "classic96"} | changes)))

    base = predict()
    assert predict(batch=16) > base
    assert predict(width=1920, height=1080) > base
    assert predict(precision="bfloat16") < base
    assert predict(variant="hd256") > predict(variant="classic96") > predict(variant="compressed96")
    assert predict(variant="") == predict(variant="hd256")
    for device in ("cpu", "cuda"):
        assert predict(device=device, batch=64) < 16 << 30
    assert activations_of("classic96") > 96 * 96 * 80


def test_asking_for_memory_imports_no_torch() -> None:
    code = (
        "import sys\nfrom heygemd.engines.wav2lip import Wav2LipEngine\nfrom heygemd.engines.base import MemoryQuery\n"
        "Wav2LipEngine().memory_bytes(MemoryQuery('cpu', 'float32', 8, 640, 480))\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
