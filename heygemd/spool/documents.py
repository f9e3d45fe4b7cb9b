"""Manifests and presets as bytes: read within limits, decoded strictly. What the keys mean is core.manifest's."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from heygemd.core.errors import LimitError, ManifestError
from heygemd.files import open_regular
from heygemd.spool.beneath import open_beneath
from heygemd.spool.names import shown

MAX_DEPTH = 20
MAX_YAML_BYTES = 200_000
"""YAML takes a hundred times as long to read as JSON."""

MANIFEST_ENDINGS: dict[str, str] = {
    ".job.json": "json",
    ".job.yaml": "yaml",
    ".job.yml": "yaml",
    ".job.toml": "toml",
}

PRESET_NAME = ".heygemd.toml"


def manifest_stem(name: str) -> str | None:
    """`lecture` for `lecture.job.json` (in any case), None for what is not a manifest's name."""
    lower = name.lower()
    for ending in MANIFEST_ENDINGS:
        if lower.endswith(ending) and len(lower) == len(name):
            return name[: -len(ending)]
    return None


def read_document(root: Path, relative: str, name: str, max_bytes: int) -> Any:
    """Read and decode `relative` below `root` by its suffix; `name` stands in messages.

    Raises OSError, UnsafePathError, LimitError, ManifestError.
    """
    with open_beneath(root, relative) as file:
        data = file.read(max_bytes + 1)
    return decode(data, relative.rpartition(".")[2].lower(), name, max_bytes)


def load_document(path: Path, max_bytes: int) -> Any:
    """The same for one file given by its own path, as on a command line."""
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    return decode(data, path.suffix.lower().removeprefix("."), path.name, max_bytes)


def decode(data: bytes, suffix: str, name: str, max_bytes: int) -> Any:
    """Decode JSON, YAML or TOML. Refuses duplicate keys, NaN, aliases, tags, depth and size beyond the limits."""
    limit = min(max_bytes, MAX_YAML_BYTES) if suffix in ("yaml", "yml") else max_bytes
    if len(data) > limit:
        raise LimitError(
            f"{name}: larger than {limit:,} bytes",
            path=name,
            case="file_too_large",
            size_bytes=len(data),
            limit_bytes=limit,
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{name}: is not UTF-8 (byte {error.start})", path=name) from None
    try:
        if suffix == "json":
            tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        elif suffix == "toml":
            tree = tomllib.loads(text)
        else:
            tree = _yaml(text)
        _check_tree(tree, 0)
    except RecursionError:
        raise ManifestError(f"{name}: nested deeper than {MAX_DEPTH} levels", path=name) from None
    except yaml.YAMLError as error:
        raise ManifestError(f"{name}: {shown(_yaml_reason(error))}", path=name) from None
    except ValueError as error:
        raise ManifestError(f"{name}: {shown(str(error))}", path=name) from None
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands there twice")
        found[key] = value
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number that can be used")


def _check_tree(node: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not a text")
            _check_tree(key, depth)
            _check_tree(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            _check_tree(value, depth + 1)
    elif isinstance(node, float) and not math.isfinite(node):
        raise ValueError(f"{node} is not a number that can be used")
    elif isinstance(node, str) and any("\ud800" <= c <= "\udfff" for c in node):
        raise ValueError("holds half of a surrogate pair")


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the base is chosen at run time
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem="merge keys are not allowed", problem_mark=key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


def _yaml(text: str) -> Any:
    """One document without anchors: aliases are refused before anything is built (billion laughs)."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"anchors and aliases are not allowed{_where(event.start_mark)}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH + 1:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}{_where(mark)}"


def _where(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
