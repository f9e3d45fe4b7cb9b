"""Names that users choose: shown safely, made safe as folder names, made unique."""

from __future__ import annotations

import unicodedata
from collections.abc import Container

MAX_NAME_BYTES = 100
"""Leaves room for counters and suffixes within the 255 bytes of a file name."""

_JOINERS = "\u200c\u200d"  # invisible, but part of emoji and of several scripts


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def shown(text: str, limit: int = 300) -> str:
    """`text` on one line: control characters, line breaks and direction overrides are escaped, long ones cut."""
    safe = "".join(
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def cut_bytes(text: str, limit: int) -> str:
    """The longest start of `text` that has at most `limit` bytes in UTF-8 and ends with a whole character."""
    return text.encode()[:limit].decode(errors="ignore")


def safe_name(stem: str) -> str:
    """A name for folders and result files from a dropped file's stem.

    NFC; control characters, separators and what no encoding can hold become `_`; no trailing dots or spaces (Windows
    clients cannot open those); a leading `.` or `-` gets a `_` before it; at most MAX_NAME_BYTES; never empty.
    """
    text = "".join("_" if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "/\\" else c for c in nfc(stem))
    text = text.lstrip(" ")
    if text.startswith((".", "-")):
        text = "_" + text
    return cut_bytes(text, MAX_NAME_BYTES).rstrip(". ") or "job"


def fold(name: str) -> str:
    """The form in which names are compared: SMB clients see no difference of case or composition."""
    return nfc(nfc(name).casefold())


def unique_name(base: str, taken: Container[str]) -> str:
    """`base`, or `base-2`, `base-3`, …: one whose `fold` is not in `taken` (which holds folded names).

    The smallest free counter as a rule; found in few steps however many are taken (ten thousand folders may each
    hold a `lecture.mp4`).
    """
    if fold(base) not in taken:
        return base
    low, high = 1, 2  # `low` is taken, `high` is what we try
    while fold(_counted(base, high)) in taken:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if fold(_counted(base, middle)) in taken:
            low = middle
        else:
            high = middle
    return _counted(base, high)


def _counted(base: str, count: int) -> str:
    ending = f"-{count}"
    return cut_bytes(base, MAX_NAME_BYTES - len(ending)).rstrip(". ") + ending
