"""Manifests and presets: what they may say, how they merge, and that the shipped schema says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heygemd.core.errors import ManifestError
from heygemd.core.job import InputFile, Item, Job, JobState
from heygemd.core.manifest import check_relative, merge_options, parse_manifest, parse_preset
from heygemd.core.options import Options
from heygemd.core.schema import manifest_schema, schema_text

PAIR = {"version": 1, "video": "v.mp4", "audio": "a.wav"}


def test_a_pair() -> None:
    manifest = parse_manifest({**PAIR, "priority": 3, "sha256": {"./v.mp4": "AB" * 32}}, "m")
    assert (manifest.all_videos, manifest.all_audios, manifest.batch) == (["v.mp4"], ["a.wav"], False)
    assert manifest.sha256 == {"v.mp4": "ab" * 32} and manifest.priority == 3


@pytest.mark.parametrize(
    ("keys", "videos", "audios"),
    [
        ({"videos": ["a.mp4", "sub/./b.mp4"], "audio": "s.wav"}, ["a.mp4", "sub/b.mp4"], ["s.wav"]),
        ({"video": "v.png", "audios": ["1.wav", "2.txt"]}, ["v.png"], ["1.wav", "2.txt"]),
        ({"videos": ["a.mp4"], "text": "hello"}, ["a.mp4"], []),
    ],
)
def test_batches(keys: dict[str, Any], videos: list[str], audios: list[str]) -> None:
    manifest = parse_manifest({"version": 1, **keys}, "m")
    assert manifest.batch and (manifest.all_videos, manifest.all_audios) == (videos, audios)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"version": 2}, "version: "),
        ({"version": True}, "version: must be the number 1"),
        ({"version": 1.0}, "version: must be the number 1"),
        ({"video": None}, "needs either `video` or `videos`"),
        ({"videos": ["x.mp4"]}, "needs either `video` or `videos`"),
        ({"text": "also"}, "exactly one of"),
        ({"audio": None}, "exactly one of"),
        ({"video": ""}, "video: "),
        ({"video": 5}, "video: "),
        ({"video": "x" * 1025}, "video: "),
        ({"video": "../x.mp4"}, "video: must not climb out"),
        ({"video": "/x.mp4"}, "video: must be relative"),
        ({"video": "C:\\x.mp4"}, "video: use / between folders"),
        ({"video": "a\tb.mp4"}, "video: has control characters"),
        ({"priority": 101}, "priority: "),
        ({"priority": "1"}, "priority: "),
        ({"priority": 1.0}, "priority: "),
        ({"sha256": {"v.mp4": "xyz"}}, "sha256.v.mp4: "),
        ({"sha256": {"../v.mp4": "0" * 64}}, "sha256: must not climb"),
        ({"sha256": None}, "sha256: "),
        ({"colour": 1}, "colour: unknown key, known are audio, audios, consent, engine"),
        ({"options": []}, "options: "),
        ({"a\nb": 1}, "a\\nb: unknown key"),
        ({"priorty": 1}, "priorty: unknown key, did you mean priority?"),
        ({"priorty": 1, "version": 2}, "version: Input should be 1; priorty: unknown key"),
        ({"a1": 1, "b2": 2, "c3": 3, "version": 2}, "(and 1 more)"),
    ],
)
def test_what_is_wrong_is_said_with_the_field(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest({**PAIR, **keys}, "x.job.json")
    assert caught.value.message.startswith("x.job.json: ") and message in caught.value.message
    assert "\n" not in caught.value.message


def test_videos_times_audios_is_not_offered() -> None:
    with pytest.raises(ManifestError, match="not both"):
        parse_manifest({"version": 1, "videos": ["a"], "audios": ["b"]}, "m")


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_a_document_that_is_no_table(data: Any) -> None:
    with pytest.raises(ManifestError, match="table of keys"):
        parse_manifest(data, "m")


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "a", "", "~", "b.mp4"]), max_size=6).map("/".join))
def test_relative_paths_never_leave(path: str) -> None:
    try:
        found = check_relative(path)
    except ValueError:
        return
    parts = found.split("/")
    assert parts and not {"", ".", ".."} & set(parts) and not found.startswith(("/", "~"))
    assert all(ord(c) >= 32 for c in found) and check_relative(found) == found


def test_options_merge_in_layers() -> None:
    merged = merge_options("m", {"quality": 20, "extend": "loop"}, {"quality": "best"}, {})
    assert (merged.quality, merged.extend, merged.tail) == ("best", "loop", "trim")
    with pytest.raises(ManifestError, match=r"options\.quality"):
        merge_options("m", {"quality": 99})
    with pytest.raises(ManifestError, match=r"options\.nope: unknown key"):
        merge_options("m", {"nope": 1})
    with pytest.raises(ManifestError, match="sync_offset_seconds"):
        merge_options("m", {"sync_offset_seconds": float("nan")})


def test_presets() -> None:
    preset = parse_preset({"priority": 2, "options": {"quality": "draft"}}, "p")
    assert (preset.priority, preset.engine, preset.options) == (2, None, {"quality": "draft"})
    for wrong in ({"video": "x"}, {"options": {"quality": 99}}, {"priority": 1000}):
        with pytest.raises(ManifestError):
            parse_preset(wrong, "p")


def test_a_job_survives_the_journal() -> None:
    file = InputFile("课程/v.mp4", "video", 1, 2, 3, 4, "ab")
    job = Job("id", "课程", "课程", (Item("i", file.path, None, "你好"),), (file,), Options(quality="draft"))
    job = job.evolve(state=JobState.FAILED, error={"code": "HG-1"}, batch=True, manifest="m")
    assert Job.from_json(job.to_json()) == job


def test_the_shipped_schema_is_in_step() -> None:
    shipped = Path(__file__).resolve().parents[3] / "config/manifest.schema.json"
    assert shipped.read_text() == schema_text(), "run: python -m heygemd.core.schema > config/manifest.schema.json"


def test_the_schema_knows_every_key() -> None:
    schema = manifest_schema()
    assert set(schema["properties"]["options"]["properties"]) == set(Options.model_fields)
    assert schema["additionalProperties"] is False and "null" not in json.dumps(schema)
