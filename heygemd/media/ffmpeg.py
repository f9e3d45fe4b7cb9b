"""Runs ffmpeg and ffprobe: the only place where the package starts them.

No shell. Children have a bounded address space, a bounded kept stderr and a limit on standing still.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO

from heygemd.core.errors import DiskFullError, FfmpegError, HeygemdError, UnreadableMediaError, WorkerDiedError
from heygemd.core.heartbeat import beat
from heygemd.media.childlog import BoundedLog

_TAIL_LINES = 60
_LINE_BYTES = 2000
_LOOK_SECONDS = 1.0
_PIPE_BYTES = 1 << 20  # Linux' default upper bound for unprivileged pipes; 64 KiB costs a third of the throughput


@lru_cache(maxsize=1)
def passthrough_options() -> dict[str, str]:
    """The output option that gives every frame once, as it comes: `-fps_mode`, which ffmpeg knows since 5.1."""
    with Child(["ffmpeg", "-version"]) as child:
        text = child.read_all(1 << 16, 20.0).decode("utf-8", "replace")
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return {"vsync": "passthrough"} if old else {"fps_mode": "passthrough"}


GLOBAL_ARGUMENTS = ("-nostdin", "-hide_banner", "-nostats", "-loglevel", "repeat+level+info")


class Child:
    """One ffmpeg process. Use it as a context manager: leaving kills it. Not thread-safe.

    `on_info` gets each line with a message of level info and runs in the stderr thread; other lines are kept.
    """

    def __init__(
        self,
        argv: list[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        log: Path | None = None,
        on_info: Callable[[str], None] | None = None,
        stall_seconds: float = 300.0,
        address_space_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = argv
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.num_errors = 0
        self._first_error = ""
        self._log = log
        self._on_info = on_info
        self._stall_seconds = stall_seconds
        self._ended_by_us = False
        self._read_bytes = 0
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_environment() | dict(environment or {}),
        )
        if address_space_bytes is not None:
            self._limit(address_space_bytes)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                _widen(pipe.fileno())
        self._stderr_thread = threading.Thread(target=self._drain_stderr, name="ffmpeg-stderr", daemon=True)
        self._stderr_thread.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_into(self, view: memoryview) -> int:
        """Fill `view` from stdout; returns the bytes read, fewer only at the end of the stream.

        Raises UnreadableMediaError when it neither says nor reads anything for `stall_seconds`.
        """
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - the caller asked for stdout
        done = 0
        while done < len(view):
            if not self._comes(pipe, self._stall_seconds, or_reads=True):
                raise UnreadableMediaError(f"ffmpeg made no progress for {self._stall_seconds:.0f} s")
            count = pipe.readinto(view[done:])  # type: ignore[attr-defined]  # raw FileIO, because bufsize=0
            if not count:
                break
            done += count
        return done

    def read_all(self, max_bytes: int, timeout_seconds: float) -> bytes:
        """All of stdout, at most `max_bytes`, within the time. Raises UnreadableMediaError beyond either."""
        pipe = self._process.stdout
        assert pipe is not None  # noqa: S101 - the caller asked for stdout
        end = time.monotonic() + timeout_seconds
        data = bytearray()
        while self._comes(pipe, end - time.monotonic()):
            chunk = pipe.read(1 << 16)
            if not chunk:
                return bytes(data)
            data += chunk
            if len(data) > max_bytes:
                raise UnreadableMediaError("describes itself endlessly")
        raise UnreadableMediaError(f"not understood within {timeout_seconds:.0f} s")

    def _comes(self, pipe: IO[bytes], seconds: float, *, or_reads: bool = False) -> bool:
        """Whether stdout has something, or its end, within the time. A sign of life while it reads its input and says
        nothing: what comes before the wanted frames is decoded in silence. `or_reads`: then the time begins anew."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([pipe], [], [], min(left, _LOOK_SECONDS))[0]:
                return True
            if (count := _read_bytes(self.pid)) != self._read_bytes:
                self._read_bytes = count
                beat()
                end = time.monotonic() + seconds if or_reads else end
        return False

    def write(self, data: memoryview) -> None:
        """All of `data` to stdin. Raises BrokenPipeError when the process is gone."""
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 - the caller asked for stdin
        done = 0
        while done < len(data):
            done += pipe.write(data[done:])

    def close_stdin(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Exit status, after the last line of stderr was read. Raises subprocess.TimeoutExpired."""
        status = self._process.wait(timeout_seconds)
        self._stderr_thread.join()
        return status

    def wait_while_writing(self, out: Path) -> int:
        """Exit status of one that writes `out`: a sign of life whenever the file has changed, none while it hangs."""
        seen: tuple[int, int] | None = None
        while self._stderr_thread.is_alive():
            self._stderr_thread.join(_LOOK_SECONDS)
            with contextlib.suppress(FileNotFoundError):
                found = out.stat()
                if (now := (found.st_size, found.st_mtime_ns)) != seen:
                    seen = now
                    beat()
        return self.wait()

    def kill(self) -> None:
        """End it and free its pipes; harmless when it is over."""
        if self._process.poll() is None:
            self._ended_by_us = True
            self._process.kill()
        self._process.wait()
        self._stderr_thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # what was still to be flushed has no reader any more
                    continue

    def reason(self) -> str:
        """The line that says best what went wrong: the first error, else the last words."""
        if self._first_error:
            return self._first_error
        return self.tail[-1] if self.tail else "no message"

    def failure(self, message: str, kind: type[HeygemdError] = FfmpegError, path: Path | None = None) -> HeygemdError:
        """The error to raise for a child that failed: DiskFullError when that was the cause, WorkerDiedError when
        somebody killed it (the kernel, for memory), which says nothing of the file; else `kind`."""
        shown = None if path is None else str(path)
        if self._process.poll() == -signal.SIGKILL and not self._ended_by_us:
            return WorkerDiedError(f"{message}: {self.argv[0]} was killed", path=shown, signal="SIGKILL")
        for words in ("No space left on device", "Disk quota exceeded"):
            if any(words in line for line in self.tail):
                # The folder, not the file: an unfinished file's name is random, and an operator asks which disk it is.
                where = message if path is None else str(path.parent)
                return DiskFullError(f"{where}: {words[0].lower()}{words[1:]}", path=shown)
        reason = self.reason()
        return kind(f"{message}: {reason}", path=shown, stderr=list(self.tail)[-12:], reason=reason)

    def _limit(self, address_space_bytes: int) -> None:
        # prlimit from outside: preexec_fn can deadlock in a process with threads.
        try:
            resource.prlimit(self._process.pid, resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))
            resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))
        except ProcessLookupError:  # it is over already; wait() will tell
            return

    def _drain_stderr(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None  # noqa: S101 - always a pipe
        log = None if self._log is None else BoundedLog(self._log)
        try:
            if log is not None:
                log.write("$ " + " ".join(self.argv))
            rest = b""
            while chunk := pipe.read(1 << 16):
                lines = (rest + chunk).splitlines(keepends=True)
                rest = b""
                if lines and not lines[-1].endswith((b"\n", b"\r")):
                    rest = lines.pop()[:_LINE_BYTES]
                for line in lines:
                    self._line(line.strip()[:_LINE_BYTES].decode("utf-8", "replace"), log)
            self._line(rest.strip().decode("utf-8", "replace"), log)
        finally:
            if log is not None:
                log.close()

    def _line(self, text: str, log: BoundedLog | None) -> None:
        if not text:
            return
        # Threads of ffmpeg share the line: a complaint may stand in the middle of an info line.
        error = _ERROR.search(text)
        if "[info] " in text:
            if self._on_info is not None:
                self._on_info(text)
            if error is None:
                return
        if error is not None:
            self.num_errors += 1
            self._first_error = self._first_error or text[error.end() :].strip()
        self.tail.append(text)
        if log is not None:
            log.write(text)


def _read_bytes(pid: int) -> int:
    """What a process has read so far; 0 where that is not told."""
    try:
        words = Path(f"/proc/{pid}/io").read_text().split()
    except OSError:
        return 0
    return int(words[words.index("rchar:") + 1])


_ERROR = re.compile(r"\[(error|fatal|panic)\] ")


_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""The last two: a worker's ffmpeg sees the card that the worker sees, and no other."""


def _environment() -> dict[str, str]:
    # Nothing of ours crosses (FFREPORT would write files); two malloc arenas keep RLIMIT_AS meaningful.
    kept = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
    return kept | {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "2", "AV_LOG_FORCE_NOCOLOR": "1"}


def _widen(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:  # a lower pipe-max-size: slower, not wrong
        return
