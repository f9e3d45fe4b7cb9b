"""The page's sentences, by language. texts/<language>.json; a test keeps their keys in step."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "zh")
LANGUAGE_TAGS = {"en": "en", "zh": "zh-Hans"}
"""For the attribute `lang`."""
DEFAULT = "en"
DAEMONS_OWN = "en"
"""What errors and logs are written in."""
COOKIE = "heygemd_language"
_FOLDER = Path(__file__).parent / "texts"


@cache
def texts(language: str) -> dict[str, str]:
    """Every sentence; {name} stands for a value."""
    found: dict[str, str] = json.loads((_FOLDER / f"{language}.json").read_text("utf-8"))
    return found


def say(language: str, key: str, **values: object) -> str:
    """One sentence. A value that is missing stays {name}."""
    text = texts(language)[key]
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def choose(cookie: str | None, accept: str) -> str:
    """The language for a browser: what it was set to here, else what it prefers, else English."""
    if cookie in LANGUAGES:
        return str(cookie)
    ranked = []
    for number, part in enumerate(accept.split(",")[:20]):
        tag, _, more = part.strip().partition(";")
        try:
            weight = float(more.strip().removeprefix("q=")) if more else 1.0
        except ValueError:
            continue
        ranked.append((-weight, number, tag.strip().lower().partition("-")[0]))
    return next((tag for weight, _, tag in sorted(ranked) if tag in LANGUAGES and weight < 0), DEFAULT)
