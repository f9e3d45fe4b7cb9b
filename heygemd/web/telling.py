"""Errors in the reader's words: what is wrong, what to do about it on a page, and what the daemon said, word for word.

texts/*.json has `error.<code>` and `todo.<code>` for every code, and closer sentences with the numbers and names of the
case: `error.<code>.<case>` where the error's details name one, `.file` or `.video` where a name is all that is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heygemd.web.texts import say, texts

_PLACE = re.compile(r"\{(\w+)\}")
_UNITS = ("B", "kB", "MB", "GB", "TB")
_LONGEST_NAME = 200


def told(
    language: str, error: Mapping[str, Any], values: Mapping[str, str | None], *, for_operators: bool = False
) -> dict[str, str]:
    """`error` as HeygemdError.to_dict made it, without this machine's paths; `values`: names that the reader knows
    things by (`file`, `video`). Has `code`, `message`, `remedy`, `details`."""
    code = str(error.get("code") or "")
    details = error.get("details")
    known = {**(details if isinstance(details, dict) else {}), **values}
    shown = {name: words for name, value in known.items() if (words := in_words(language, name, value)) is not None}
    remedies = ("operators.todo", "todo") if for_operators else ("todo",)
    return {
        "code": code,
        "message": _closest(language, ("error",), code, known.get("case"), shown),
        "remedy": _closest(language, remedies, code, known.get("case"), shown),
        "details": f"{code} · {error.get('message') or ''}",
    }


def _closest(language: str, families: tuple[str, ...], code: str, case: object, shown: Mapping[str, str | None]) -> str:
    """The sentence that says most of what is known. A code that this page has not heard of is anybody's."""
    sentences = texts(language)
    for family in families:
        for key in (f"{family}.{code}.{case}", f"{family}.{code}.video", f"{family}.{code}.file", f"{family}.{code}"):
            if key in sentences and shown.keys() >= set(_PLACE.findall(sentences[key])):
                return say(language, key, **shown)
    return say(language, f"{families[-1]}.HG-0000")


def in_words(language: str, name: str, value: object) -> str | None:
    """A value by its name's unit: `limit_bytes` as 20 GB, `seconds` as 3 min 5 s. None for no number and no name."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    if isinstance(value, str):
        key = f"state.{value}"
        return say(language, key) if name == "state" and key in texts(language) else value[:_LONGEST_NAME]
    if re.search(r"(^|_)bytes$", name):
        return size(value)
    if re.search(r"(^|_)seconds$", name):
        return duration(language, value)
    return f"{value:,}"


def all_in_words(language: str, values: Mapping[str, object]) -> dict[str, str]:
    return {name: in_words(language, name, value) or "" for name, value in values.items()}


def size(num_bytes: float) -> str:
    """20 GB, 1.5 MB: as the page's scripts write it."""
    units: Iterator[str] = iter(_UNITS)
    unit = next(units)
    while num_bytes >= 999.5 and unit != _UNITS[-1]:
        num_bytes /= 1000
        unit = next(units)
    text = f"{num_bytes:.1f}".removesuffix(".0") if num_bytes < 9.95 and unit != "B" else f"{num_bytes:,.0f}"
    return f"{text} {unit}"


def duration(language: str, seconds: float) -> str:
    """0.03 s, 12 s, 3 min 5 s, 2 h."""
    if seconds < 9.95:
        return say(language, "time.seconds", s=f"{seconds:.2g}")
    whole = round(seconds)
    minutes, s = divmod(whole, 60)
    h, m = divmod(minutes, 60)
    if not minutes:
        return say(language, "time.seconds", s=s)
    if h:
        return say(language, "time.hours", h=h, m=m) if m else say(language, "time.whole_hours", h=h)
    return say(language, "time.minutes", m=m, s=s) if s else say(language, "time.whole_minutes", m=m)
