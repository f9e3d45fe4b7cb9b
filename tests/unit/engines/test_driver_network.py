"""The network, what a person's own speech teaches, and text jobs on real synthetic speech."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heygemd.core.clip import Phone
from heygemd.engines.rewrite.driver import PersonalDriver, drive, fit_personal, network
from heygemd.engines.rewrite.driver.activity import level_db
from heygemd.engines.rewrite.driver.articulate import articulate, timed_sounds
from heygemd.engines.rewrite.driver.cepstra import band_levels
from heygemd.engines.rewrite.driver.evidence import bridged, level_gain
from heygemd.engines.rewrite.driver.features import log_mel, normalised
from heygemd.engines.rewrite.driver.personal import at_frames, detrended
from heygemd.engines.rewrite.driver.phonetic import listen
from heygemd.engines.rewrite.driver.sounds import SOUNDS, sounds_of
from heygemd.engines.rewrite.own import learn_own

FPS = Fraction(25)
ENGLISH = (
    "The weather is nice today, so my brother and I should take a long walk before it becomes too dark. "
    "Perhaps we buy apples at the old market, and maybe a map of the whole area."
)
MANDARIN = (
    "jin1 tian1 tian1 qi4 hen3 hao3, wo3 men5 qu4 gong1 yuan2 san4 bu4, ma1 ma5 mai3 le5 ping2 guo3, peng2 you3 lai2"
)


def _espeak_module() -> ModuleType:
    path = Path(__file__).parents[3] / "bench" / "train_driver" / "espeak.py"
    spec = importlib.util.spec_from_file_location("driver_espeak", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def espeak() -> Any:
    try:
        return _espeak_module().Espeak()
    except OSError:
        pytest.skip("libespeak-ng is not installed")


def said(espeak: Any, text: str, voice: str) -> tuple[NDArray[np.float32], list[Phone]]:
    """Speech at 16 kHz by plain interpolation (the sound's quality does not matter here) and its phones."""
    spoken = espeak.speak(text, voice)
    count = int(len(spoken.samples) * 16000 / spoken.rate)
    samples = np.interp(np.arange(count) * spoken.rate / 16000, np.arange(len(spoken.samples)), spoken.samples)
    return samples.astype(np.float32), [Phone(*phone) for phone in spoken.phones]


@pytest.mark.parametrize(("voice", "text"), [("en-us", ENGLISH), ("cmn-latn-pinyin", MANDARIN)])
def test_text_jobs_close_the_lips(espeak: Any, voice: str, text: str) -> None:
    samples, phones = said(espeak, text, voice)
    frames = round(len(samples) / 16000 * FPS)
    motion = drive(samples, frames, FPS, phones=phones, language=voice)
    times = np.arange(frames) / float(FPS)
    closed = []
    for phone in phones:
        if any(SOUNDS[name].closed for name in sounds_of(phone.symbol, voice)):
            near = (times >= phone.start_seconds - 0.06) & (times <= phone.end_seconds + 0.02)
            closed.append(motion.opening[near].min() < 0.1 * motion.opening.max())
    assert len(closed) >= 6
    assert np.mean(closed) >= 0.9
    # and it is not closed all the time
    assert np.mean(motion.opening < 0.1 * motion.opening.max()) < 0.35


def test_recorded_speech_follows_the_known_phones(espeak: Any) -> None:
    samples, phones = said(espeak, ENGLISH, "en-us")
    frames = round(len(samples) / 16000 * FPS)
    known = drive(samples, frames, FPS, phones=phones, language="en-us")
    heard = drive(samples, frames, FPS)
    assert np.corrcoef(known.opening, heard.opening)[0, 1] > 0.4  # a voice of formants has not a mouth's spectrum
    assert np.corrcoef(known.width, heard.width)[0, 1] > 0.5
    assert 0.6 < np.percentile(heard.opening, 95) < 1.0
    assert heard.summary["driver"].startswith("phonetic, spectral balance, ")


def test_the_acoustic_model_hears_sounds_and_closures(espeak: Any) -> None:
    samples, phones = said(espeak, ENGLISH, "en-us+f2")
    rows = 2 * -(-len(samples) // 320)
    known = articulate(timed_sounds(phones, "en-us"), rows, exact=True)
    heard = listen(samples, band_levels(samples), rows)
    assert np.corrcoef(known.opening, heard.opening)[0, 1] > 0.3
    assert np.corrcoef(known.width, heard.width)[0, 1] > 0.4
    assert heard.closure[known.closure > 0.9].mean() > 3 * heard.closure[known.closure < 0.1].mean()
    assert np.mean((heard.activity > 0.5) == (known.activity > 0.5)) > 0.8


def test_speech_between_silences_rests_before_and_after(espeak: Any) -> None:
    samples, _ = said(espeak, ENGLISH[:75], "en-us+f2")
    quiet = np.zeros(16000 * 3, np.float32)
    motion = drive(np.concatenate([quiet, samples, quiet]), round((6 + len(samples) / 16000) * 25), FPS)
    assert motion.opening[:60].max() == 0
    assert motion.opening[-60:].max() == 0
    assert motion.activity[80:-80].min() > 0.9


def test_level_does_not_matter(espeak: Any) -> None:
    samples, _ = said(espeak, ENGLISH[:75], "en-us")
    frames = round(len(samples) / 16000 * 25)
    plain, faint = drive(samples, frames, FPS), drive(samples * 0.01, frames, FPS)
    assert np.abs(plain.opening - faint.opening).max() < 0.05


def test_own_speech_is_learned_and_its_offset_found(espeak: Any) -> None:
    samples, phones = said(espeak, ENGLISH, "en-us+m3")
    frames = round(len(samples) / 16000 * 25)
    # a mouth that is 120 ms late, follows its own rules (opens with loudness and with its i), drifts and is noisy
    truth = drive(samples, frames, FPS, phones=phones, language="en-us", offset_seconds=0.12)
    generator = np.random.default_rng(5)
    drift = np.linspace(0, 2, frames)
    opening = 3 * truth.opening + 1.5 * truth.teeth + drift + 0.1 * generator.standard_normal(frames)
    width = 40 + 5 * truth.width + 0.3 * generator.standard_normal(frames)
    opening[30:36] = np.nan
    personal = fit_personal(samples, opening, width, FPS)
    assert personal is not None
    assert personal.offset_seconds == pytest.approx(0.12, abs=0.045)
    assert personal.opening_r > 0.4
    assert personal.width_r > 0.4
    assert 0 < personal.trust[1] < personal.trust[0] < 1
    again = PersonalDriver.from_arrays(personal.to_arrays())
    assert again is not None
    plain = drive(samples, frames, FPS, offset_seconds=personal.offset_seconds)
    own = drive(samples, frames, FPS, offset_seconds=personal.offset_seconds, personal=again)
    same = drive(samples, frames, FPS, offset_seconds=personal.offset_seconds, personal=personal)
    assert np.array_equal(own.opening, same.opening)
    known = np.isfinite(opening)
    level = detrended(opening.astype(np.float32), FPS, known)
    assert np.corrcoef(own.opening[known], level[known])[0, 1] > np.corrcoef(plain.opening[known], level[known])[0, 1]
    assert own.summary["own_offset_seconds"] == pytest.approx(personal.offset_seconds, abs=1e-3)


def test_another_voice_over_the_clip_teaches_nothing(espeak: Any) -> None:
    samples, phones = said(espeak, ENGLISH, "en-us+f2")
    other, _ = said(espeak, MANDARIN, "cmn-latn-pinyin+m3")
    frames = round(min(len(samples), len(other)) / 16000 * 25)
    mouth = drive(samples, frames, FPS, phones=phones, language="en-us", offset_seconds=0.04)
    noise = np.random.default_rng(8).normal(0, 0.1, (2, frames)).astype(np.float32)
    own, told = learn_own(samples, mouth.opening + noise[0], mouth.width + noise[1], FPS)
    assert told["used"]
    assert "personal_opening" in own
    dubbed, told = learn_own(other, mouth.opening + noise[0], mouth.width + noise[1], FPS)
    assert dubbed == {}
    assert told["why"] == "the sound of the clip does not go with the mouth in it"
    assert told["agreement"] < 0.5


def test_nothing_is_learned_from_silence_or_from_too_little(espeak: Any) -> None:
    samples, _ = said(espeak, ENGLISH[:24], "en-us")
    assert fit_personal(samples[:16000], np.zeros(25), np.zeros(25), FPS) is None
    assert fit_personal(np.zeros(160000, np.float32), np.zeros(250), np.zeros(250), FPS) is None
    assert fit_personal(samples, np.full(40, np.nan), np.full(40, np.nan), FPS) is None
    assert fit_personal(np.zeros(0, np.float32), np.zeros(0), np.zeros(0), FPS) is None
    assert PersonalDriver.from_arrays({}) is None


def test_weights_are_small_and_torch_is_not_needed() -> None:
    folder = Path(network.__file__).parent
    assert sum(folder.joinpath(name).stat().st_size for name in ("network.npz", "listener.npz")) <= 2_000_000
    code = (
        "import sys, numpy as np; from fractions import Fraction\n"
        "from heygemd.engines.rewrite.driver import drive\n"
        "drive(np.random.default_rng(0).standard_normal(16000).astype('f4') * .1, 25, Fraction(25))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.random.default_rng(3).standard_normal(16000 * 9).astype(np.float32) * 0.1
    whole_bands = log_mel(sound)
    whole = network.hear(normalised(whole_bands))
    monkeypatch.setattr("heygemd.engines.rewrite.driver.network._BLOCK_ROWS", 101)
    monkeypatch.setattr("heygemd.engines.rewrite.driver.features._BLOCK_ROWS", 37)
    levels = level_db(sound)
    monkeypatch.setattr("heygemd.engines.rewrite.driver.activity._BLOCK_ROWS", 53)
    assert np.allclose(level_db(sound), levels, atol=1e-4)
    assert np.allclose(log_mel(sound), whole_bands, atol=1e-5)
    assert np.allclose(network.hear(normalised(log_mel(sound))).hidden, whole.hidden, atol=1e-4)


def test_features_are_normalised_by_the_loud_part_and_locally() -> None:
    generator = np.random.default_rng(2)
    sound = generator.standard_normal(16000 * 4).astype(np.float32) * 0.1
    bands = log_mel(np.concatenate([np.zeros(16000 * 20, np.float32), sound]))
    loud = normalised(bands)[1001:]
    assert np.abs(loud.mean(axis=0)).max() < 0.2
    # three minutes at one level, then three at another: both come out alike
    long = np.concatenate([np.full((9000, 40), -3.0), np.full((9000, 40), -6.0)]).astype(np.float32)
    long += generator.standard_normal(long.shape).astype(np.float32)
    scaled = normalised(long)
    assert abs(scaled[2000:4000].mean() - scaled[14000:16000].mean()) < 0.05


def test_helpers() -> None:
    active = np.zeros(1000, bool)
    active[300:350] = active[420:500] = True
    soft = bridged(active)
    assert soft[320:480].min() == 1  # the gap of 0.7 s is no silence
    assert soft[:200].max() == 0
    assert soft[650:].max() == 0
    assert np.array_equal(at_frames(np.arange(100, dtype=np.float32), 3, Fraction(50), 0.005), [0, 1, 2])
    assert level_gain(np.zeros(16000, np.float32)) == pytest.approx(300, rel=1e-3)
    assert level_gain(np.full(16000, 0.01, np.float32)) == pytest.approx(10, rel=1e-3)
