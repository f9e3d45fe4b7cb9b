"""What the page keeps to itself in STATE/web: the key that signs sessions and links, and what is signed with it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from heygemd.files import explained, fsync_directory

_KEY_BYTES = 32


def private_folder(state: Path) -> Path:
    """STATE/web, for this user alone."""
    folder = state / "web"
    with explained("the web page's own folder"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def load_key(folder: Path) -> bytes:
    """The key, made on first use. Deleting the file ends every session and every link."""
    path = folder / "key"
    with explained("the web page's key"):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(fd, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            fsync_directory(folder)
        key = path.read_bytes()
    if len(key) < _KEY_BYTES:  # a crash between the two: nothing was signed with it
        path.unlink()
        return load_key(folder)
    return key


class Signer:
    """Short signed texts. `purpose` keeps a session from being taken for a link."""

    def __init__(self, key: bytes, purpose: str) -> None:
        self._key = hmac.digest(key, purpose.encode(), "sha256")

    def sign(self, value: str) -> str:
        return f"{value}.{self._mac(value)}"

    def check(self, text: str) -> str | None:
        """The value, or None where the signature is not ours."""
        value, dot, mac = text.rpartition(".")
        if dot and hmac.compare_digest(mac.encode(), self._mac(value).encode()):
            return value
        return None

    def pack(self, values: dict[str, Any]) -> str:
        """A dict as one word that fits into an address."""
        data = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
        return self.sign(base64.urlsafe_b64encode(data).decode().rstrip("="))

    def unpack(self, text: str) -> dict[str, Any] | None:
        value = self.check(text)
        if value is None:
            return None
        try:
            found = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
        except (binascii.Error, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _mac(self, value: str) -> str:
        mac = hmac.digest(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return base64.urlsafe_b64encode(mac[:18]).decode()
