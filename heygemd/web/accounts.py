"""Names and passwords for `web.auth = "basic"`: one line a user, `name:scrypt:…`; never a password itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from heygemd.core.errors import ConfigError, UsageError
from heygemd.files import write_atomic

_N, _R, _P = 2**14, 8, 1  # 16 MiB and about 50 ms: RFC 7914's interactive parameters
_MEMORY_BYTES = 64 << 20
SHORTEST_PASSWORD = 10
_REMEMBER_SECONDS = 600.0
_FREE_FAILURES = 10
_FAILURE_SECONDS = 60.0
_CLEAN_SIZE = 4096


def hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    return ":".join(("scrypt", base64.b64encode(salt).decode(), base64.b64encode(_scrypt(password, salt)).decode()))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY_BYTES)


def _matches(password: str, entry: str) -> bool:
    _, salt, wanted = entry.split(":")
    return hmac.compare_digest(_scrypt(password, base64.b64decode(salt)), base64.b64decode(wanted))


def check_name(name: str) -> str:
    """Raises UsageError for a name that no browser or file could carry."""
    if not name or len(name) > 100 or ":" in name or name != name.strip() or not name.isprintable():
        raise UsageError(f"{name!r} cannot be a user's name", remedy="Use letters and digits, without a colon.")
    return name


def add_user(path: Path, name: str, password: str) -> bool:
    """Add a user or give a new password; False when the name was there. Raises UsageError, ConfigError."""
    check_name(name)
    if len(password) < SHORTEST_PASSWORD:
        raise UsageError(f"the password is shorter than {SHORTEST_PASSWORD} characters", remedy="Take a longer one.")
    users = _read(path) if path.exists() else {}
    new = name not in users
    users[name] = hashed(password)
    write_atomic(path, "".join(f"{n}:{entry}\n" for n, entry in sorted(users.items())).encode())
    path.chmod(0o600)
    return new


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"web.users_file {path}: cannot be read: {error}", path=str(path)) from None
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, entry = line.partition(":")
        if entry.count(":") != 2 or not entry.startswith("scrypt:"):
            raise ConfigError(
                f"web.users_file {path}: line {number} is not name:scrypt:salt:hash",
                remedy="Make it with `heygemd web --add-user NAME`.",
                path=str(path),
            )
        users[name] = entry
    return users


class TooManyTriesError(Exception):
    """This address failed too often of late."""


@dataclass
class Accounts:
    """Checks names and passwords; the file is read again when it changes. Used from several threads."""

    path: Path
    _users: dict[str, str] = field(default_factory=dict, repr=False)
    _stamp: tuple[int, int] = (0, 0)
    _known: dict[bytes, float] = field(default_factory=dict, repr=False)  # of a right password, until when
    _failures: dict[str, list[float]] = field(default_factory=dict)
    _salt: bytes = field(default_factory=lambda: os.urandom(16), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _nobody: str = field(default_factory=lambda: hashed(secrets.token_hex(8)), repr=False)

    def load(self) -> None:
        """Raises ConfigError."""
        if not self.path.exists():
            raise ConfigError(
                f"web.auth is basic, but there is no file {self.path}",
                remedy="Add a user: `heygemd web --add-user NAME`.",
                path=str(self.path),
            )
        found = self.path.stat()
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp != self._stamp:
            self._users, self._stamp = _read(self.path), stamp
            self._known.clear()

    def right(self, name: str, password: str, peer: str) -> bool:
        """Whether the password is the user's. Raises TooManyTriesError, ConfigError."""
        now = time.monotonic()
        token = hmac.digest(self._salt, f"{name}\0{password}".encode("utf-8", "surrogatepass"), "sha256")
        with self._lock:
            self.load()
            if self._known.get(token, 0.0) > now:
                return True
            late = [at for at in self._failures.get(peer, ()) if now - at < _FAILURE_SECONDS]
            if len(late) >= _FREE_FAILURES:
                raise TooManyTriesError
            # An unknown name takes as long as a wrong password: the clock must not tell who is here.
            entry = self._users.get(name)
            good = _matches(password, entry or self._nobody) and entry is not None
            if good:
                self._known[token] = now + _REMEMBER_SECONDS
                self._failures.pop(peer, None)
            else:
                if len(self._failures) > _CLEAN_SIZE:
                    self._failures.clear()
                self._failures[peer] = [*late, now]
            return good
