"""Files below a folder that strangers may write to: reached step by step, through no link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from heygemd.core.errors import UnsafePathError
from heygemd.files import copy_hashed, fsync_directory, open_regular, rename_noreplace, temp_name
from heygemd.spool.names import shown

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def split(relative: str) -> tuple[list[str], str]:
    """Folders and last name of a relative POSIX path. Raises UnsafePathError for one that could climb."""
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\x00" in part for part in parts):
        raise UnsafePathError(f"{shown(relative)} is not a plain path below its folder", path=relative)
    return parts[:-1], parts[-1]


@contextlib.contextmanager
def held_parent(root: Path, relative: str, *, make: bool = False) -> Iterator[Path]:
    """A path to `relative` that goes through an open descriptor of its folder: nobody can swap a part of it for a link.

    `make`: missing folders are made. Raises UnsafePathError where a folder on the way is a link.
    """
    folders, name = split(relative)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the root itself is the operator's: may be a link
    try:
        for folder in folders:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=fd)
            try:
                inner = os.open(folder, _FOLDER, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EMLINK) or (error.errno == errno.ENOTDIR and _link(folder, fd)):
                    raise UnsafePathError(
                        f"{shown(relative)}: the folder {shown(folder)} is a symbolic link", path=relative
                    ) from None
                raise
            os.close(fd)
            fd = inner
        yield Path(f"/proc/self/fd/{fd}") / name
    finally:
        os.close(fd)


def _link(name: str, fd: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def open_beneath(root: Path, relative: str) -> BinaryIO:
    """Open a plain file below `root`. Raises OSError, or UnsafePathError for links and anything that is not a file."""
    with held_parent(root, relative) as held:
        return open_regular(held)


def lstat_beneath(root: Path, relative: str) -> os.stat_result | None:
    """The file's own status, or None where it is not there. Raises UnsafePathError where a folder is a link."""
    try:
        with held_parent(root, relative) as held:
            return os.lstat(held)
    except (FileNotFoundError, NotADirectoryError):
        return None


def move_file(source: Path, target: Path) -> None:
    """Rename without overwriting, durable on both sides; across filesystems: copy, then remove.

    Raises FileExistsError where `target` exists.
    """
    try:
        rename_noreplace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temp = temp_name(target)
        with open_regular(source) as file:
            copy_hashed(file, temp)
        try:
            rename_noreplace(temp, target)
        except OSError:
            temp.unlink()
            raise
        source.unlink()
    fsync_directory(target.parent)
    fsync_directory(source.parent)
