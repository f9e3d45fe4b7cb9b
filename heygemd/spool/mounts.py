"""Which filesystem a folder lies on, from /proc/self/mountinfo (proc(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "ncpfs", "vboxsf",
    "virtiofs", "davfs", "gfs2", "ocfs2", "orangefs", "pvfs2",
}  # fmt: skip


def is_network(fs_type: str) -> bool:
    """Whether other hosts may write there unseen by inotify. Every FUSE filesystem counts: none promises events."""
    return fs_type in _NETWORK or fs_type == "fuse" or (fs_type.startswith("fuse.") and fs_type != "fuse.lxcfs")


def is_read_only(path: Path) -> bool:
    """Whether nobody can write there, as after an error of the disk. Raises OSError."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def fs_type(path: Path, mountinfo: str | None = None) -> str:
    """Filesystem type of the mount that holds `path` ("ext4", "cifs", …); "" where it cannot be told."""
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return ""
    where = os.path.realpath(path)
    best, found = -1, ""
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # a later mount on the same point hides the earlier
            best, found = len(point), right.split(" ", 1)[0]
    return found
