"""Programs and libraries that are not Python packages of ours: ffmpeg, espeak-ng, what OpenCV links."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from heygemd.cli.checks import Finding

_TIMEOUT_SECONDS = 60
_ENCODERS = {
    "libx264": "8-bit results",
    "libx265": "10- and 12-bit results",
    "aac": "sound",
}
_DECODERS = ("h264", "hevc", "aac", "mp3", "flac", "mjpeg", "png")
_FILTERS = (
    "scale", "format", "select", "showinfo", "setsar", "bwdif", "aresample", "aformat", "asetpts", "atrim", "pan",
)  # fmt: skip
_IMPORTS = {
    "cv2": "apt install libgl1 libglib2.0-0 libxcb1",
    "librosa": "Install heygemd's requirements again.",
    "torch": "Install heygemd's requirements again.",
    "pocketsphinx": "Install heygemd's requirements again.",
}
_INSTALL_FFMPEG = "apt install ffmpeg"


def check_tools() -> Iterator[Finding]:
    yield from _ffmpeg()
    yield from _espeak()
    yield from _imports()
    yield _recogniser()


def _output(argv: list[str]) -> str:
    """What a program prints; empty when it fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _ffmpeg() -> Iterator[Finding]:
    for program in ("ffmpeg", "ffprobe"):
        if shutil.which(program) is None:
            yield Finding("ffmpeg", "fail", f"{program} is not installed", _INSTALL_FFMPEG)
            return
    version = re.match(r"ffmpeg version (\S+)", _output(["ffmpeg", "-version"]))
    if version is None:
        yield Finding("ffmpeg", "fail", "ffmpeg does not run", f"`ffmpeg -version` says why; {_INSTALL_FFMPEG}")
        return
    number = re.match(r"\D*(\d+)", version[1])
    if number and int(number[1]) < 5:
        yield Finding("ffmpeg", "fail", f"ffmpeg {version[1]} is too old", "Install version 5.1 or newer.")
    else:
        yield Finding("ffmpeg", "ok", f"ffmpeg {version[1]}")
    encoders = _listed(["ffmpeg", "-hide_banner", "-encoders"])
    for name, use in _ENCODERS.items():
        if name in encoders:
            yield Finding("ffmpeg", "ok", f"encoder {name}")
        else:
            yield Finding(
                "ffmpeg", "fail", f"encoder {name} is missing: no {use}", "Install Debian's or Ubuntu's ffmpeg."
            )
    decoders = _listed(["ffmpeg", "-hide_banner", "-decoders"])
    if missing := [name for name in _DECODERS if name not in decoders]:
        yield Finding(
            "ffmpeg", "warn", f"decoders are missing: {', '.join(missing)}", "Install Debian's or Ubuntu's ffmpeg."
        )
    filters = _listed(["ffmpeg", "-hide_banner", "-filters"])
    if missing := [name for name in _FILTERS if name not in filters]:
        yield Finding(
            "ffmpeg", "fail", f"filters are missing: {', '.join(missing)}", "Install Debian's or Ubuntu's ffmpeg."
        )
    else:
        yield Finding("ffmpeg", "ok", f"all {len(_FILTERS)} filters")
    if "setts" not in _output(["ffmpeg", "-hide_banner", "-bsfs"]).split():
        yield Finding("ffmpeg", "fail", "bitstream filter setts is missing", "Install Debian's or Ubuntu's ffmpeg.")


def _listed(argv: list[str]) -> set[str]:
    """Second column of ffmpeg's lists."""
    return {parts[1] for line in _output(argv).splitlines() if len(parts := line.split()) >= 2}


def _espeak() -> Iterator[Finding]:
    remedy = "apt install espeak-ng"
    if shutil.which("espeak-ng") is None:
        yield Finding("speech", "fail", "espeak-ng is not installed: texts cannot be spoken", remedy)
        return
    voices = _output(["espeak-ng", "--voices"]).splitlines()[1:]
    languages = {parts[1] for line in voices if len(parts := line.split()) > 1}
    if not voices:
        yield Finding("speech", "fail", "espeak-ng has no voices", remedy)
    elif not any(language.startswith("en") for language in languages):
        yield Finding("speech", "warn", "espeak-ng lacks English voices", remedy)
    else:
        yield Finding("speech", "ok", f"espeak-ng speaks {len(languages)} languages")


def _imports() -> Iterator[Finding]:
    """Imported in a child: a library that is missing or crashes must not take the doctor with it."""
    for name, remedy in _IMPORTS.items():
        code = f"import {name}; print(getattr({name}, '__version__', ''))"
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            yield Finding("python", "fail", f"{name} takes more than {_TIMEOUT_SECONDS} s to import", remedy)
            continue
        if done.returncode == 0:
            yield Finding("python", "ok", f"{name} {done.stdout.decode('utf-8', 'replace').strip()}".strip())
        else:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1] if lines else f"ended with {done.returncode}"
            yield Finding("python", "fail", f"{name} cannot be imported: {reason}", remedy)


def _recogniser() -> Finding:
    """Lip sync without checkpoints works without it, but hears speech less well."""
    from heygemd.engines.rewrite.driver.recogniser import PACKAGE, VERSION, weights_file

    if weights_file() is None:
        text = f"{PACKAGE} {VERSION} is not installed: the engine rewrite hears speech less well"
        return Finding("python", "warn", text, "Install heygemd's requirements again.")
    return Finding("python", "ok", f"{PACKAGE} {VERSION}")
