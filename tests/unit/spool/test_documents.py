"""Manifests as bytes: whatever comes, a tree or one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.errors import BadInputError, ManifestError, UnsafePathError
from heygemd.core.manifest import parse_manifest
from heygemd.spool.documents import decode, load_document, manifest_stem

SUFFIXES = ("json", "yaml", "toml")


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode(errors="surrogatepass")))
def test_any_bytes_are_decoded_or_refused(suffix: str, data: bytes) -> None:
    try:
        parse_manifest(decode(data, suffix, "x.job", 1000), "x.job")
    except BadInputError as error:
        assert error.message.startswith("x.job: ") and "\n" not in error.message


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
keys = st.sampled_from(
    ["version", "video", "videos", "audio", "audios", "text", "engine", "priority", "options", "sha256", "x"]
)


@given(
    st.dictionaries(keys, st.just(1) | st.just("a.mp4") | st.lists(st.just("b.wav"), max_size=3) | trees, max_size=6)
)
def test_any_keys_make_a_manifest_or_one_error(tree: dict[str, object]) -> None:
    data = json.dumps(tree).encode()
    try:
        manifest = parse_manifest(decode(data, "json", "x", 100_000), "x")
    except BadInputError as error:
        assert "\n" not in error.message and len(error.message) < 600
    else:
        assert manifest.version == 1 and all(manifest.all_videos)


def test_names_of_manifests() -> None:
    found = {name: manifest_stem(name) for name in ("a.job.json", "a.JOB.Yaml", "b.c.job.yml", "a.json", "job.toml")}
    assert found == {"a.job.json": "a", "a.JOB.Yaml": "a", "b.c.job.yml": "b.c", "a.json": None, "job.toml": None}


def test_one_file_from_a_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.job.json"
    path.write_text('{"version": 1}')
    assert load_document(path, 100) == {"version": 1}
    (tmp_path / "b.job.json").symlink_to(path)
    with pytest.raises(UnsafePathError):
        load_document(tmp_path / "b.job.json", 100)
    with pytest.raises(ManifestError):
        decode(b"\x80", "json", "x", 100)
