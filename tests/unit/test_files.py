"""Names appear whole or not at all; links are never followed; errors say what they mean."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from pathlib import Path

import pytest

import heygemd.files as files
from heygemd.core.errors import DiskFullError, HeygemdError, InputBusyError, ShareAwayError, UnsafePathError


@pytest.fixture(params=["renameat2", "link", "plain"])
def _rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three ways to rename without overwriting: the kernel's, hard links, and neither (CIFS)."""
    if request.param == "renameat2":
        return

    class Libc:
        def renameat2(self, *args: object) -> int:
            return -1

    monkeypatch.setattr(files, "_libc", Libc())
    monkeypatch.setattr(files.ctypes, "get_errno", lambda: errno.EINVAL)
    if request.param == "plain":
        monkeypatch.setattr(files, "_try_link", lambda source, target: False)


@pytest.mark.usefixtures("_rename")
def test_rename_never_overwrites(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("a")
    files.rename_noreplace(a, b)
    assert b.read_text() == "a" and not a.exists() and b.stat().st_nlink == 1
    a.write_text("new")
    with pytest.raises(FileExistsError):
        files.rename_noreplace(a, b)
    assert (a.read_text(), b.read_text()) == ("new", "a")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        files.rename_noreplace(a, tmp_path / "dangling")
    with pytest.raises(FileNotFoundError):
        files.rename_noreplace(tmp_path / "none", tmp_path / "c")


@pytest.mark.usefixtures("_rename")
def test_folders_are_renamed_too(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    files.rename_noreplace(tmp_path / "d", tmp_path / "e")
    (tmp_path / "d").mkdir()
    with pytest.raises(FileExistsError):
        files.rename_noreplace(tmp_path / "d", tmp_path / "e")
    assert (tmp_path / "e/f").read_text() == "x"


def test_publishing(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    for text, replace in (("one", False), ("two", True)):
        temp = files.temp_name(target)
        assert temp.name.startswith(files.TEMP_PREFIX) and temp.parent == tmp_path
        temp.write_text(text)
        files.publish_file(temp, target, replace=replace)
        assert target.read_text() == text
    temp = files.temp_name(target)
    temp.write_text("three")
    with pytest.raises(FileExistsError):
        files.publish_file(temp, target)
    assert target.read_text() == "two"


@pytest.mark.parametrize("durable", [True, False])
def test_atomic_writes_leave_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    target = tmp_path / "状态.json"
    files.write_json(target, {"a": "é"}, durable=durable)
    assert json.loads(target.read_text()) == {"a": "é"}
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(target, float("nan"), durable=durable)

    def full(self: Path, other: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="space"):
        files.write_json(target, {"b": 2}, durable=durable)
    assert json.loads(target.read_text()) == {"a": "é"}
    assert [p.name for p in tmp_path.iterdir()] == ["状态.json"]


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    with files.open_regular(plain) as file:
        assert file.read() == b"x"
    (tmp_path / "link").symlink_to(plain)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "."):
        with pytest.raises(UnsafePathError):
            files.open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "none")


def test_copies_are_hashed_whole_and_never_overwrite(tmp_path: Path) -> None:
    data = os.urandom(9 * 1024 * 1024)
    told: list[int] = []
    digest = files.copy_hashed(io.BytesIO(data), tmp_path / "copy", on_bytes=told.append)
    assert digest == hashlib.sha256(data).hexdigest() == files.sha256_of(tmp_path / "copy")
    assert told == sorted(told) and told[-1] == len(data)
    with pytest.raises(FileExistsError):
        files.copy_hashed(io.BytesIO(b"other"), tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == len(data), "what stood there before is not ours to remove"

    def stop(done: int) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.copy_hashed(io.BytesIO(data), tmp_path / "part", on_bytes=stop)
    assert not (tmp_path / "part").exists()


def test_removing_a_tree_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/f").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "precious")
    (tmp_path / "itself").symlink_to(tmp_path / "precious")
    for name in ("tree", "itself", "none"):
        files.remove_tree(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["precious"] and (tmp_path / "precious/f").exists()


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, ShareAwayError),
     (errno.ESTALE, ShareAwayError), (errno.ENOTCONN, ShareAwayError), (errno.EBUSY, InputBusyError),
     (errno.EACCES, InputBusyError), (errno.EINVAL, HeygemdError), (None, HeygemdError)],
)  # fmt: skip
def test_what_an_oserror_means(code: int | None, kind: type[HeygemdError]) -> None:
    error = OSError("odd") if code is None else OSError(code, os.strerror(code))
    with pytest.raises(HeygemdError) as caught, files.explained("copy of 课程.mp4"):
        raise error
    assert type(caught.value) is kind and caught.value.message.startswith("copy of 课程.mp4: ")
    assert caught.value.__cause__ is error


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, raises in ((errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)):

        def broken(fd: int, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(files.os, "fsync", broken)
        if raises:
            with pytest.raises(OSError, match="rror"):
                files.fsync_directory(tmp_path)
        else:
            files.fsync_directory(tmp_path)
