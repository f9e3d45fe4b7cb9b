"""face-alignment's landmarks with the operator's weights, behind `Landmarker`. Downloads nothing, imports no torch."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from heygemd.core.errors import HeygemdError, OutOfMemoryError, RenderError
from heygemd.core.heartbeat import beat
from heygemd.faces.landmarks import FACE_PX, NUM_POINTS, Image, Points

COMMAND = (sys.executable, "-P", "-m", "heygemd.faces.landmarks_process")
CLOSE_SECONDS = 10.0


class FanLandmarker:
    """Asks a child process, which is started by the first question and ended by `close`."""

    def __init__(self, weights: Path, command: Sequence[str] = COMMAND) -> None:
        self.name = weights.name
        self._argv = [*command, str(weights)]
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None

    def locate(self, faces: Sequence[Image]) -> Points:
        """See `Landmarker`. Raises CheckpointError for a file that cannot be used, RenderError or
        OutOfMemoryError when the child dies."""
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - Popen was given pipes
        found = np.zeros((len(faces), NUM_POINTS, 2))
        size = NUM_POINTS * 2 * 4
        for number, face in enumerate(faces):
            beat()
            if face.shape != (FACE_PX, FACE_PX, 3) or face.dtype != np.uint8:
                raise ValueError(f"a face picture is ({FACE_PX}, {FACE_PX}, 3) uint8, not {face.shape} {face.dtype}")
            try:
                process.stdin.write(face.tobytes())
                process.stdin.flush()
            except BrokenPipeError as error:
                raise self._died() from error
            answer = process.stdout.read(size)
            if len(answer) != size:
                raise self._died()
            found[number] = np.frombuffer(answer, np.float32).reshape(NUM_POINTS, 2)
        return found

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - as above
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            process.stdin.close()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        if self._words is not None:
            self._words.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`, with the child
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words)
        assert self._process.stdout is not None  # noqa: S101 - as above
        line = self._process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._died() from None
        if not answer["ok"]:
            self.close()
            raise HeygemdError.from_dict(answer["error"])
        return self._process

    def _died(self) -> HeygemdError:
        """The error for a child that ended without an answer. It is over then."""
        process, words = self._process, self._words
        assert process is not None and words is not None  # noqa: S101 - asked only of one that was started
        try:
            code = process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        words.seek(0)
        said = words.read()[-4000:].decode(errors="replace").strip()
        self.close()
        if code == -signal.SIGKILL:  # nobody else sends it
            return OutOfMemoryError("the process that finds landmarks was killed: most likely memory ran out")
        last = said.splitlines()[-1][:200] if said else "it said nothing"
        return RenderError(f"the process that finds landmarks ended early (exit code {code}): {last}", stderr=said)
