"""Manifests and presets in the inbox: batches, what they claim, what they wait for, and hostile ones."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heygemd.core.errors import (
    HeygemdError,
    LimitError,
    ManifestError,
    MissingInputError,
    UnsafePathError,
)
from heygemd.spool.drops import Drop, Refusal, Why

from .conftest import Desk


def manifest(desk: Desk, path: str, **keys: Any) -> Path:
    return desk.put(path, json.dumps({"version": 1, **keys}))


def ready(desk: Desk) -> Drop:
    scan = desk.settled()
    assert not scan.refused, scan.refused
    (drop,) = scan.ready
    return drop


def refused(desk: Desk) -> Refusal:
    scan = desk.settled()
    assert not scan.ready
    (refusal,) = scan.refused
    return refusal


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.job.json", '{"version": 1, "video": "v.mp4", "audio": "s.wav", "options": {"quality": "draft"}}'),
        ("a.job.yaml", "version: 1\nvideo: v.mp4\naudio: s.wav\noptions: {quality: draft}\n"),
        ("a.Job.YML", "version: 1\nvideo: v.mp4\naudio: s.wav\noptions:\n  quality: draft\n"),
        ("a.job.toml", 'version = 1\nvideo = "v.mp4"\naudio = "s.wav"\n[options]\nquality = "draft"\n'),
        ("a.job.json", '\ufeff{"version": 1, "video": "v.mp4", "audio": "s.wav", "options": {"quality": "draft"}}'),
    ],
)
def test_a_manifest_in_each_format(desk: Desk, name: str, text: str) -> None:
    desk.put("v.mp4")
    desk.put("s.wav")
    desk.put(name, text)
    drop = ready(desk)
    assert (drop.name, drop.manifest, drop.options.quality) == ("a", name, "draft")
    assert [(f.path, f.role) for f in drop.inputs] == [("v.mp4", "video"), ("s.wav", "audio"), (name, "manifest")]


def test_batches(desk: Desk) -> None:
    for name in ("v/one.mp4", "v/two.mov", "one.mp4", "s.wav", "de.wav", "en.wav"):
        desk.put(name)
    manifest(desk, "many.job.json", videos=["v/one.mp4", "v/two.mov", "one.mp4"], audio="s.wav")
    drop = ready(desk)
    assert drop.batch and [(i.name, i.video, i.audio) for i in drop.items] == [
        ("one", "v/one.mp4", "s.wav"),
        ("two", "v/two.mov", "s.wav"),
        ("one-2", "one.mp4", "s.wav"),
    ]
    assert len(drop.inputs) == 5
    desk.claim(desk.scan())
    manifest(desk, "langs.job.json", video="one.mp4", audios=["de.wav", "en.wav"])
    drop = ready(desk)
    assert [(i.name, i.video) for i in drop.items] == [("de", "one.mp4"), ("en", "one.mp4")]


def test_an_item_never_has_the_name_of_the_batch(desk: Desk) -> None:
    for name in ("a.mp4", "b.mp4", "s.wav"):
        desk.put(name)
    manifest(desk, "a.job.json", videos=["a.mp4", "b.mp4"], audio="s.wav")
    assert [i.name for i in ready(desk).items] == ["a-2", "b"]


def test_text_and_one_file_for_both(desk: Desk) -> None:
    desk.put("v.mp4")
    manifest(desk, "t.job.json", video="v.mp4", text="你好", options={"language": "cmn"})
    drop = ready(desk)
    assert drop.items[0].text == "你好" and drop.items[0].audio is None
    desk.claim(desk.scan())
    manifest(desk, "same.job.json", video="v.mp4", audio="v.mp4")
    drop = ready(desk)
    assert [f.path for f in drop.inputs] == ["v.mp4", "same.job.json"]


def test_sums_reach_their_files(desk: Desk) -> None:
    desk.put("sub/v.mp4")
    desk.put("sub/s.wav")
    manifest(desk, "sub/a.job.json", video="v.mp4", audio="s.wav", sha256={"s.wav": "AB" * 32})
    sums = {f.path: f.sha256 for f in ready(desk).inputs}
    assert sums == {"sub/v.mp4": None, "sub/s.wav": "ab" * 32, "sub/a.job.json": None}


def test_named_files_are_found_in_either_composition(desk: Desk) -> None:
    desk.put(unicodedata.normalize("NFD", "vidéo.mp4"))
    desk.put("s.wav")
    manifest(desk, "a.job.json", video=unicodedata.normalize("NFC", "vidéo.mp4"), audio="s.wav")
    assert ready(desk).items[0].video == unicodedata.normalize("NFD", "vidéo.mp4")


# what a manifest claims


def test_a_manifest_that_comes_while_the_pair_settles_wins(desk: Desk) -> None:
    desk.put("a.mp4")
    desk.put("a.wav")
    desk.scan()
    manifest(desk, "a.job.json", video="a.mp4", audio="a.wav", options={"quality": "best"})
    scan = desk.scan(10.0)
    assert not scan.ready, "the pair alone would be complete"
    (drop,) = desk.scan(10.0).ready
    assert drop.manifest == "a.job.json" and drop.options.quality == "best"


def test_a_half_written_manifest_holds_the_pairs_of_its_folder_and_below(desk: Desk) -> None:
    for folder in ("", "x/", "x/y/"):
        desk.put(f"{folder}a.mp4")
        desk.put(f"{folder}a.wav")
    desk.scan()
    path = desk.put("x/b.job.json", '{"version": 1, "vid')
    scan = desk.scan(10.0)
    assert [d.folder for d in scan.ready] == [""]
    assert {w.reason for w in scan.waiting} == {Why.SETTLING, Why.MANIFEST}
    path.unlink()
    assert len(desk.scan(1.0).ready) == 3


def test_files_of_a_waiting_or_claimed_manifest_are_no_pair(desk: Desk) -> None:
    desk.put("a.mp4")
    desk.put("a.wav")
    manifest(desk, "x.job.json", video="a.mp4", text="hello")
    drop = ready(desk)
    assert drop.manifest == "x.job.json"
    assert desk.scan().waiting[0].path == "a.wav"
    desk.claim(desk.scan())
    assert not desk.settled().ready, "also while its job runs"


def test_two_manifests_share_a_video(desk: Desk) -> None:
    for name in ("v.mp4", "1.wav", "2.wav"):
        desk.put(name)
    for n in (1, 2):
        manifest(desk, f"{n}.job.json", video="v.mp4", audio=f"{n}.wav")
    assert [d.name for d in desk.settled().ready] == ["1", "2"]


# what a manifest waits for


def test_a_name_in_another_case_is_pointed_out(desk: Desk) -> None:
    desk.put("v.mp4")
    desk.put("a.wav")
    manifest(desk, "m.job.json", video="V.MP4", audio="a.wav")
    (waiting,) = [w for w in desk.settled().waiting if w.reason is Why.MISSING]
    assert waiting.detail == "waits for V.MP4 (v.mp4 is there: upper and lower case count)"


def test_missing_files_are_waited_for_then_refused(desk: Desk) -> None:
    desk.put("v.mp4")
    manifest(desk, "a.job.json", video="v.mp4", audio="later.wav")
    scan = desk.settled()
    (waiting,) = scan.waiting
    assert waiting.reason is Why.MISSING and "later.wav" in waiting.detail
    assert scan.about("v.mp4") == scan.about("a.job.json") is not None
    (refusal,) = desk.scan(1e6).refused
    assert isinstance(refusal.error, MissingInputError) and "later.wav" in refusal.error.message
    assert [f.path for f in refusal.drop.inputs] == ["v.mp4", "a.job.json"]
    desk.put("later.wav")
    assert desk.settled().ready


def test_zero_waits_for_ever(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(partner_timeout_seconds=0)
    manifest(desk, "a.job.json", video="v.mp4", audio="later.wav")
    desk.settled()
    assert not desk.scan(1e9).refused


def test_a_named_file_that_is_unfinished_says_so(desk: Desk) -> None:
    desk.put("v.mp4")
    desk.put("s.wav.part")
    manifest(desk, "a.job.json", video="v.mp4", audio="s.wav.part")
    assert "an unfinished copy" in desk.settled().waiting[0].detail


def test_a_growing_input_holds_its_manifest(desk: Desk) -> None:
    desk.put("v.mp4")
    desk.put("s.wav")
    manifest(desk, "a.job.json", video="v.mp4", audio="s.wav")
    desk.scan()
    desk.put("s.wav", b"more")
    scan = desk.scan(10.0)
    assert not scan.ready and "s.wav" in scan.waiting[0].detail


# presets


def test_presets_go_down_and_the_manifest_wins(desk: Desk) -> None:
    desk.put(".heygemd.toml", 'priority = 1\nengine = "rewrite"\n[options]\nquality = "best"\nextend = "loop"\n')
    desk.put("sub/.heygemd.toml", 'priority = 5\n[options]\nquality = "draft"\n')
    for folder in ("", "sub/", "sub/deep/"):
        desk.put(f"{folder}a.mp4")
        desk.put(f"{folder}a.wav")
    manifest(desk, "sub/a.job.json", video="a.mp4", audio="a.wav", engine="auto", options={"quality": "12"})
    found = {
        d.folder: (d.priority, d.options.engine, d.options.quality, d.options.extend) for d in desk.settled().ready
    }
    assert found == {
        "": (1, "rewrite", "best", "loop"),
        "sub": (5, "auto", "12", "loop"),
        "sub/deep": (5, "rewrite", "draft", "loop"),
    }


@pytest.mark.parametrize("text", ["quality = 'best'", "not toml", "[options]\nquality = 99", "priority = nan"])
def test_a_broken_preset_makes_its_jobs_wait_and_loses_nothing(desk: Desk, text: str) -> None:
    preset = desk.put("sub/.heygemd.toml", text)
    desk.put("sub/a.mp4")
    desk.put("sub/a.wav")
    desk.put("b.mp4")
    desk.put("b.wav")
    scan = desk.settled()
    assert [d.name for d in scan.ready] == ["b"]
    (waiting,) = scan.waiting
    assert waiting.reason is Why.PRESET and "sub/.heygemd.toml" in waiting.detail
    assert not desk.scan(1e7).refused
    preset.unlink()
    assert len(desk.scan(1.0).ready) == 2


# hostile


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "~/x.mp4", "sub/../../x.mp4", "C:/x.mp4", "a\\b.mp4", "..", "x\x00.mp4",
     "a\n.mp4", ".", "//x"],
)  # fmt: skip
def test_paths_that_climb_are_refused(desk: Desk, path: str) -> None:
    desk.put("s.wav")
    manifest(desk, "a.job.json", video=path, audio="s.wav")
    refusal = refused(desk)
    assert isinstance(refusal.error, ManifestError)
    assert "\n" not in refusal.error.message and "\x00" not in refusal.error.message
    assert {f.path for f in refusal.drop.inputs} == {"s.wav", "a.job.json"}


def test_links_on_the_way_are_refused(desk: Desk, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "v.mp4").write_bytes(b"secret")
    (desk.layout.inbox / "dir").symlink_to(outside)
    (desk.layout.inbox / "v.mp4").symlink_to(outside / "v.mp4")
    desk.put("s.wav")
    for n, video in enumerate(("dir/v.mp4", "v.mp4")):
        path = manifest(desk, f"{n}.job.json", video=video, audio="s.wav")
        refusal = refused(desk)
        assert isinstance(refusal.error, UnsafePathError) and "symbolic link" in refusal.error.message
        path.unlink()


def test_a_hard_link_and_a_linked_manifest(desk: Desk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"{}")
    (desk.layout.inbox / "v.mp4").hardlink_to(secret)
    desk.put("s.wav")
    path = manifest(desk, "a.job.json", video="v.mp4", audio="s.wav")
    assert isinstance(refused(desk).error, UnsafePathError)
    path.unlink()
    (desk.layout.inbox / "b.job.json").hardlink_to(secret)
    assert isinstance(refused(desk).error, UnsafePathError)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.job.json", "{"),
        ("a.job.json", "[]"),
        ("a.job.json", "null"),
        ("a.job.json", b"\xff\xfe{\x00}\x00"),
        ("a.job.json", '{"version": 1, "version": 1, "video": "v.mp4", "text": "x"}'),
        ("a.job.json", '{"version": 2, "video": "v.mp4", "text": "x"}'),
        ("a.job.json", '{"version": "1", "video": "v.mp4", "text": "x"}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "text": "x", "priority": NaN}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "text": "x", "options": {"sync_offset_seconds": 1e999}}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "text": "\\ud800"}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "text": "x", "colour": "red"}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "text": "x", "options": {"colour": "red"}}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "audio": "s.wav", "text": "x"}'),
        ("a.job.json", '{"version": 1, "videos": ["v.mp4", "v.mp4"], "audio": "s.wav"}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "audio": "a.job.json"}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "audio": "s.wav", "sha256": {"other": "' + "0" * 64 + '"}}'),
        ("a.job.json", '{"version": 1, "video": "v.mp4", "text": ' + "9" * 5000 + "}"),
        ("a.job.json", json.dumps({"evil\nERROR forged": 1})),
        ("a.job.json", json.dumps({"x" * 900_000: 1})),
        ("a.job.json", json.dumps({"version": 1, "video": "v.mp4", "text": "x", "options": {"a\nb" * 99: 1}})),
        ("a.job.json", '{"a\\nb": 1, "a\\nb": 1}'),
        ("a.job.yaml", '"a\\nb": 1\n"a\\nb": 1\n'),
        ("a.job.json", "[" * 100_000),
        ("a.job.json", '{"a":' * 50_000),
        ("a.job.yaml", "a: &x [1]\nb: *x\n"),
        ("a.job.yaml", "version: 1\nversion: 1\nvideo: v.mp4\ntext: x\n"),
        ("a.job.yaml", "<<: {version: 1}\nvideo: v.mp4\ntext: x\n"),
        ("a.job.yaml", "!!python/object/apply:os.system [reboot]\n"),
        ("a.job.yaml", "version: 1\n---\nversion: 1\n"),
        ("a.job.yaml", "[" * 5000),
        ("a.job.yaml", "? [1]\n: 2\n"),
        ("a.job.yaml", "version: 1\nvideo: v.mp4\ntext: .nan\n"),
        ("a.job.yaml", "\t\x01"),
        ("a.job.yaml", ""),
        ("a.job.toml", "version = 1\nversion = 1\n"),
        ("a.job.toml", 'version = 1\nvideo = "v.mp4"\ntext = nan\n'),
        ("a.job.toml", "a = " + "[" * 5000),
        ("a.job.toml", "version = 2020-01-01\n"),
    ],
)
def test_broken_manifests_are_refused_with_their_files(desk: Desk, name: str, data: str | bytes) -> None:
    desk.put("v.mp4")
    desk.put("s.wav")
    desk.put("a.mp4")
    desk.put(name, data)
    refusal = refused(desk)
    assert isinstance(refusal.error, ManifestError), refusal.error
    assert refusal.error.message.startswith("a.job.") and "\n" not in refusal.error.message
    assert len(refusal.error.message) < 500
    assert refusal.drop.manifest == name and refusal.drop.items == ()
    assert refusal.drop.inputs[-1].role == "manifest"


def test_a_broken_manifest_takes_the_files_of_its_stem_along(desk: Desk) -> None:
    desk.put("a.mp4")
    desk.put("a.wav")
    desk.put("a.job.json", "{")
    scan = desk.settled()
    assert not scan.ready, "nobody asked for this pair with default options"
    assert [f.path for f in scan.refused[0].drop.inputs] == ["a.mp4", "a.wav", "a.job.json"]


def test_huge_manifests_are_not_read(desk: Desk) -> None:
    desk.put("a.job.json", b"[" + b" " * 2_000_000)
    os.truncate(desk.put("b.job.yaml"), 10**11)
    errors = [r.error for r in desk.settled().refused]
    assert len(errors) == 2 and all(isinstance(e, LimitError) for e in errors)


def test_a_yaml_bomb_costs_nothing(desk: Desk) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    desk.put("a.job.yaml", "\n".join(lines))
    error = refused(desk).error
    assert isinstance(error, ManifestError) and "anchors and aliases" in error.message


@pytest.mark.parametrize(
    "keys", [{"videos": [f"{n}.mp4" for n in range(501)], "audio": "s.wav"}, {"video": "0.mp4", "text": "x" * 100_001}]
)
def test_limits(desk: Desk, keys: dict[str, Any]) -> None:
    for n in range(501):
        desk.put(f"{n}.mp4")
    desk.put("s.wav")
    manifest(desk, "a.job.json", **keys)
    error = desk.settled().refused[0].error
    assert isinstance(error, LimitError)


def test_refused_inputs_of_another_job_stay(desk: Desk) -> None:
    running = desk.job("v")
    desk.put("new.wav")
    manifest(desk, "a.job.json", video="v.mp4", audio="new.wav", options={"quality": "nonsense"})
    (refusal,) = desk.settled().refused
    assert isinstance(refusal.error, HeygemdError) and "quality" in refusal.error.message
    assert {f.path for f in refusal.drop.inputs} == {"new.wav", "a.job.json"}
    assert running.name == "v"


def test_a_manifest_swapped_while_it_is_read_is_read_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put("v.mp4")
    path = manifest(desk, "a.job.json", video="v.mp4", text="one")
    listed = path.stat().st_size
    original = os.fstat

    def grown(fd: int) -> os.stat_result:
        found = original(fd)
        if found.st_size == listed:
            return os.stat_result((*found[:6], found.st_size + 1, *found[7:10]))
        return found

    monkeypatch.setattr("heygemd.spool.wording.os.fstat", grown)
    scan = desk.settled()
    assert not scan.ready and scan.waiting[0].reason is Why.BUSY
    monkeypatch.undo()
    assert desk.scan(1.0).ready
