"""The share and the state folder: can they do what crash safety rests on?"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from heygemd.cli.checks import Finding, Level
from heygemd.config import Settings
from heygemd.core.errors import HeygemdError
from heygemd.files import temp_name
from heygemd.spool.layout import SHARE_FOLDERS, Layout
from heygemd.spool.mounts import fs_type, is_network, is_read_only

_SKEW_WARN_SECONDS = 2.0
_SKEW_FAIL_SECONDS = 3600.0


def check_share(settings: Settings) -> Iterator[Finding]:
    """Filesystem, permissions, rename, fsync, clock and room of the share; then the state folder."""
    layout = Layout(settings.root, settings.state)
    if not layout.root.is_dir():
        yield Finding(
            "share", "fail", f"{layout.root}: there is no such folder", "Mount the share, or name another with --root."
        )
    else:
        yield from _identity(layout)
        kind = fs_type(layout.root)
        watched = "polled, since other hosts' writes are not announced" if is_network(kind) else "watched by inotify"
        yield Finding("share", "ok", f"{layout.root} is on {kind or 'an unknown filesystem'}: {watched}")
        for name in SHARE_FOLDERS:
            yield from _folder(layout.root / name)
        probe = layout.inbox if layout.inbox.is_dir() else layout.root
        yield from _abilities(probe, layout)
        yield from _room("share", layout.root, settings.service.min_free_share_bytes)
    yield from _state(layout, settings)


def _identity(layout: Layout) -> Iterator[Finding]:
    if not layout.sentinel.exists():
        yield Finding(
            "share",
            "warn",
            f"{layout.root} has not been used by heygemd yet ({layout.sentinel.name} is missing)",
            "The first start makes it. If the share was used before, it is not mounted.",
        )
        return
    try:
        layout.check_share()
    except HeygemdError as error:
        yield Finding("share", "fail", error.message, error.remedy)


def _folder(path: Path) -> Iterator[Finding]:
    if not path.is_dir():
        yield Finding("share", "warn", f"{path} is missing", "The daemon makes it when it starts.")
        return
    if is_read_only(path):
        yield Finding(
            "share",
            "fail",
            f"{path} is mounted read-only",
            "Mount it writable. Did the kernel do it, for an error of the disk? journalctl -k",
        )
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            "share", "fail", f"{path} may not be written by {_me()}", "Give the service's user or group write access."
        )
        return
    mode = path.stat().st_mode
    if path.name == "inbox" and mode & stat.S_IWGRP and not mode & stat.S_ISGID:
        yield Finding(
            "share",
            "warn",
            f"{path} is for a group but not setgid: what users drop there may belong to another group",
            f"chmod g+s {path}",
        )
    else:
        yield Finding("share", "ok", f"{path} can be written")


def _abilities(folder: Path, layout: Layout) -> Iterator[Finding]:
    """Write, fsync, rename and clock, tried with a hidden file that every scan ignores."""
    first = temp_name(folder / "doctor")
    second = temp_name(folder / "doctor")
    try:
        before = time.time()
        with first.open("xb") as file:
            file.write(b"heygemd doctor\n")
            file.flush()
            os.fsync(file.fileno())
        yield Finding("share", "ok", "files can be written and made durable (fsync)")
        yield _clock(first.stat().st_mtime, before, time.time())
        yield _fsync_folder(folder)
        yield _share_lock(first)
        second.write_bytes(b"")
        yield _noreplace(first, second)
        second.unlink(missing_ok=True)
        first.rename(second)
        yield Finding("share", "ok", "files can be renamed")
        yield from _rename_across(second, layout)
    except OSError as error:
        yield Finding(
            "share",
            "fail",
            f"{folder}: {os.strerror(error.errno or 0)}",
            "Check the mount, the permissions and the disk.",
        )
    finally:
        for path in (first, second):
            with contextlib.suppress(OSError):  # what kept it from being made keeps it from being removed
                path.unlink(missing_ok=True)


def _clock(written: float, before: float, after: float) -> Finding:
    skew = max(before - written, written - after, 0.0)
    if skew < _SKEW_WARN_SECONDS:  # some filesystems count whole seconds only
        return Finding("share", "ok", "the share's clock agrees with this machine's")
    level: Level = "fail" if skew > _SKEW_FAIL_SECONDS else "warn"
    return Finding(
        "share",
        level,
        f"the share's clock differs by {skew:.0f} s: whether a file is quiet cannot be judged well",
        "Synchronise both clocks (NTP).",
    )


def _fsync_folder(folder: Path) -> Finding:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            return Finding(
                "share",
                "warn",
                "names cannot be made durable (fsync of a folder): common on CIFS",
                "After a power cut of the server, look whether the last results are there; nothing else to do.",
            )
        raise
    finally:
        os.close(fd)
    return Finding("share", "ok", "names can be made durable (fsync of a folder)")


def _share_lock(path: Path) -> Finding:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return Finding(
                "share",
                "warn",
                f"files on the share cannot be locked: {os.strerror(error.errno or 0)}",
                "Harmless for one daemon. NFS: is rpc.statd running, or is the mount made with nolock?",
            )
    return Finding("share", "ok", "files on the share can be locked")


def _noreplace(first: Path, second: Path) -> Finding:
    """RENAME_NOREPLACE, or a hard link in its place, must refuse an existing name."""
    from heygemd.files import rename_noreplace

    try:
        rename_noreplace(first, second)
    except FileExistsError:
        return Finding("share", "ok", "an existing file is never overwritten by a rename")
    return Finding("share", "fail", "a rename overwrote an existing file", "Report this with the kind of filesystem.")


def _rename_across(path: Path, layout: Layout) -> Iterator[Finding]:
    """Inbox to archive must be one filesystem: then moving a large input costs nothing."""
    if path.parent != layout.inbox or not layout.archive.is_dir():
        return
    target = temp_name(layout.archive / "doctor")
    try:
        path.rename(target)
        target.unlink()
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        yield Finding(
            "share",
            "warn",
            "inbox and archive are on different filesystems: inputs are copied there, not moved",
            "Keep the whole share on one filesystem.",
        )


def _room(area: str, folder: Path, least: int) -> Iterator[Finding]:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < least:
        yield Finding(
            area,
            "fail",
            f"{folder}: {free / 1e9:.1f} GB free, less than {least / 1e9:.1f} GB: the queue pauses",
            "Free space, or shorten the retention.",
        )
    else:
        yield Finding(area, "ok", f"{folder}: {free / 1e9:.1f} GB free")


def _state(layout: Layout, settings: Settings) -> Iterator[Finding]:
    folder = layout.state
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    kind = fs_type(folder)
    if is_network(kind):
        yield Finding(
            "state",
            "fail",
            f"{layout.state} is on a network filesystem ({kind}): the journal would lose data",
            "Give a folder on a local disk (--state DIR, or `state` in the configuration).",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "state", "fail", f"{folder} may not be written by {_me()}", "Run as the service's user, or give it access."
        )
        return
    if not layout.state.is_dir():
        yield Finding("state", "warn", f"{layout.state} is missing", "The daemon makes it when it starts.")
    else:
        yield _lock(layout)
    yield from _room("state", folder, settings.service.min_free_state_bytes)


def _lock(layout: Layout) -> Finding:
    path = temp_name(layout.state / "doctor")
    try:
        with path.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return Finding(
            "state",
            "fail",
            f"{layout.state}: a file cannot be locked: {os.strerror(error.errno or 0)}",
            "Use a local disk.",
        )
    finally:
        path.unlink(missing_ok=True)
    return Finding("state", "ok", f"{layout.state} can be written and locked")


def _me() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
