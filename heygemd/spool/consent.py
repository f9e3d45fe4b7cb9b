"""Consent files: what shows that the person in a video agreed. They lie beside it and travel with its job.

`lecture.consent.pdf` belongs to the video `lecture.mp4`, whatever its suffix; there may be several. A folder's preset
can demand one (`require_consent`); where there is one, it goes along undemanded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from heygemd.core.errors import ConsentMissingError, HeygemdError
from heygemd.core.manifest import parse_preset
from heygemd.spool.documents import PRESET_NAME, read_document
from heygemd.spool.listing import Seen
from heygemd.spool.names import nfc, shown
from heygemd.spool.pairing import stem_of

NOT_ALONE = "a consent file: it goes with the video of its name"

_NAME = re.compile(r"(?P<stem>.+)\.consent\.[^.]+", re.IGNORECASE | re.DOTALL)


def consent_stem(name: str) -> str | None:
    """`lecture` for `lecture.consent.pdf`, None for what is not a consent file's name."""
    match = _NAME.fullmatch(name)
    return match["stem"] if match else None


def demands_consent(inbox: Path, folder: str, max_bytes: int) -> bool:
    """Whether the preset of `folder` (relative to the inbox, "" for itself) or of one above it demands a consent now.

    For those who put jobs into the inbox; the scan decides by what it reads itself. A preset that is missing or wrong
    demands nothing: the scan holds jobs back while one is wrong, and says so.
    """
    place = PurePosixPath(folder)
    for above in (place, *place.parents):
        path = str(above / PRESET_NAME)
        try:
            if parse_preset(read_document(inbox, path, path, max_bytes), path).require_consent:
                return True
        except (OSError, HeygemdError):
            continue
    return False


class Consents:
    """The consent files of one scan, by folder and video name."""

    def __init__(self, files: Iterable[Seen]) -> None:
        self._files: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        for seen in files:
            stem = consent_stem(seen.name)
            if stem is not None:
                self._files[seen.folder, nfc(stem)].append(seen)

    def of(self, videos: Sequence[Seen]) -> list[Seen]:
        """Those that lie beside these videos, each once, in order of their names."""
        found = {seen.path: seen for video in videos for seen in self._beside(video)}
        return [found[path] for path in sorted(found)]

    def require(self, videos: Sequence[Seen], named: Collection[Seen] = ()) -> None:
        """Raise ConsentMissingError for the first video without one; `named`: the manifest's, good for all."""
        for video in () if named else videos:
            if not self._beside(video):
                expected = f"{stem_of(video.name)}.consent.pdf"
                raise ConsentMissingError(
                    f"{shown(video.path)}: this folder demands a consent file, and {shown(expected)} is not beside it",
                    remedy=f"Put {shown(expected)} (any suffix) beside the video and drop all files again.",
                    path=video.path,
                )

    def _beside(self, video: Seen) -> list[Seen]:
        return self._files.get((video.folder, nfc(stem_of(video.name))), [])
