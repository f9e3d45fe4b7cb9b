"""What every result says of itself to machines: that it is synthetic, by whom, and which one it is. Only words here.

Three vocabularies, so that whoever looks finds one that he reads: China's AIGC label (GB 45438-2025), the IPTC digital
source type in XMP, and plain sentences. docs/provenance.md tells who asks for which.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

MarkWords = Literal["off", "en", "zh", "both"]

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC: captured media into which parts were put by a trained algorithm. It holds for every engine: the mouth is made,
the rest is the source's."""

AIGC_KEY = "AIGC"
"""Key of the label in an MP4's metadata (moov/udta/meta), as the standard and its practice guides have it."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": _RDF,
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
}
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '\n<?xpacket end="r"?>'


@dataclass(frozen=True)
class Provenance:
    """Of one result. `content_id`: unique for ever; `created`: ISO 8601 with its zone; `program`: name and version."""

    content_id: str
    producer: str
    engine: str
    program: str
    created: str

    @property
    def sentence(self) -> str:
        return f"AI-generated lip sync; {self.program}, engine {self.engine}"

    def aigc(self) -> dict[str, str]:
        """The implicit label: all seven keys in the standard's order. Platforms that spread it fill the last three.

        Label 1: known to be generated, not merely suspected (2, 3).
        """
        return {
            "Label": "1",
            "ContentProducer": self.producer,
            "ProduceID": self.content_id,
            "ReservedCode1": "",
            "ContentPropagator": "",
            "PropagateID": "",
            "ReservedCode2": "",
        }

    def aigc_text(self) -> str:
        return json.dumps(self.aigc(), ensure_ascii=False, separators=(",", ":"))

    def xmp(self) -> bytes:
        """An XMP packet (UTF-8) with the digital source type, the AIGC label and what made it."""
        name, _, version = self.program.partition(" ")
        for prefix, uri in _NAMESPACES.items():
            ET.register_namespace(prefix, uri)
        top = ET.Element(_tag("x", "xmpmeta"))
        about = ET.SubElement(
            ET.SubElement(top, _tag("rdf", "RDF")), _tag("rdf", "Description"), {_tag("rdf", "about"): ""}
        )
        for prefix, key, text in (
            ("Iptc4xmpExt", "DigitalSourceType", SOURCE_TYPE),
            ("Iptc4xmpExt", "AISystemUsed", f"{name}, engine {self.engine}"),
            ("Iptc4xmpExt", "AISystemVersionUsed", version),
            ("TC260", AIGC_KEY, self.aigc_text()),
            ("xmp", "CreatorTool", self.program),
            ("xmp", "CreateDate", self.created),
            ("dc", "identifier", self.content_id),
        ):
            ET.SubElement(about, _tag(prefix, key)).text = text
        words = ET.SubElement(ET.SubElement(about, _tag("dc", "description")), _tag("rdf", "Alt"))
        sentence = ET.SubElement(words, _tag("rdf", "li"), {"xml:lang": "x-default"})
        sentence.text = self.sentence
        return (_BEGIN + ET.tostring(top, encoding="unicode") + _END).encode()


def stronger_mark(operator: MarkWords, job: MarkWords | None) -> MarkWords:
    """The mark that is drawn: a job may ask for one or choose its language, not put the operator's off."""
    return job if job is not None and job != "off" else operator


def _tag(prefix: str, name: str) -> str:
    return f"{{{_NAMESPACES[prefix]}}}{name}"
