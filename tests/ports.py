"""Ports for servers that must be told theirs before they listen."""

from __future__ import annotations

import os
import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below what the kernel gives to whoever asks for any port (ip_local_port_range begins at 32768), and above what Ray
takes for its workers (10002 to 19999): between our look and the server's, nobody is given it by chance."""

_order = list(range(_FIRST, _LAST))
random.Random(os.getpid()).shuffle(_order)  # another one in each of pytest's processes


def free_port() -> int:
    """One that nobody listens on, and that this process has not been given before."""
    while True:
        port = _order.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
