"""What the page says no to, and how errors of ours reach a browser: no path of this machine in any of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from heygemd.core.errors import BadInputError, HeygemdError, TryLaterError


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """An answer other than success. `key` names the sentence in texts/*.json; `values` fill it."""

    def __init__(self, status: int, key: str, **values: Any) -> None:
        super().__init__(key)
        self.status = status
        self.key = key
        self.values = values
        self.headers: dict[str, str] = {}


# An absolute path of two or more parts, after whatever may stand before one in a sentence.
_PATH = re.compile(r"(?<![\w./:-])/(?:[^\s/'\",;()]+/)+([^\s/'\",;:()]*)")


class Discretion:
    """Takes this machine's paths out of texts: of the share's what lies below stays, of others the last part."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = sorted({str(root) for root in roots}, key=len, reverse=True)

    def text(self, words: str) -> str:
        for root in self._roots:
            words = words.replace(root + "/", "").replace(root, "the server")
        return _PATH.sub(lambda found: found[1] or "a folder", words)

    def tree(self, value: Any) -> Any:
        """The same for every text in a JSON-like value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.tree(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(inner) for inner in value]
        return value


def status_of(error: HeygemdError) -> int:
    """The HTTP status that an error of ours means."""
    if isinstance(error, BadInputError):
        return 422
    return 503 if isinstance(error, TryLaterError) else 500
