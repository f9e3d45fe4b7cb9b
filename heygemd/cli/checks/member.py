"""The share as one of its users meets it: what a member drops must be the service's to read and to move."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from heygemd.cli.checks import Finding
from heygemd.files import temp_name

_NOBODY = 65534
_ACL = "system.posix_acl_default"


def drop_as_member(inbox: Path) -> Path | None:
    """Root only: a file made by somebody who has nothing but the inbox's group, with the narrowest umask.

    Its path, for `check_member`; None where that somebody may not write there.
    """
    group = inbox.stat().st_gid
    path = temp_name(inbox / "member")
    done = subprocess.run(
        ["/bin/sh", "-c", 'set -C; : >"$1"', "sh", str(path)],
        user=_NOBODY,
        group=group,
        extra_groups=[group],
        umask=0o077,
        check=False,
        capture_output=True,
    )
    return path if done.returncode == 0 else None


def check_member(inbox: Path, dropped: Path | None, *, tried: bool) -> Iterator[Finding]:
    """`tried`: `drop_as_member` ran and gave `dropped`. The file is removed."""
    if not inbox.is_dir():
        return
    found = inbox.stat()
    group = _group(found.st_gid)
    if not found.st_mode & stat.S_IWGRP:
        yield Finding("share", "ok", f"{inbox} is {_user(found.st_uid)}'s alone: nobody else can drop files")
        return
    if not tried:
        yield _acl(inbox)
        return
    if dropped is None:
        yield Finding(
            "share",
            "fail",
            f"a member of {group} cannot drop a file into {inbox}",
            "A folder above it may be closed, or the mount maps users: let the group pass (x) down to the inbox.",
        )
        return
    moved = dropped.with_name(dropped.name + ".part")
    try:
        dropped.read_bytes()
        dropped.rename(moved)
        dropped = moved
    except OSError as error:
        yield Finding(
            "share",
            "fail",
            f"what a member of {group} drops with a narrow umask, {_user(os.geteuid())} cannot use: {error.strerror}",
            f"setfacl -d -m u:{_user(os.geteuid())}:rwx,g::rwx,o::--- {inbox}, or let the mount force the modes.",
        )
    else:
        yield Finding("share", "ok", f"what a member of {group} drops can be read and moved, whatever the umask is")
    finally:
        dropped.unlink(missing_ok=True)


def _acl(inbox: Path) -> Finding:
    try:
        os.getxattr(inbox, _ACL)
    except OSError:
        return Finding(
            "share",
            "warn",
            f"{inbox} has no default ACL: a file dropped with a narrow umask cannot be read",
            "install.sh sets one; `sudo heygemd doctor` tries it as a member of the group.",
        )
    return Finding("share", "ok", f"{inbox} has a default ACL; `sudo heygemd doctor` also tries it as a member")


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return f"group {number}"


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
