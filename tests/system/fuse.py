# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH208 - bytes in, bytes out, as the kernel speaks
"""A mount that shows another folder and fails on demand: libfuse3 through ctypes, one thread, x86-64 and Linux only.

    python -m tests.system.fuse BACKING MOUNTPOINT FAULT

FAULT is a file. What stands in it is asked at every call: empty, an errno's name (EIO, ESTALE, ENOSPC …), or `skew N`:
times are told N seconds later than they are.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

LIBRARY = "libfuse3.so.3"


class Stat(ctypes.Structure):
    _fields_ = (
        ("st_dev", c_uint64), ("st_ino", c_uint64), ("st_nlink", c_uint64), ("st_mode", c_uint32),
        ("st_uid", c_uint32), ("st_gid", c_uint32), ("_pad", c_uint32), ("st_rdev", c_uint64), ("st_size", c_int64),
        ("st_blksize", c_int64), ("st_blocks", c_int64), ("atime", c_int64 * 2), ("mtime", c_int64 * 2),
        ("ctime", c_int64 * 2), ("_reserved", c_int64 * 3),
    )  # fmt: skip


class StatVfs(ctypes.Structure):
    _fields_ = (*((name, c_uint64) for name in (
        "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_fsid", "f_flag",
        "f_namemax")), ("_spare", c_int * 6))  # fmt: skip


class Config(ctypes.Structure):
    """The beginning of struct fuse_config."""

    _fields_ = (
        ("_owners", c_int * 6), ("entry_timeout", ctypes.c_double), ("negative_timeout", ctypes.c_double),
        ("attr_timeout", ctypes.c_double), ("_intr", c_int * 2), ("_remember", c_int), ("hard_remove", c_int),
        ("use_ino", c_int),
    )  # fmt: skip


FILLER = ctypes.CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p, c_int64, c_int)
NAMES = [
    "getattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "chmod",
    "chown",
    "truncate",
    "open",
    "read",
    "write",
    "statfs",
    "flush",
    "release",
    "fsync",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "opendir",
    "readdir",
    "releasedir",
    "fsyncdir",
    "init",
    "destroy",
    "access",
    "create",
    "lock",
    "utimens",
    "bmap",
    "ioctl",
    "poll",
    "write_buf",
    "read_buf",
    "flock",
    "fallocate",
    "copy_file_range",
    "lseek",
]
"""The members of struct fuse_operations (fuse.h, API 3.x), in their order."""

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "getattr": (c_char_p, POINTER(Stat), c_void_p),
    "mkdir": (c_char_p, c_uint),
    "unlink": (c_char_p,),
    "rmdir": (c_char_p,),
    "rename": (c_char_p, c_char_p, c_uint),
    "chmod": (c_char_p, c_uint, c_void_p),
    "truncate": (c_char_p, c_int64, c_void_p),
    "open": (c_char_p, c_void_p),
    "read": (c_char_p, c_void_p, c_size_t, c_int64, c_void_p),
    "write": (c_char_p, c_void_p, c_size_t, c_int64, c_void_p),
    "statfs": (c_char_p, POINTER(StatVfs)),
    "fsync": (c_char_p, c_int, c_void_p),
    "readdir": (c_char_p, c_void_p, FILLER, c_int64, c_void_p, c_int),
    "create": (c_char_p, c_uint, c_void_p),
    "utimens": (c_char_p, POINTER(c_int64 * 4), c_void_p),
}


class Mirror:
    """The operations. Files are opened anew for each call: slow, and nothing to lose."""

    def __init__(self, backing: Path, fault: Path) -> None:
        self.backing = os.fsencode(backing)
        self.fault = fault
        self.skew_seconds = 0

    def where(self, path: bytes) -> bytes:
        return self.backing + path

    def check(self) -> None:
        words = self.fault.read_text().split()
        self.skew_seconds = int(words[1]) if words[:1] == ["skew"] else 0
        if len(words) == 1:
            code = getattr(errno, words[0])
            raise OSError(code, os.strerror(code))

    def getattr(self, path: bytes, out: Any, _info: Any) -> None:
        found = os.lstat(self.where(path))
        target = out.contents
        for name in ("st_dev", "st_ino", "st_nlink", "st_mode", "st_uid", "st_gid", "st_size", "st_blksize"):
            setattr(target, name, getattr(found, name))
        target.st_blocks = found.st_blocks
        for name in ("atime", "mtime", "ctime"):
            seconds, rest = divmod(getattr(found, f"st_{name}_ns"), 10**9)
            getattr(target, name)[0] = seconds + self.skew_seconds
            getattr(target, name)[1] = rest

    def mkdir(self, path: bytes, mode: int) -> None:
        os.mkdir(self.where(path), mode)

    def unlink(self, path: bytes) -> None:
        os.unlink(self.where(path))

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self.where(path))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        if flags:  # as CIFS and many FUSE filesystems: RENAME_NOREPLACE is not known
            raise OSError(errno.EINVAL, "flags")
        os.rename(self.where(old), self.where(new))

    def chmod(self, path: bytes, mode: int, _info: Any) -> None:
        os.chmod(self.where(path), mode)

    def truncate(self, path: bytes, size: int, _info: Any) -> None:
        os.truncate(self.where(path), size)

    def open(self, path: bytes, _info: Any) -> None:
        os.close(os.open(self.where(path), os.O_RDONLY))

    def read(self, path: bytes, buffer: int, size: int, offset: int, _info: Any) -> int:
        fd = os.open(self.where(path), os.O_RDONLY)
        try:
            data = os.pread(fd, size, offset)
        finally:
            os.close(fd)
        ctypes.memmove(buffer, data, len(data))
        return len(data)

    def write(self, path: bytes, buffer: int, size: int, offset: int, _info: Any) -> int:
        fd = os.open(self.where(path), os.O_WRONLY)
        try:
            return os.pwrite(fd, ctypes.string_at(buffer, size), offset)
        finally:
            os.close(fd)

    def statfs(self, path: bytes, out: Any) -> None:
        found = os.statvfs(self.where(path))
        for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(out.contents, name, getattr(found, name))
        out.contents.f_namemax = 255

    def fsync(self, _path: bytes, _data_only: int, _info: Any) -> None: ...

    def readdir(self, path: bytes, buffer: int, fill: Any, _offset: int, _info: Any, _flags: int) -> None:
        for name in (b".", b"..", *os.listdir(self.where(path))):
            fill(buffer, name, None, 0, 0)

    def create(self, path: bytes, mode: int, _info: Any) -> None:
        os.close(os.open(self.where(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IMODE(mode)))

    def utimens(self, path: bytes, times: Any, _info: Any) -> None:
        a, a_rest, m, m_rest = times.contents
        if a_rest < 10**9 and m_rest < 10**9:  # not UTIME_NOW or UTIME_OMIT
            os.utime(self.where(path), ns=(a * 10**9 + a_rest, m * 10**9 + m_rest))
        else:
            os.utime(self.where(path))


def serve(backing: Path, mountpoint: Path, fault: Path) -> int:
    mirror = Mirror(backing, fault)
    kept: list[Any] = []

    def wrap(name: str) -> Any:
        method: Callable[..., int | None] = getattr(mirror, name)

        def call(*arguments: Any) -> int:
            try:
                mirror.check()
                return method(*arguments) or 0
            except OSError as error:
                return -(error.errno or errno.EIO)

        function = ctypes.CFUNCTYPE(c_int, *SIGNATURES[name])(call)
        kept.append(function)
        return ctypes.cast(function, c_void_p)

    @ctypes.CFUNCTYPE(c_void_p, c_void_p, POINTER(Config))
    def init(_connection: int, config: Any) -> None:
        config.contents.use_ino = 1  # the backing file's, which stay
        config.contents.entry_timeout = config.contents.attr_timeout = config.contents.negative_timeout = 0.0

    calls = {name: wrap(name) for name in SIGNATURES} | {"init": ctypes.cast(init, c_void_p)}
    table = (c_void_p * len(NAMES))(*(calls.get(name) for name in NAMES))
    words = [b"fuse", b"-f", b"-s", b"-o", b"fsname=heygemd-test", os.fsencode(mountpoint)]
    argv = (c_char_p * len(words))(*words)
    library = ctypes.CDLL(LIBRARY)
    return int(library.fuse_main_real(len(words), argv, table, c_size_t(ctypes.sizeof(table)), None))


class Mount:
    """The mirror as a child process."""

    def __init__(self, backing: Path, mountpoint: Path, fault: Path) -> None:
        self.backing, self.mountpoint, self.fault = backing, mountpoint, fault
        self.process: subprocess.Popen[bytes] | None = None
        backing.mkdir(exist_ok=True)
        mountpoint.mkdir(exist_ok=True)
        fault.write_text("")

    def mount(self) -> bool:
        """False where FUSE cannot be used here."""
        places = [str(place) for place in (self.backing, self.mountpoint, self.fault)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.fuse", *places],
            cwd=Path(__file__).resolve().parents[2],
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if os.path.ismount(self.mountpoint):
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.05)
        return False

    def unmount(self) -> None:
        """Away from the tree at once, whoever still has files open there."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.mountpoint)], capture_output=True)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """The server answers nothing any more, as a dead NFS server of a hard mount."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def crash(self) -> None:
        """The server dies, the mount stays: ENOTCONN for everybody."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


if __name__ == "__main__":
    sys.exit(serve(*(Path(word).absolute() for word in sys.argv[1:4])))
