"""A job put into the inbox as it should be: whole files under names that no scan looks at, the manifest last."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from heygemd.core.errors import BadInputError, HeygemdError, ShareAwayError
from heygemd.core.manifest import check_relative
from heygemd.files import copy_hashed, explained, open_regular, publish_file, temp_name, write_json
from heygemd.spool.documents import manifest_stem
from heygemd.spool.journal import Journal
from heygemd.spool.layout import Layout
from heygemd.spool.names import cut_bytes, fold, safe_name, unique_name

_MAX_NAME_BYTES = 80
_CLONE_BYTES = 1 << 30
_CANNOT_CLONE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EIO, errno.ETXTBSY}


def put(
    layout: Layout,
    *,
    video: Path,
    audio: Path | None,
    text: str | None,
    consent: Path | None = None,
    name: str,
    folder: str = "",
    priority: int | None = None,
    options: dict[str, Any] | None = None,
    taken: Collection[str] | None = None,
    clone: bool = False,
    on_fraction: Callable[[float], None] = lambda _fraction: None,
) -> tuple[str, list[Path]]:
    """Bring a job into the inbox so that no scan can see half of it; its name and the files.

    The two files get stems that do not pair (`x.video.mp4`, `x.audio.wav`): before the manifest says what they are,
    they are nobody's job. `taken`: folded names that the job must not have (default: `taken_names`). `clone`: the
    sources lie on the share itself: the filesystem copies them, and only where it cannot they are read and copied here
    with their checksum. Raises HeygemdError.
    """
    try:
        target = layout.inbox / check_relative(folder) if folder else layout.inbox
    except ValueError as error:
        raise BadInputError(f"--folder {folder}: {error}", remedy="Name a folder within the inbox.") from None
    if not layout.inbox.is_dir():
        raise ShareAwayError(
            f"{layout.inbox}: there is no such folder",
            remedy="Is the share mounted, and has a daemon run there? --root DIR names another.",
            path=str(layout.inbox),
        )
    names = taken_names(layout, target) if taken is None else taken
    job = unique_name(cut_bytes(safe_name(name), _MAX_NAME_BYTES), names)
    given = {"video": video, "audio": audio, "consent": consent}
    sources = {role: source for role, source in given.items() if source is not None}
    total = max(1, sum(source.stat().st_size for source in sources.values()))
    manifest: dict[str, Any] = {"version": 1}
    temps: dict[Path, Path] = {}
    done = 0
    with explained(f"inbox {target}"):
        try:
            target.mkdir(parents=True, exist_ok=True)
            sums: dict[str, str] = {}
            for role, source in sources.items():
                final = target / f"{job}.{role}{source.suffix.lower()}"
                temps[final] = temp_name(final)
                if not (clone and _cloned(source, temps[final])):
                    with open_regular(source.resolve()) as file:
                        report = partial(_report, on_fraction, done, total)
                        sums[final.name] = copy_hashed(file, temps[final], on_bytes=report)
                done += source.stat().st_size
                manifest[role] = final.name
            if text is not None:
                manifest["text"] = text
            for final, temp in temps.items():
                publish_file(temp, final)
        except FileExistsError as error:
            raise BadInputError(
                f"{error.filename}: something of that name is there already", remedy="Give another --name."
            ) from None
        finally:
            for temp in temps.values():
                temp.unlink(missing_ok=True)
        manifest |= {"options": options or {}, "sha256": sums}
        if priority is not None:  # else the folder's preset has its say
            manifest["priority"] = priority
        path = target / f"{job}.job.json"
        write_json(path, manifest)
    return job, [*temps, path]


def _cloned(source: Path, target: Path) -> bool:
    """Copy by the filesystem itself: shared blocks on XFS and Btrfs, on the server for NFS and SMB. Durable.

    False where it cannot; nothing is left then.
    """
    with open_regular(source) as file, target.open("xb") as out:
        try:
            done, size = 0, os.fstat(file.fileno()).st_size
            while done < size:
                count = os.copy_file_range(file.fileno(), out.fileno(), min(size - done, _CLONE_BYTES))
                if count == 0:
                    break
                done += count
            os.fsync(out.fileno())
            if done == size:
                return True
        except OSError as error:
            if error.errno not in _CANNOT_CLONE:
                raise
    target.unlink()
    return False


def _report(on_fraction: Callable[[float], None], before: int, total: int, count: int) -> None:
    on_fraction((before + count) / total)


def taken_names(layout: Layout, target: Path) -> set[str]:
    """Names that a new job should not have, so that its status and result are found under the name it asked for."""
    names: set[str] = set()
    for parent in (layout.outbox, layout.failed, layout.status, target):
        with contextlib.suppress(FileNotFoundError):
            for entry in (path.name for path in parent.iterdir()):
                if parent == layout.status:
                    names.add(fold(entry.removesuffix(".json")))
                elif parent != target:
                    names.add(fold(entry))
                elif stem := manifest_stem(entry):
                    names.add(fold(stem))
    with contextlib.suppress(HeygemdError, OSError), Journal(layout.journal, readonly=True) as journal:
        names |= journal.names()  # not every user may read it; then the daemon adds a counter
    return names
