"""An item through the real stages with the card's decoder and encoder, by an ffmpeg that only pretends to have them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heygemd.core.coding import Coding
from heygemd.core.errors import EncoderUnavailableError
from heygemd.core.plan import Plan, Segment
from heygemd.core.settings import MediaSettings
from heygemd.work.finish import finish
from heygemd.work.item import ItemFolder
from heygemd.work.render import SegmentRenderer
from tests import media, nvenc
from tests.integration.test_pipeline import frames_of, prepared_item, quiet

ON_CARD = Coding("nvenc", "", "nvdec", "")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.moving_portrait(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=0.8, size=256)


def test_decoded_encoded_and_joined(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = media.speech(tmp_path / "voice.wav", "Hello.")
    made = prepared_item(tmp_path / "item", clip, voice, quality="high")
    assert made.coding == Coding("software", "it renders on the CPU", "software", "it renders on the CPU")
    item = ItemFolder(tmp_path / "item")
    item.save_prepared(replace(made, coding=ON_CARD))
    fake = nvenc.install(tmp_path / "bin", monkeypatch)
    frames = made.num_frames
    segments = (Segment(0, 0, frames // 2), Segment(1, frames // 2, frames))
    torch_canvas = pytest.importorskip("heygemd.engines.rewrite.torch_canvas")
    canvas = torch_canvas.TorchCanvas("cpu")  # torch's CPU stands for the card here
    monkeypatch.setattr(torch_canvas, "TorchCanvas", lambda device: {"cuda:0": canvas}[device])
    renderer = SegmentRenderer(item, device="cuda:0", precision="float32", media=MediaSettings(), threads=1)
    try:
        stats = [renderer.render(segment, batch=4, report=quiet, coding=ON_CARD) for segment in segments]
    finally:
        renderer.close()
    assert {s.decoder for s in stats} == {"nvdec"}
    assert len({s.parameters for s in stats}) == 1 and stats[0].parameters
    assert len(fake.encodes) == 2 and len(fake.decodes) >= 2
    plan = Plan(segments, 4, "float32", 0, "cuda", coding=ON_CARD)
    checked = finish(item, plan, MediaSettings(), quiet)["checked"]
    assert (checked["frames"], checked["video_codec"]) == (frames, "h264")
    theirs = frames_of(item.result / "video.mp4", 256)
    assert np.abs(theirs[0].astype(float) - frames_of(clip, 256)[0]).mean() < 4


def test_on_the_cpu_it_is_refused_at_once(tmp_path: Path, clip: Path) -> None:
    voice = media.speech(tmp_path / "voice.wav", "Hello.")
    prepared_item(tmp_path / "item", clip, voice)
    renderer = SegmentRenderer(
        ItemFolder(tmp_path / "item"), device="cpu", precision="float32", media=MediaSettings(), threads=1
    )
    with pytest.raises(EncoderUnavailableError, match="on the CPU"):
        renderer.render(Segment(0, 0, 5), batch=4, report=quiet, coding=ON_CARD)
    renderer.close()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="a card is here")
def test_run_and_doctor_say_the_same_where_there_is_no_card(tmp_path: Path, clip: Path) -> None:
    voice = media.speech(tmp_path / "voice.wav", "Hello.")
    environment = os.environ | {"HEYGEMD_MEDIA__ENCODER": "nvenc", "HEYGEMD_ROOT": str(tmp_path / "root")}
    program = [sys.executable, "-m", "heygemd.cli"]
    run = [*program, "run", str(clip), str(voice), "-o", str(tmp_path / "out.mp4")]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "HG-3005" in done.stderr and "media.encoder is nvenc, but cuda:0 cannot encode" in " ".join(
        done.stderr.split()
    )
    assert not (tmp_path / "out.mp4").exists()
    told = subprocess.run(
        [*program, "doctor", "--without-unit"],
        env=environment | {"COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert "HG-3005: media.encoder is nvenc, but cuda:0 cannot encode" in told.stdout
