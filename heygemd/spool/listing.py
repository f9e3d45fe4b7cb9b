"""One pass over the inbox: every name and its status, nothing opened but folders, no link followed."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field

from heygemd.core.job import InputFile
from heygemd.failpoints import failpoint
from heygemd.spool.documents import PRESET_NAME
from heygemd.spool.drops import Ignored
from heygemd.spool.ignore import Ignore

MAX_DEPTH = 16
MAX_FILES = 200_000
IS_LINK = "a symbolic link; links are not followed"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Seen:
    """A plain file as the scan saw it. `path`: relative to the inbox; `folder`: "" for the top."""

    path: str
    folder: str
    name: str
    size: int
    mtime_ns: int
    device: int
    inode: int
    links: int = 1

    @property
    def signature(self) -> tuple[int, int, int, int]:
        """Changes whenever somebody writes to the file, replaces it or gives it another name."""
        return (self.size, self.mtime_ns, self.inode, self.links)

    @property
    def claim(self) -> tuple[str, int, int]:
        return (self.path, self.size, self.mtime_ns)

    def as_input(self, role: str, sha256: str | None = None) -> InputFile:
        return InputFile(self.path, role, self.size, self.mtime_ns, self.device, self.inode, sha256)


@dataclass
class Listing:
    files: dict[str, Seen] = field(default_factory=dict)
    presets: dict[str, Seen] = field(default_factory=dict)  # folder → its .heygemd.toml
    ignored: dict[str, str] = field(default_factory=dict)
    unreadable: list[Ignored] = field(default_factory=list)
    truncated: bool = False


def list_inbox(root: os.PathLike[str], ignore: Ignore, max_files: int = MAX_FILES) -> Listing:
    """List everything below `root`. Raises OSError when `root` itself cannot be listed."""
    listing = Listing()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _list(fd, "", 0, listing, ignore, max_files)
    finally:
        os.close(fd)
    return listing


def _list(fd: int, folder: str, depth: int, listing: Listing, ignore: Ignore, max_files: int) -> None:
    """Folders are entered through their parent's descriptor: nobody can swap one for a link meanwhile."""
    failpoint("scan.list")
    folders = []
    with os.scandir(fd) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                listing.ignored[path] = "its name is not UTF-8; rename it"
                continue
            why = ignore.why_ignored(entry.name)
            if why is not None and entry.name != PRESET_NAME:
                listing.ignored[path] = why
            elif entry.is_symlink():
                listing.ignored[path] = IS_LINK
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                _file(entry, path, folder, listing)
            if len(listing.files) + len(listing.ignored) >= max_files:
                listing.truncated = True
                return
    for name in sorted(folders):
        path = f"{folder}/{name}" if folder else name
        if depth + 1 >= MAX_DEPTH:
            listing.ignored[path] = f"deeper than {MAX_DEPTH} folders"
            continue
        try:
            inner = os.open(name, _FOLDER, dir_fd=fd)
        except OSError as error:
            _note(error, path, listing)
            continue
        try:
            _list(inner, path, depth + 1, listing, ignore, max_files)
        except OSError as error:
            _note(error, path, listing)
        finally:
            os.close(inner)
        if listing.truncated:
            return


def _file(entry: os.DirEntry[str], path: str, folder: str, listing: Listing) -> None:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError as error:
        _note(error, path, listing)
        return
    if not stat.S_ISREG(found.st_mode):
        listing.ignored[path] = "not a plain file"
        return
    seen = Seen(path, folder, entry.name, found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino, found.st_nlink)
    if entry.name == PRESET_NAME:
        listing.presets[folder] = seen
    else:
        listing.files[path] = seen


def _note(error: OSError, path: str, listing: Listing) -> None:
    """What vanished between two looks is no trouble; the rest is tried again by the next scan."""
    if error.errno in (errno.ELOOP, errno.EMLINK):
        listing.ignored[path] = IS_LINK
    elif error.errno not in _GONE:
        listing.unreadable.append(Ignored(path, os.strerror(error.errno or 0)))
