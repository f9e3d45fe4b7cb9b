"""Named places where a test can make a process die or stand still, or a disk fail. Off unless HEYGEMD_FAILPOINT is set.

    HEYGEMD_FAILPOINT="outbox.receipt=kill"        SIGKILL itself at the first passage
    HEYGEMD_FAILPOINT="render.frame=stop@30"       SIGSTOP itself: it stands still there until somebody lets it go on
    HEYGEMD_FAILPOINT="stage.copy=enospc@3"        raise OSError(ENOSPC) at the third passage, once
    HEYGEMD_FAILPOINT="scan.list=eio@2+"           at the second and every later passage
    several: separated by commas

Every transition of a job calls `failpoint(name)` with a name declared here; tests walk `NAMES`.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

NAMES: dict[str, str] = {
    "scan.list": "before a folder of the inbox is listed",
    "journal.add": "before a claim is committed",
    "journal.added": "after a claim is committed",
    "journal.update": "before a change of state is committed",
    "journal.updated": "after a change of state is committed",
    "journal.plan": "before a plan's segments are committed",
    "journal.segment": "before a finished segment is committed",
    "journal.release": "before a finished job's inputs are let go",
    "stage.begin": "before the first input is copied",
    "stage.copy": "before each input is copied",
    "stage.record": "after an input was copied, before it is recorded",
    "stage.end": "after all inputs were copied",
    "outbox.folder": "before the result's folder appears",
    "outbox.copy": "before a result file is copied beside its final name",
    "outbox.rename": "before a result file gets its final name",
    "outbox.zip": "before a batch's zip is written",
    "outbox.receipt": "before the receipt is written",
    "outbox.published": "after the receipt was written",
    "archive.folder": "before the archive folder appears",
    "archive.move": "before an input is moved to the archive",
    "archive.end": "after the inputs were moved to the archive",
    "reject.folder": "before the failed folder appears",
    "reject.move": "before an input is moved to failed",
    "reject.error": "before error.json is written",
    "reject.end": "after error.json was written",
    "restore.move": "before an input is moved back to the inbox",
    "status.write": "before a status file is written",
    "claim.take": "before a job's claim gets its name on a share that several daemons serve",
    "lease.take": "before a daemon's next proof of owning the share gets its name",
    "plan.save": "before a plan is written to the work folder",
    "work.remove": "before an ended job's work folder is removed",
    "worker.task": "a worker has a task and has not begun",
    "worker.answer": "a worker has done a task and not yet said so",
    "prepare.probe": "before the video is probed",
    "prepare.speech": "before the recording is read or the text spoken",
    "prepare.analyse": "before pass 1 over the picture",
    "prepare.frames": "after pass 1, before its time stamps are written",
    "prepare.analysis": "before what pass 1 found is written",
    "prepare.motion": "before the motion is written",
    "prepare.record": "before item.json is written: the item counts as prepared",
    "render.begin": "before a segment's first frame",
    "render.frame": "before each frame goes to the encoder",
    "render.stats": "a segment is encoded, before its figures are written",
    "render.publish": "before a segment gets its final name",
    "render.end": "after a segment got its final name",
    "finish.join": "before the segments are joined",
    "finish.verify": "before the joined video is checked",
    "finish.publish": "before the joined video gets its final name",
    "finish.sheet": "before the contact sheet is drawn",
    "finish.record": "before result.json is written: the item counts as finished",
}
"""Name → where it stands."""

ONCE_VARIABLE = "HEYGEMD_TEST_FAILPOINT_MARKS"
"""A folder: each armed place leaves a mark there when it acts, and never acts again, in no process."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
ACTIONS: dict[str, int | None] = {
    **dict.fromkeys(_SIGNALS),
    "enospc": errno.ENOSPC,
    "edquot": errno.EDQUOT,
    "eio": errno.EIO,
    "estale": errno.ESTALE,
    "ebusy": errno.EBUSY,
}


@dataclass(frozen=True)
class _Armed:
    action: str
    first: int
    repeats: bool


def parse(text: str) -> dict[str, _Armed]:
    """The armed failpoints in `text`. Raises ValueError where it names none of ours (checked on passage)."""
    armed: dict[str, _Armed] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, what = part.partition("=")
        action, _, count = what.partition("@")
        if not equals or action not in ACTIONS:
            raise ValueError(f"HEYGEMD_FAILPOINT: {part!r} is not name=action[@nth]; actions: {', '.join(ACTIONS)}")
        armed[name] = _Armed(action, int(count.rstrip("+") or 1), count.endswith("+"))
    return armed


_armed: dict[str, _Armed] = parse(os.environ.get("HEYGEMD_FAILPOINT", ""))
_passages: dict[str, int] = {}
_lock = threading.Lock()


def arm(text: str) -> None:
    """Arm from a test in the same process; an empty text disarms all. Counts start anew."""
    global _armed
    with _lock:
        _armed = parse(text)
        _passages.clear()


def failpoint(name: str) -> None:
    """Pass a declared place; where it is armed, die, stand still or raise the OSError. Costs one lookup otherwise."""
    if not _armed:
        return
    if name not in NAMES:
        raise ValueError(f"failpoint {name} is not declared")
    armed = _armed.get(name)
    if armed is None:
        return
    with _lock:
        _passages[name] = count = _passages.get(name, 0) + 1
    if count != armed.first and not (armed.repeats and count > armed.first):
        return
    if not _first_of_all(name):
        return
    code = ACTIONS[armed.action]
    if code is None:
        os.kill(os.getpid(), _SIGNALS[armed.action])
    else:
        raise OSError(code, os.strerror(code), f"failpoint {name}")


def _first_of_all(name: str) -> bool:
    """False where the place has acted before, in this or another process, and is to act once only."""
    folder = os.environ.get(ONCE_VARIABLE)
    if not folder:
        return True
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
