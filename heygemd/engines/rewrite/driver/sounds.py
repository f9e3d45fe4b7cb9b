"""What each speech sound does to the mouth, and how a phone's name is read.

`opening` is what a sound pulls towards, in units of a speaker's own deviation around their mean, before its neighbours
pull back: open vowels far up, s and i near the middle, rounded vowels nearly closed, pauses not closed. docs/driver.md
says where the numbers come from.
Phones come as espeak-ng mnemonics (its Kirshenbaum-like ASCII, any of its languages), as IPA, or as ARPAbet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sound:
    """One articulation. `opening`: standardised; `width`: -1 rounded … 1 spread; `teeth`: 0…1; `closed`: lips pressed.

    `open_weight` and `width_weight` say how much the sound insists on its place against its neighbours: a bilabial
    insists on closure, k takes the shape of the vowel beside it.
    """

    opening: float
    width: float
    teeth: float
    open_weight: float = 1.0
    width_weight: float = 1.0
    closed: bool = False
    vowel: bool = False
    voiceless_stop: bool = False
    pause: bool = False


def _vowel(opening: float, width: float, teeth: float, weight: float = 1.0) -> Sound:
    return Sound(opening, width, teeth, weight, 1.0 if width < -0.3 else 0.8, vowel=True)


SOUNDS: dict[str, Sound] = {
    "a": _vowel(1.20, 0.20, 0.45),
    "ae": _vowel(0.90, 0.70, 0.55),
    "wedge": _vowel(0.30, 0.00, 0.45),
    "schwa": _vowel(0.10, 0.00, 0.40, 0.6),
    "er": _vowel(-0.30, -0.60, 0.40, 0.8),
    "e": _vowel(0.55, 0.55, 0.60),
    "ih": _vowel(0.12, 0.50, 0.60, 0.8),
    "i": _vowel(0.20, 0.55, 0.75),
    "ii": _vowel(0.10, 0.20, 0.60, 0.8),  # central and apical i, Mandarin's shi and si
    "aw": _vowel(0.15, -0.65, 0.25),
    "o": _vowel(-0.25, -0.85, 0.15),
    "oe": _vowel(-0.15, -0.70, 0.20),
    "u": _vowel(-0.45, -1.00, 0.08),
    "uh": _vowel(-0.20, -0.65, 0.15, 0.8),
    "y": _vowel(-0.40, -0.95, 0.10),
    "w": Sound(-0.90, -1.15, 0.05, 1.0, 1.2),
    "wy": Sound(-0.70, -0.95, 0.05, 1.0, 1.0),
    "j": Sound(0.00, 0.35, 0.65, 0.7, 0.6),
    "r": Sound(-0.35, -0.75, 0.40, 0.8, 0.8),
    "rr": Sound(0.00, 0.00, 0.50, 0.4, 0.2),
    "l": Sound(0.05, -0.15, 0.55, 0.6, 0.4),
    "t": Sound(0.00, 0.35, 0.65, 0.6, 0.5),
    "n": Sound(-0.10, 0.30, 0.60, 0.6, 0.5),
    "s": Sound(0.10, 0.40, 1.00, 0.9, 0.7),
    "sh": Sound(0.25, -0.40, 1.00, 0.9, 0.8),
    "srt": Sound(0.15, -0.15, 0.95, 0.9, 0.6),  # retroflex s
    "spal": Sound(0.15, 0.35, 1.00, 0.9, 0.6),  # alveolo-palatal s
    "th": Sound(0.10, 0.40, 0.85, 0.8, 0.6),
    "f": Sound(-0.85, 0.15, 0.85, 1.4, 0.5),
    "m": Sound(-1.30, -0.25, 0.00, 1.6, 0.5, closed=True),
    "b": Sound(-1.30, -0.25, 0.00, 1.6, 0.5, closed=True),
    "p": Sound(-1.30, -0.15, 0.00, 1.6, 0.5, closed=True, voiceless_stop=True),
    "bv": Sound(-0.60, -0.20, 0.20, 1.2, 0.4),  # lips approach without closing: Spanish b between vowels
    "k": Sound(0.00, 0.15, 0.45, 0.5, 0.3),
    "x": Sound(0.10, 0.10, 0.45, 0.5, 0.3),
    "h": Sound(0.35, 0.30, 0.40, 0.4, 0.3),
    "pause": Sound(-0.05, 0.15, 0.10, 0.6, 0.5, pause=True),
}

BREATH = Sound(0.50, 0.15, 0.10, 0.6, 0.5, pause=True)
"""Heard, never written: air is drawn in through an open mouth."""

CLOSED_OPENING = -1.0
"""The standardised opening at which the lips touch."""

_SYMBOLS: dict[str, str] = {
    # espeak-ng mnemonics and IPA, one character a sound; where the two disagree espeak's meaning stands
    **dict.fromkeys("aAɑɐäå", "a"),
    **dict.fromkeys("&æ", "ae"),
    **dict.fromkeys("Vʌ", "wedge"),
    **dict.fromkeys("@əɘ", "schwa"),
    **dict.fromkeys("3ɜɝɚ", "er"),
    **dict.fromkeys("eEɛ", "e"),
    **dict.fromkeys("Iɪ", "ih"),
    **dict.fromkeys("i", "i"),
    **dict.fromkeys("ɨɯɿʅ", "ii"),
    **dict.fromkeys("O0ɔɒ", "aw"),
    **dict.fromkeys("o8ɵɤ", "o"),
    **dict.fromkeys("YWøœɞɶ", "oe"),
    **dict.fromkeys("uʉ", "u"),
    **dict.fromkeys("Uʊ", "uh"),
    **dict.fromkeys("yʏ", "y"),
    **dict.fromkeys("wʍ", "w"),
    **dict.fromkeys("ɥ", "wy"),
    **dict.fromkeys("jʝʎɲJɟ", "j"),
    **dict.fromkeys("ɹɻ", "r"),
    **dict.fromkeys("rR*ɾʀʁɽ", "rr"),
    **dict.fromkeys("lLɫɭɬɮ", "l"),
    **dict.fromkeys("tdʈɖ", "t"),
    **dict.fromkeys("nɳ", "n"),
    **dict.fromkeys("sz", "s"),
    **dict.fromkeys("SZʃʒ", "sh"),
    **dict.fromkeys("ʂʐ", "srt"),
    **dict.fromkeys("ɕʑ", "spal"),
    **dict.fromkeys("TDθð", "th"),
    **dict.fromkeys("fFvʋɱ", "f"),
    **dict.fromkeys("mM", "m"),
    **dict.fromkeys("bɓ", "b"),
    **dict.fromkeys("p", "p"),
    **dict.fromkeys("Bβɸ", "bv"),
    **dict.fromkeys("kgɡqGcNŋɴɠʛɢ", "k"),
    **dict.fromkeys("xXQχɣCçɰ", "x"),
    **dict.fromkeys("hHɦħʕʔ?", "h"),
    **dict.fromkeys("_ ", "pause"),
}

_MODIFIED: dict[str, str] = {
    # espeak-ng writes some sounds as a letter with a mark
    "i.": "ii",
    "i[": "ii",
    "s.": "srt",
    "z.": "srt",
    "S;": "spal",
    "Z;": "spal",
    "s;": "spal",
    "z;": "spal",
    "n^": "n",
    "l^": "l",
    "u-": "ii",  # unrounded, as in Korean
    'u"': "u",
    'o"': "oe",
    "@r": "er",
    "sx": "sh",
}

_WHOLE: dict[str, tuple[str, ...]] = {
    # names that the reading letter by letter would get wrong
    "ong": ("o", "k"),
    "iong": ("wy", "o", "k"),
    "iou": ("j", "o", "uh"),
    "uei": ("w", "e", "i"),
    "ph": ("p",),
    "hw": ("w",),
    "3:": ("er",),
    "yE": ("wy", "e"),
    "y&": ("wy", "ae"),
    "ua": ("w", "a"),
    "uo": ("w", "o"),
}

_ARPABET_WORDS = """
AA a; AE ae; AH wedge; AO aw; AW a uh; AY a ih; B b; CH t sh; D t; DH th; EH e; ER er; EY e i; F f; G k; HH h; IH ih;
IY i; JH t sh; K k; L l; M m; N n; NG k; OW o uh; OY o i; P p; R r; S s; SH sh; T t; TH th; UH uh; UW u; V f; W w; Y j;
Z s; ZH sh
"""
_ARPABET = {name: tuple(rest) for name, *rest in (entry.split() for entry in _ARPABET_WORDS.split(";"))}


def sounds_of_arpabet(symbol: str) -> tuple[str, ...]:
    """Names in SOUNDS, in order. Silence, noise marks and unknown symbols are pauses."""
    return _ARPABET.get(symbol.rstrip("012"), ("pause",))


def sounds_of(symbol: str, language: str | None = None) -> tuple[str, ...]:
    """Names in SOUNDS that an espeak-ng mnemonic or IPA symbol stands for, in order; empty for marks without sound.

    Stress, length, tone and other marks are skipped; an unknown letter counts as a weak consonant.
    """
    symbol = symbol.strip("',%=|`^-!ˈˌ")
    if symbol in ("", ":", ";", "ː"):
        return ()
    if symbol.startswith("("):  # espeak-ng announces a change of language: (en)
        return ()
    if symbol[0] == "_" or symbol.isspace():
        return ("pause",)
    bare = symbol.rstrip("0123456789:ː~̃") or symbol
    if bare in _WHOLE:
        return _WHOLE[bare]
    english = language is None or language.lower().startswith("en")
    found: list[str] = []
    i = 0
    while i < len(symbol):
        char, pair = symbol[i], symbol[i : i + 2]
        if pair in _MODIFIED:
            found.append(_MODIFIED[pair])
            i += 2
            continue
        name = _SYMBOLS.get(char)
        if i > 0 and (char.isdigit() or (char == "h" and found)):
            name = None  # a tone or variant number; aspiration
        if char == "r" and english:
            name = "r"
        if name is None and i == 0 and char.isalpha():
            name = "x"
        if name is not None:
            found.append(name)
        i += 1
    return tuple(found)
