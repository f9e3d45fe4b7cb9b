"""Whose hands a command works with. Root's files in the state folder would lock the service out of it."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import heygemd
from heygemd.core.errors import UsageError


def become_service_user(state: Path) -> str | None:
    """Root becomes the owner of the state folder, for good; the name, or None where nothing had to change.

    So `sudo heygemd status` beside a stopped service leaves no journal, lock or request of root's behind, and
    `sudo heygemd doctor` sees the share as the service does. Raises UsageError where that user could not go on,
    because our own files are closed to him.
    """
    if os.geteuid() != 0 or not state.is_dir():
        return None
    owner = state.stat()
    if owner.st_uid == 0:
        return None
    try:
        entry = pwd.getpwuid(owner.st_uid)
    except KeyError:  # a number without a name, as in containers
        name, home, group = str(owner.st_uid), str(state), owner.st_gid
        _require_readable(name)
        os.setgroups([])
    else:
        name, home, group = entry.pw_name, entry.pw_dir, entry.pw_gid
        _require_readable(name)
        os.initgroups(name, group)
    os.setgid(group)
    os.setuid(owner.st_uid)
    os.environ |= {"HOME": home, "USER": name, "LOGNAME": name}
    os.umask(0o007)  # as the unit's: the share's group reads what we make
    return name


def _require_readable(name: str) -> None:
    """The interpreter's files and ours, judged by what everybody may do."""
    for file in (Path(os.__file__).resolve(), Path(heygemd.__file__).resolve()):
        for part in (*reversed(file.parents), file):
            if not part.stat().st_mode & (stat.S_IROTH if part == file else stat.S_IXOTH):
                raise UsageError(
                    f"the state folder is {name}'s, and {name} may not read {part}",
                    remedy="Use the installed command (/usr/local/bin/heygemd), or a --state of your own.",
                )
