"""Names that a scan leaves alone. Globs, not regular expressions: a wrong glob spares one kind of file, a wrong
regular expression once ignored everybody's (https://github.com/paperless-ngx/paperless-ngx/issues/13487)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

ALWAYS: tuple[tuple[str, str], ...] = (
    ("._*", "a macOS side file"),
    (".DS_Store", "a macOS folder file"),
    (".nfs*", "an NFS remnant"),
    (".stfolder", "a Syncthing marker"),
    (".Trashes", "a trash folder"),
    (".*", "hidden"),
    ("Thumbs.db", "a Windows thumbnail file"),
    ("desktop.ini", "a Windows folder file"),
    ("~$*", "an Office lock file"),
    ("*.part", "an unfinished copy"),
    ("*.partial", "an unfinished copy"),
    ("*.tmp", "a temporary file"),
    ("*.crdownload", "an unfinished download"),
    ("*.filepart", "an unfinished copy"),
    ("@eaDir", "a NAS index folder"),
    ("__MACOSX", "a macOS archive remnant"),
    ("$RECYCLE.BIN", "a trash folder"),
)
"""Glob → why; the first that matches speaks."""


class Ignore:
    """Decides by a name's last component, without regard to case."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._rules = [
            (re.compile(fnmatch.translate(glob.casefold())).match, f"{why} ({glob})")
            for glob, why in (*ALWAYS, *((glob, "ignored by the configuration") for glob in more))
        ]
        any_rule = "|".join(f"(?:{fnmatch.translate(glob.casefold())})" for glob in (*(g for g, _ in ALWAYS), *more))
        self._any = re.compile(any_rule).match

    def why_ignored(self, name: str) -> str | None:
        """Why files and folders of this name are ignored, with the glob that says so; None when they are not."""
        folded = name.casefold()
        if not self._any(folded):
            return None
        return next(why for match, why in self._rules if match(folded))


_VIDEO = (
    ".mp4 .m4v .mov .qt .mkv .webm .avi .wmv .asf .flv .f4v .ts .mts .m2ts .mpg .mpeg .m2v .vob .ogv .3gp .3g2 .mxf "
    ".dv .y4m .gif"
)
_IMAGE = ".jpg .jpeg .jpe .png .webp .bmp .tif .tiff"
_AUDIO = (
    ".wav .wave .bwf .mp3 .m4a .m4b .aac .flac .ogg .oga .opus .wma .aif .aiff .aifc .ac3 .eac3 .amr .caf .mka .au "
    ".snd .w64"
)

KINDS: dict[str, str] = {
    **dict.fromkeys(_VIDEO.split(), "video"),
    **dict.fromkeys(_IMAGE.split(), "image"),
    **dict.fromkeys(_AUDIO.split(), "audio"),
    ".txt": "text",
}
"""Suffix in lower case → what a pair takes the file for. A manifest may name any suffix: the probe decides."""
