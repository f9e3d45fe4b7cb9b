"""Trials of a card's encoder and decoder: refused by this machine's real ffmpeg, accepted with one that pretends."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.clip import VideoInfo
from heygemd.core.coding import Card, Coding
from heygemd.core.errors import EncoderUnavailableError
from heygemd.core.options import Options
from heygemd.core.settings import MediaSettings
from heygemd.media import hardware
from heygemd.media.decode import FrameReader, analysis_frames
from heygemd.media.encode import SegmentEncoder
from heygemd.media.hardware import SAMPLE, try_decoder, try_encoder
from heygemd.media.mux import join, verify_output
from heygemd.media.probe import parameter_hash, probe_video
from heygemd.work.coding import choose_coding, require_coding
from tests import nvenc
from tests.nvenc import FakeNvenc, assert_frames_are_software_s

from .test_encode import decoded, moving

no_driver = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a card is here; tests/gpu tries it")
CARDS = (Card(0, "GPU-a"), Card(1, "GPU-b"))


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    hardware.forget()
    yield
    hardware.forget()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvenc:
    return nvenc.install(tmp_path / "bin", monkeypatch)


@no_driver
def test_an_ffmpeg_that_lists_nvenc_does_not_have_it() -> None:
    trial = try_encoder(Card())
    assert not trial.ok
    assert trial.reason.startswith("cuda:0 cannot encode 256x256: ")
    assert "libcuda" in trial.reason or "h264_nvenc" in trial.reason, "ffmpeg's own words"


@no_driver
def test_a_decode_that_would_fall_back_to_software_is_no_card_s(clip: Path) -> None:
    trial = try_decoder(clip, probe_video(clip), Card())
    assert not trial.ok
    assert "cannot decode h264" in trial.reason


@no_driver
def test_who_insists_is_told_before_anything_is_rendered() -> None:
    with pytest.raises(EncoderUnavailableError, match=r"media\.encoder is nvenc, but cuda:0 cannot encode") as caught:
        require_coding(MediaSettings(encoder="nvenc"), ())
    assert caught.value.code == "HG-3005"
    require_coding(MediaSettings(), ())


@no_driver
def test_auto_goes_on_in_software_and_says_why(clip: Path) -> None:
    video = probe_video(clip)
    coding = choose_coding(MediaSettings(), clip, video, Options(), CARDS, on_card=True)
    assert (coding.encoder, coding.decoder) == ("software", "software")
    assert "cuda:0 cannot encode 160x128" in coding.encoder_reason
    assert "cuda:0 cannot decode h264" in coding.decoder_reason


def test_every_card_is_tried_by_its_uuid_and_once(fake: FakeNvenc, clip: Path) -> None:
    video = probe_video(clip)
    before = len(fake.calls)
    for _ in range(2):
        coding = choose_coding(MediaSettings(), clip, video, Options(), CARDS, on_card=True)
    assert coding == Coding(
        "nvenc",
        "a trial of cuda:0 at 160x128 passed",
        "nvdec",
        "a trial of cuda:0 with h264 passed",
    )
    tried = fake.calls[before:]
    assert len(fake.encodes) == 2 and len(fake.decodes) == 2, "the second time, the first one's word counts"
    assert {visible for arguments, visible in tried if "h264_nvenc" in arguments} == {"GPU-a", "GPU-b"}
    assert {visible for arguments, visible in tried if "-hwaccel" in arguments} == {"GPU-a", "GPU-b"}
    for arguments in fake.encodes:
        assert arguments[arguments.index("-gpu") + 1] == "0", "the only one that it sees"


def test_one_card_that_refuses_is_enough_for_software(fake: FakeNvenc, clip: Path) -> None:
    fake.refuse(2)
    coding = choose_coding(MediaSettings(), clip, probe_video(clip), Options(), CARDS, on_card=True)
    assert coding.encoder == "software"
    assert coding.encoder_reason == (
        "cuda:1 cannot encode 160x128: OpenEncodeSessionEx failed: out of memory (10): (no details)"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": Options(quality="lossless")}, "lossless"),
        ({"on_card": False}, "renders on the CPU"),
        ({"cards": ()}, "not of this machine"),
        ({"pix_fmt": "yuv420p10le", "bit_depth": 10}, "yuv420p10le"),
        ({"media": MediaSettings(encoder="software")}, "the configuration"),
    ],
)
def test_what_is_never_tried(fake: FakeNvenc, clip: Path, change: dict[str, object], words: str) -> None:
    video = probe_video(clip)
    if "pix_fmt" in change:
        video = replace(video, pix_fmt="yuv420p10le", bit_depth=10)
        change = {}
    given = {"media": MediaSettings(), "options": Options(), "cards": CARDS, "on_card": True} | change
    coding = choose_coding(
        given["media"],  # type: ignore[arg-type]
        clip,
        video,
        given["options"],  # type: ignore[arg-type]
        given["cards"],  # type: ignore[arg-type]
        on_card=bool(given["on_card"]),
    )
    assert coding.encoder == "software" and words in coding.encoder_reason
    assert not fake.encodes


def test_segments_of_the_card_s_encoder_are_joined(fake: FakeNvenc, tmp_path: Path) -> None:
    """Through an ffmpeg that encodes in software what is asked of NVENC: command line, environment, files."""
    video, lengths = SAMPLE, [9, 5, 12]
    paths, first = [], 0
    for number, length in enumerate(lengths):
        paths.append(tmp_path / f"{number}.mp4")
        with SegmentEncoder(paths[-1], video, crf=16, preset="veryfast", card=Card.of("cuda:3")) as encoder:
            for frame in moving(video, first, length):
                encoder.write(frame)
        first += length
    assert len({parameter_hash(path) for path in paths}) == 1
    out = tmp_path / "out.mp4"
    join(paths, None, out, video=video, segment_frames=lengths, work=tmp_path)
    checked = verify_output(out, num_frames=26, fps=video.fps, width=256, height=256, audio_seconds=None)
    assert checked["video_codec"] == "h264"
    expected = np.concatenate([frame.buffer for frame in moving(video, 0, 26)]).astype(float)
    assert np.abs(decoded(out, "yuv420p") - expected).mean() < 6, "every frame in its place"
    options = dict(itertools.pairwise(fake.encodes[0]))
    wanted = {"-rc": "vbr", "-cq": "16", "-b:v": "0", "-preset": "p4", "-b_ref_mode": "disabled", "-gpu": "3"}
    assert wanted.items() <= options.items()
    assert "-crf" not in options


def test_an_encoder_that_is_refused_is_an_error_of_its_own(fake: FakeNvenc, tmp_path: Path) -> None:
    fake.refuse(1)
    path = tmp_path / "a.mp4"
    with (
        pytest.raises(EncoderUnavailableError, match="OpenEncodeSessionEx"),
        SegmentEncoder(path, SAMPLE, card=Card()) as encoder,
    ):
        for frame in moving(SAMPLE, 0, 60):
            encoder.write(frame)
    assert not path.exists()


@pytest.mark.parametrize("video", [replace(SAMPLE, pix_fmt="yuv444p"), replace(SAMPLE, pix_fmt="yuv420p10le")])
def test_other_pictures_are_not_for_the_card(tmp_path: Path, video: VideoInfo) -> None:
    with pytest.raises(ValueError, match="not for the card"):
        SegmentEncoder(tmp_path / "a.mp4", video, card=Card())


def test_frames_of_the_card_s_decoder_are_those_of_pass_1(fake: FakeNvenc, clip: Path) -> None:
    assert_frames_are_software_s(clip, 20, 40)
    (arguments,) = fake.decodes
    options = dict(itertools.pairwise(arguments))
    assert (options["-hwaccel"], options["-hwaccel_device"]) == ("cuda", "0")
    assert options["-vf"].startswith("format=yuv420p,"), "software's layout before the checksum"


@no_driver
def test_where_the_card_s_decoder_fails_software_goes_on(clip: Path) -> None:
    """The real ffmpeg, which has no card to decode on."""
    video = probe_video(clip)
    frames = analysis_frames(clip, video, longest_side=64)
    assert sum(1 for _ in frames) == 60
    reader = FrameReader(clip, video, frames.table, card=Card())
    assert [frame.source_index for frame in reader.read(0, 60)] == list(range(60))
    assert not reader.on_card


def test_a_frame_that_differs_is_decoded_in_software(fake: FakeNvenc, clip: Path) -> None:
    video = probe_video(clip)
    frames = analysis_frames(clip, video, longest_side=64)
    assert sum(1 for _ in frames) == 60
    program = fake.folder / "ffmpeg"
    # from now on the card's decoder makes every picture a little darker
    changed = program.read_text().replace("out.append(", "out.append(darker(part) if '-hwaccel' in argv else ")
    helper = "darker = lambda part: part.replace('format=yuv420p,', 'format=yuv420p,eq=brightness=-0.1,', 1)\n"
    program.write_text(changed.replace("out, skip", helper + "out, skip"))
    reader = FrameReader(clip, video, frames.table, card=Card())
    got = list(reader.read(3, 30))
    assert not reader.on_card and len(fake.decodes) == 1
    ours = list(FrameReader(clip, video, frames.table).read(3, 30))
    assert all(np.array_equal(a.buffer, b.buffer) for a, b in zip(got, ours, strict=True))
