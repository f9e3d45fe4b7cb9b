"""A worker's sign of life, given by the work itself wherever it goes round: what hangs gives none.

Long work lies deep (hours of speech are listened to in one call), and most of it runs without a worker, too: on the
command line and in tests nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable


def _unheard() -> None:
    pass


_listener: Callable[[], None] = _unheard


def beat() -> None:
    """Something was done. Cheap; call it at least every few seconds. From any thread."""
    _listener()


def listen(listener: Callable[[], None] | None) -> None:
    """Who hears of it in this process; None: nobody."""
    global _listener
    _listener = listener or _unheard
