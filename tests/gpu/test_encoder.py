"""NVENC and NVDEC of a real card. Many data-centre cards have no encoder: then its refusal is what is tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heygemd.core.coding import Card
from heygemd.media.encode import SegmentEncoder
from heygemd.media.hardware import SAMPLE, card_takes, try_decoder, try_encoder
from heygemd.media.mux import join, verify_output
from heygemd.media.probe import parameter_hash, probe_video
from tests import media
from tests.nvenc import assert_frames_are_software_s
from tests.unit.media.test_encode import decoded, moving


def test_the_encoder_says_yes_or_why_not() -> None:
    trial = try_encoder(Card())
    assert trial.reason.startswith("a trial of cuda:0" if trial.ok else "cuda:0 cannot encode 256x256: ")
    assert "libcuda" not in trial.reason, "the driver is here"


def test_segments_of_nvenc_are_joined(tmp_path: Path) -> None:
    trial = try_encoder(Card())
    if not trial.ok:
        pytest.skip(trial.reason)
    lengths, paths, first = [30, 17, 26], [], 0
    for number, length in enumerate(lengths):
        paths.append(tmp_path / f"{number}.mp4")
        with SegmentEncoder(paths[-1], SAMPLE, crf=16, card=Card()) as encoder:
            for frame in moving(SAMPLE, first, length):
                encoder.write(frame)
        first += length
    assert len({parameter_hash(path) for path in paths}) == 1
    out = tmp_path / "out.mp4"
    join(paths, None, out, video=SAMPLE, segment_frames=lengths, work=tmp_path)
    verify_output(out, num_frames=first, fps=SAMPLE.fps, width=256, height=256, audio_seconds=None)
    expected = np.concatenate([frame.buffer for frame in moving(SAMPLE, 0, first)]).astype(float)
    error = np.mean((decoded(out, "yuv420p") - expected) ** 2)
    assert error < 40, "every frame in its place, and not worse than the noise in it"


def test_nvdec_gives_software_s_frames(tmp_path: Path) -> None:
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=2.0, size=320)
    video = probe_video(clip)
    assert card_takes(video) is None
    trial = try_decoder(clip, video, Card())
    if not trial.ok:
        pytest.skip(trial.reason)
    assert_frames_are_software_s(clip, 7, 50)
