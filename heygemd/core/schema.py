"""The manifest's JSON Schema, as `config/manifest.schema.json` holds it for editors and other programs.

Write it anew after a change of Manifest or Options: `python -m heygemd.core.schema > config/manifest.schema.json`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from heygemd.core.manifest import Manifest
from heygemd.core.options import Options


def manifest_schema() -> dict[str, Any]:
    """Draft 2020-12. `options` is spelled out, where the model takes any keys and checks them after the presets."""
    schema = Manifest.model_json_schema()
    options = Options.model_json_schema()
    definitions = {**schema.pop("$defs", {}), **options.pop("$defs", {})}
    # quality is a number or a word to people, a text in the model
    options["properties"]["quality"] = {
        **options["properties"]["quality"],
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": 51}, {"type": "string"}],
    }
    options["properties"]["quality"].pop("type", None)
    schema["properties"]["options"] = {**options, "description": schema["properties"]["options"]["description"]}
    for properties in (schema["properties"], schema["properties"]["options"]["properties"]):
        for key, value in properties.items():
            properties[key] = _without_null(value)
    schema["oneOf"] = [{"required": ["video"]}, {"required": ["videos"]}]
    schema["allOf"] = [
        {"oneOf": [{"required": ["audio"]}, {"required": ["audios"]}, {"required": ["text"]}]},
        {"not": {"required": ["videos", "audios"]}},
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "heygemd job manifest, version 1",
        **({"$defs": definitions} if definitions else {}),
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    """A key that may be left out: nobody needs to write null, and `required` above could not tell it from absent."""
    kinds = [kind for kind in value.get("anyOf", ()) if kind != {"type": "null"}]
    if "anyOf" not in value or len(kinds) != 1:
        return value
    rest = {key: item for key, item in value.items() if key not in ("anyOf", "default")}
    return {**rest, **kinds[0]}


def schema_text() -> str:
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
