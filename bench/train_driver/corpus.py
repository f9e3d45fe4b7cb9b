"""Words to be spoken for training, and the voices that speak them. Everything here is chosen by a seeded generator.

Words: Faker's lists (MIT), Mandarin as pinyin by pypinyin (MIT), Japanese as random morae. Sentences are random words:
the network learns sounds, not language.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
from pypinyin import Style, lazy_pinyin

# (espeak-ng voice, Faker's list, share of the training speech)
LANGUAGES = (
    ("en-us", "en_US", 0.16),
    ("en-gb-x-gbclan", "en_US", 0.05),
    ("en-gb-x-rp", "en_US", 0.04),
    ("en-us-nyc", "en_US", 0.03),
    ("cmn-latn-pinyin", "zh_CN", 0.13),
    ("de", "de_DE", 0.09),
    ("fr", "fr_FR", 0.09),
    ("es", "es_ES", 0.05),
    ("es-419", "es_ES", 0.04),
    ("it", "it_IT", 0.07),
    ("ru", "ru_RU", 0.06),
    ("ja", "", 0.05),
    ("nl", "nl_NL", 0.04),
    ("pl", "pl_PL", 0.03),
    ("cs", "cs_CZ", 0.03),
    ("el", "el_GR", 0.02),
    ("da", "da_DK", 0.02),
)
_VARIANT_WORDS = """
f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 klatt klatt2 klatt3 klatt4 Andy Annie Denis Diogo Gene Jacky Lee Marco Mario
Michael Mike Nguyen Alex Alicia Andrea adam anika antonio belinda benjamin boris caleb david ed edward grandma gustave
iven john linda max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac
whisper whisperf
"""
VARIANTS = tuple(_VARIANT_WORDS.split())
FLITE_VOICES = ("kal16", "awb", "rms", "slt")

_MORA_WORDS = """
あ い う え お か き く け こ さ し す せ そ た ち つ て と な に ぬ ね の は ひ ふ へ ほ ま み む め も や ゆ よ
ら り る れ ろ わ ん が ぎ ぐ げ ご ざ じ ず ぜ ぞ だ で ど ば び ぶ べ ぼ ぱ ぴ ぷ ぺ ぽ きょう しゃ ちゅう っと
"""
_MORAE = tuple(_MORA_WORDS.split())


@dataclass(frozen=True)
class Script:
    """What one voice says: `sentences`, each with the pause after it in seconds."""

    voice: str
    language: str
    sentences: tuple[tuple[str, float], ...]


def words(name: str) -> tuple[str, ...]:
    """Faker's words of a locale; Mandarin as numbered pinyin."""
    found: tuple[str, ...] = tuple(importlib.import_module(f"faker.providers.lorem.{name}").Provider.word_list)
    if name == "zh_CN":
        # a neutral tone has no number; espeak-ng calls it 5. ü is v in neither: it reads the letter itself
        found = tuple(" ".join(_numbered(s) for s in lazy_pinyin(w, style=Style.TONE3, v_to_u=True)) for w in found)
    return found


def _numbered(syllable: str) -> str:
    return syllable if syllable[-1:].isdigit() else syllable + "5"


def sentence(generator: np.random.Generator, list_name: str, lists: dict[str, tuple[str, ...]]) -> str:
    """3 to 11 words with a comma now and then."""
    count = int(generator.integers(3, 12))
    if not list_name:
        picked = ["".join(generator.choice(_MORAE, int(generator.integers(2, 5)))) for _ in range(count)]
    else:
        if list_name not in lists:
            lists[list_name] = words(list_name)
        picked = [str(w) for w in generator.choice(lists[list_name], count)]
    return " ".join(w + ("," if generator.random() < 0.12 else "") for w in picked) + "."


def script(generator: np.random.Generator, lists: dict[str, tuple[str, ...]], flite_share: float) -> Script:
    """About half a minute for one voice."""
    if generator.random() < flite_share:
        voice, language, name = f"flite:{generator.choice(FLITE_VOICES)}", "en-us", "en_US"
    else:
        shares = np.array([share for *_, share in LANGUAGES])
        language, name, _ = LANGUAGES[int(generator.choice(len(LANGUAGES), p=shares / shares.sum()))]
        voice = language if generator.random() < 0.15 else f"{language}+{generator.choice(VARIANTS)}"
    pauses = generator.choice([0.0, 0.1, 0.3, 0.6, 1.2], 8, p=[0.3, 0.25, 0.25, 0.15, 0.05])
    count = int(generator.integers(3, 8))
    return Script(voice, language, tuple((sentence(generator, name, lists), float(pauses[k])) for k in range(count)))
