"""Whether some process of this machine still has a file open for writing: a Samba server, `cp`, a browser.

A read lease (fcntl(2), F_SETLEASE) is granted only where nobody writes; it is given back at once. Size and time cannot
tell an upload that pauses from a finished one; an open handle can. What writes on another host is not seen here, and
NFS and CIFS refuse leases for reasons of their own: only local filesystems are asked.
"""

from __future__ import annotations

import errno
import fcntl
import signal
from collections.abc import Sequence
from pathlib import Path

from heygemd.core.errors import UnsafePathError
from heygemd.core.job import InputFile
from heygemd.spool.beneath import open_beneath
from heygemd.spool.drops import Why
from heygemd.spool.mounts import fs_type
from heygemd.spool.names import shown

_TELLS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs", "zfs", "tmpfs", "overlay"}
_F_SETSIG = 10  # fcntl.h; not in Python's module
_NOT_NOW = {errno.EAGAIN, errno.EBUSY}


def knows_writers(folder: Path) -> bool:
    """Whether the filesystem of `folder` tells about open handles."""
    return fs_type(folder) in _TELLS


def being_written(root: Path, relative: str) -> bool:
    """True only where it is known. Raises OSError and UnsafePathError as `open_beneath` does."""
    try:
        file = open_beneath(root, relative)
    except OSError as error:
        if error.errno in _NOT_NOW:  # the other side holds a lease of its own (kernel oplocks)
            return True
        raise
    with file:
        fd = file.fileno()
        try:
            # Whoever opens the file while we hold the lease makes the kernel signal us: with SIGIO that would be the
            # end of the process, SIGURG is ignored unless somebody asks for it.
            fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError as error:
            # EACCES: another user's file without CAP_LEASE; EINVAL, ENOLCK: a filesystem without leases. Not known.
            return error.errno in _NOT_NOW
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def obstacle(inbox: Path, inputs: Sequence[InputFile]) -> tuple[Why, str] | None:
    """Why a complete group cannot be taken now, in words: one of its files is open for writing, or not ours to read."""
    for file in inputs:
        try:
            written = being_written(inbox, file.path)
        except PermissionError:
            return Why.DENIED, denied(file.path)
        except (OSError, UnsafePathError):
            written = False  # it changed this moment: staging looks closer
        if written:
            return Why.BUSY, f"{shown(file.path)} is still open for writing"
    return None


def denied(path: str) -> str:
    return f"{shown(path)}: the daemon may not read it"
