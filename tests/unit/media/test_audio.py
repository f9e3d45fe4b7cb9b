from pathlib import Path

import numpy as np
import pytest

from heygemd.core.errors import LimitError, NoAudioError, UnreadableMediaError
from heygemd.media.audio import load_speech, mix_weights, probe_audio
from heygemd.media.inputs import MediaLimits

from .conftest import ffmpeg


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of noise, 16 kHz mono, peak below 1."""
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=r=16000:d=0.5:a=0.5:seed=1", "-c:a", "pcm_s16le", path)
    return path


def test_plain_speech_is_read_exactly(tone: Path) -> None:
    speech = load_speech(tone)
    expected = np.frombuffer(ffmpeg("-i", tone, "-f", "f32le", "-"), "<f4")
    assert speech.dtype == np.float32 and np.array_equal(speech, expected)
    info = probe_audio(tone)
    assert (info.sample_rate, info.channels, info.duration_seconds, info.notes) == (16000, 1, 0.5, ())


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000])
def test_other_rates_keep_the_duration(tone: Path, tmp_path: Path, rate: int) -> None:
    path = tmp_path / "other.flac"
    ffmpeg("-i", tone, "-ar", rate, path)
    info = probe_audio(path)
    assert info.sample_rate == rate and info.duration_seconds == pytest.approx(0.5, abs=1e-3)
    assert len(load_speech(path)) == round(info.duration_seconds * 16000)


@pytest.mark.parametrize("layout", ["stereo|FR=c0", "stereo|FL=c0", "stereo|FL=c0|FR=-1*c0", "5.1|FC=c0"])
def test_no_channel_layout_makes_the_speech_weaker(tone: Path, tmp_path: Path, layout: str) -> None:
    path = tmp_path / "channels.wav"
    ffmpeg("-i", tone, "-af", f"pan={layout}", path)
    speech, mono = load_speech(path), load_speech(tone)
    assert np.corrcoef(speech, mono)[0, 1] > 0.999
    assert np.std(speech) == pytest.approx(float(np.std(mono)), rel=0.01)


def test_a_late_stream_gets_silence_before_it(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "late.mp4"
    ffmpeg("-i", clip, "-itsoffset", 0.7, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    speech = load_speech(path)
    assert probe_audio(path).duration_seconds == pytest.approx(3.1, abs=0.05)
    assert np.abs(speech[: int(0.68 * 16000)]).max() < 1e-3
    assert np.abs(speech[int(0.75 * 16000) : int(0.8 * 16000)]).max() > 0.05


def test_own_sound_from_the_time_of_the_first_frame(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "late-video.mkv"
    ffmpeg("-itsoffset", 0.5, "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    whole, own = load_speech(path), load_speech(path, origin_seconds=0.5)
    assert len(whole) - len(own) == pytest.approx(8000, abs=20)
    assert np.abs(whole[8000:24000] - own[:16000]).max() < 0.02


def test_a_transport_stream_that_starts_late_on_the_clock_gets_no_silence(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "ten.ts"
    ffmpeg("-i", clip, "-c", "copy", "-output_ts_offset", 10, "-f", "mpegts", path)
    assert probe_audio(path).duration_seconds == pytest.approx(2.4, abs=0.1)


def test_silence_is_sound_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000:cl=stereo", "-t", 0.5, path)
    assert "silence" in probe_audio(path).notes[0]
    assert not load_speech(path).any()


def test_broken_numbers_do_not_spread(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    samples = np.full(8000, 0.25, "<f4")
    samples[100], samples[200], samples[300] = np.nan, np.inf, 40.0
    raw = tmp_path / "raw"
    raw.write_bytes(samples.tobytes())
    ffmpeg("-f", "f32le", "-ar", 16000, "-ac", 1, "-i", raw, "-c:a", "pcm_f32le", path)
    speech = load_speech(path)
    assert np.isfinite(speech).all() and np.abs(speech).max() <= 1
    assert np.median(speech) == pytest.approx(0.25)


def test_without_sound(clip: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.mp4"
    ffmpeg("-i", clip, "-an", "-c", "copy", silent)
    with pytest.raises(NoAudioError, match=r"silent\.mp4"):
        probe_audio(silent)
    empty = tmp_path / "empty.wav"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000", "-t", 0.001, empty)
    with pytest.raises(NoAudioError, match="lasts only"):
        load_speech(empty)
    text = tmp_path / "text.wav"
    text.write_text("hello " * 1000)
    with pytest.raises(UnreadableMediaError, match=r"text\.wav"):
        probe_audio(text)


def test_endless_sound_is_stopped(tone: Path) -> None:
    with pytest.raises(LimitError, match="limit of 0 s"):
        probe_audio(tone, limits=MediaLimits(max_seconds=0.4))


def test_mix_weights() -> None:
    assert mix_weights(np.array([[4.0, 4.0], [4.0, 4.0]])).tolist() == [0.5, 0.5]
    assert mix_weights(np.array([[0.0, 0.0], [0.0, 4.0]])).tolist() == [0.0, 1.0]
    assert mix_weights(np.array([[4.0, -4.0], [-4.0, 4.0]])).tolist() == [1.0, 0.0]
    assert mix_weights(np.zeros((3, 3))).tolist() == pytest.approx([1 / 3] * 3)
