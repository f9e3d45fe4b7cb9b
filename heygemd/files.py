"""The only fsync and rename. Every final name appears at once, whole and durable, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from heygemd.core.errors import DiskFullError, HeygemdError, InputBusyError, ShareAwayError, UnsafePathError
from heygemd.core.heartbeat import beat

TEMP_PREFIX = ".heygemd-"
"""Names of unfinished files. Hidden, and ignored by every scan."""

_RENAME_NOREPLACE = 1
_COPY_CHUNK_BYTES = 4 * 1024 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


def temp_name(target: Path) -> Path:
    """A new hidden name beside `target`."""
    return target.with_name(f"{TEMP_PREFIX}{secrets.token_hex(6)}.part")


def fsync_directory(folder: Path) -> None:
    """Make names in `folder` durable. Network filesystems may refuse: then nothing more can be done."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename within one filesystem. Raises FileExistsError where `target` exists; never overwrites."""
    result = _libc.renameat2(-100, os.fsencode(source), -100, os.fsencode(target), _RENAME_NOREPLACE)
    if result == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), str(target))
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(source), None, str(target))
    # The filesystem (CIFS, some FUSE) knows no RENAME_NOREPLACE: link refuses an existing name as well, for files.
    if source.is_dir() or not _try_link(source, target):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.rename(target)


def _try_link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        return False
    source.unlink()
    return True


def publish_file(temp: Path, target: Path, *, replace: bool = False) -> None:
    """fsync `temp`, give it its final name in the same folder, fsync the folder."""
    fsync_file(temp)
    if replace:
        temp.replace(target)
    else:
        rename_noreplace(temp, target)
    fsync_directory(target.parent)


def write_atomic(target: Path, data: bytes, *, durable: bool = True, mode: int | None = None) -> None:
    """Replace `target` by `data` at once. `durable=False` skips fsync, for files that only inform (status).

    `mode`: permissions, whatever the umask says.
    """
    temp = temp_name(target)
    try:
        with temp.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temp.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    if durable:
        fsync_directory(target.parent)


def write_json(target: Path, data: Any, *, durable: bool = True) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_atomic(target, text.encode(), durable=durable)


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading; follows no link at the last step. Raises UnsafePathError for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise UnsafePathError(f"{path.name} is a symbolic link", path=str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafePathError(f"{path.name} is not a plain file", path=str(path))
    return os.fdopen(fd, "rb")


def copy_hashed(source: BinaryIO, target: Path, *, on_bytes: Callable[[int], None] | None = None) -> str:
    """Copy an open file to the new file `target`, durable; returns the SHA-256 in hex. Removes a part on failure."""
    digest = hashlib.sha256()
    done = 0
    out = target.open("xb")  # outside the try: what stands there already is not ours to remove
    try:
        with out:
            while chunk := source.read(_COPY_CHUNK_BYTES):
                digest.update(chunk)
                out.write(chunk)
                done += len(chunk)
                if on_bytes:
                    on_bytes(done)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_COPY_CHUNK_BYTES):
            digest.update(block)
            beat()
    return digest.hexdigest()


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours with all in it; a link is removed, never followed. Missing is fine."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


_LATER = {errno.EBUSY, errno.EACCES, errno.EPERM, errno.ETXTBSY, errno.EAGAIN}
_AWAY = {errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENODEV, errno.EREMOTEIO}
_AWAY |= {
    errno.EROFS
}  # the kernel makes a disk read-only when it finds it damaged: a reason to wait, as if it were gone
_FULL = {errno.ENOSPC, errno.EDQUOT}


def explain(error: OSError, what: str) -> HeygemdError:
    """The error of ours that an OSError on `what` (a file or folder, in words) means."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return DiskFullError(f"{what}: {reason}")
    if error.errno in _AWAY:
        return ShareAwayError(f"{what}: {reason}")
    if error.errno in _LATER:
        return InputBusyError(f"{what}: {reason}")
    return HeygemdError(f"{what}: {reason}")


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an OSError inside the block into the error of ours that it means."""
    try:
        yield
    except OSError as error:
        raise explain(error, what) from error
