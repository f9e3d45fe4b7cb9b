"""Labels a joined video before it gets its name, and tells what was done, for the receipt."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import heygemd
from heygemd.core.provenance import AIGC_KEY, SOURCE_TYPE, Provenance
from heygemd.core.settings import ProvenanceSettings
from heygemd.files import temp_name
from heygemd.media.stamp import add_xmp_to_jpeg, append_xmp, check_labels
from heygemd.work.credentials import read_credentials, sign, utc_now
from heygemd.work.item import Prepared


class Labels:
    """The labels of one result. Used in this order: `tags` while muxing, `stamp`, `check`, `stamp_sheet`."""

    def __init__(self, prepared: Prepared, settings: ProvenanceSettings) -> None:
        self._settings = settings
        self._mark = prepared.options.mark or "off"
        self.provenance = Provenance(
            content_id=uuid.uuid4().hex,
            producer=settings.producer or "heygemd",
            engine=prepared.engine,
            program=f"heygemd {heygemd.__version__}",
            created=utc_now(),
        )

    @property
    def tags(self) -> dict[str, str]:
        """For the muxer."""
        tags = {"comment": self.provenance.sentence}
        return tags | ({AIGC_KEY: self.provenance.aigc_text()} if self._settings.metadata else {})

    def stamp(self, video: Path) -> None:
        """Add XMP and, where a certificate is configured, sign. `video` has a temporary name. Raises HeygemdError."""
        if self._settings.metadata:
            append_xmp(video, self.provenance.xmp())
        if self._settings.certificate:
            signed = temp_name(video).with_suffix(".mp4")
            try:
                sign(video, signed, self.provenance, self._settings)
                signed.replace(video)
            finally:
                signed.unlink(missing_ok=True)

    def stamp_sheet(self, sheet: Path) -> None:
        """The contact sheet shows synthetic frames too."""
        if self._settings.metadata:
            add_xmp_to_jpeg(sheet, self.provenance.xmp())

    def check(self, video: Path) -> dict[str, Any]:
        """Read everything back; what the receipt says of it. Raises ProvenanceError where something is missing."""
        credentials = None
        if self._settings.metadata:
            check_labels(video, self.provenance)
        if self._settings.certificate:
            credentials = read_credentials(video).to_dict()
        return {
            "content_id": self.provenance.content_id,
            "digital_source_type": SOURCE_TYPE if self._settings.metadata else None,
            "aigc": self.provenance.aigc() if self._settings.metadata else None,
            "mark": self._mark,
            "content_credentials": credentials,
        }
