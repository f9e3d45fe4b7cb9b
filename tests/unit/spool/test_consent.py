"""Consent files: found beside their video, demanded by a folder, kept with the receipt."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from heygemd.core.errors import ConsentMissingError, ManifestError, MissingInputError
from heygemd.spool.consent import consent_stem
from heygemd.spool.drops import Why
from heygemd.spool.farewell import begin_retry, reject
from heygemd.spool.outbox import publish
from heygemd.spool.staging import stage

from .conftest import Desk
from .test_inbox_manifests import manifest, ready, refused
from .test_outbox import results, whole

DEMAND = "require_consent = true\n"


def pair(desk: Desk, stem: str = "lecture", folder: str = "") -> None:
    desk.put(f"{folder}{stem}.mp4", b"video")
    desk.put(f"{folder}{stem}.wav", b"audio")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("lecture.consent.pdf", "lecture"),
        ("课程 1.Consent.JPG", "课程 1"),
        ("a.consent.consent.txt", "a.consent"),
        ("consent.pdf", None),
        (".consent.pdf", None),
        ("lecture.consent", None),
        ("lecture.consents.pdf", None),
    ],
)
def test_names(name: str, stem: str | None) -> None:
    assert consent_stem(name) == stem


def test_without_the_demand_a_pair_needs_none(desk: Desk) -> None:
    pair(desk)
    assert [file.role for file in ready(desk).inputs] == ["video", "audio"]


def test_a_folder_that_demands_one_refuses_a_pair_without(desk: Desk) -> None:
    desk.put(".heygemd.toml", DEMAND)
    pair(desk)
    refusal = refused(desk)
    assert isinstance(refusal.error, ConsentMissingError)
    assert refusal.error.code == "HG-1014"
    assert "lecture.consent.pdf" in (refusal.error.remedy or "")
    assert {file.path for file in refusal.drop.inputs} == {"lecture.mp4", "lecture.wav"}


def test_a_consent_goes_along_demanded_or_not(desk: Desk) -> None:
    desk.put("strict/.heygemd.toml", DEMAND)
    for folder in ("", "strict/"):
        pair(desk, folder=folder)
        desk.put(f"{folder}lecture.consent.pdf", b"yes")
    scan = desk.settled()
    assert not scan.refused
    for drop in scan.ready:
        assert [file.role for file in drop.inputs] == ["video", "audio", "consent"]


def test_one_that_looks_like_a_picture_or_a_text_is_no_half_of_a_pair(desk: Desk) -> None:
    pair(desk)
    desk.put("lecture.consent.jpg", b"signature")
    desk.put("lecture.consent.txt", b"yes")
    assert [file.path for file in ready(desk).inputs] == [
        "lecture.mp4",
        "lecture.wav",
        "lecture.consent.jpg",
        "lecture.consent.txt",
    ]


def test_one_that_is_still_being_copied_is_waited_for(desk: Desk) -> None:
    desk.put(".heygemd.toml", DEMAND)
    pair(desk)
    desk.scan()
    desk.put("lecture.consent.pdf", b"y")
    scan = desk.scan(6.0)
    assert not scan.ready
    assert not scan.refused
    (waiting,) = scan.waiting
    assert waiting.reason is Why.SETTLING
    assert "lecture.consent.pdf" in waiting.detail
    desk.scan(6.0)
    assert len(desk.scan(6.0).ready) == 1


def test_alone_it_waits_for_its_video_for_ever(desk: Desk) -> None:
    desk.put("lecture.consent.pdf", b"yes")
    scan = desk.settled()
    assert not scan.waiting
    assert "goes with the video" in (scan.about("lecture.consent.pdf") or "")
    assert not desk.scan(1e6).refused


def test_a_folder_below_cannot_take_the_demand_back(desk: Desk) -> None:
    desk.put(".heygemd.toml", DEMAND)
    desk.put("free/.heygemd.toml", "require_consent = false\n")
    pair(desk, folder="free/")
    assert isinstance(refused(desk).error, ConsentMissingError)


def test_a_manifest_names_one_for_all_its_videos(desk: Desk) -> None:
    desk.put(".heygemd.toml", DEMAND)
    for name in ("a.mp4", "b.mp4", "s.wav", "papers/release.pdf"):
        desk.put(name)
    manifest(desk, "m.job.json", videos=["a.mp4", "b.mp4"], audio="s.wav", consent="papers/release.pdf")
    roles = {file.path: file.role for file in ready(desk).inputs}
    assert roles["papers/release.pdf"] == "consent"


def test_a_batch_needs_one_for_every_video(desk: Desk) -> None:
    desk.put(".heygemd.toml", DEMAND)
    for name in ("a.mp4", "a.consent.pdf", "b.mp4", "s.wav"):
        desk.put(name)
    manifest(desk, "m.job.json", videos=["a.mp4", "b.mp4"], audio="s.wav")
    assert "b.consent.pdf" in refused(desk).error.message


def test_a_named_one_that_never_comes_is_a_missing_file(desk: Desk) -> None:
    for name in ("a.mp4", "s.wav"):
        desk.put(name)
    manifest(desk, "m.job.json", video="a.mp4", audio="s.wav", consent="release.pdf")
    (waiting,) = desk.settled().waiting
    assert waiting.reason is Why.MISSING
    (refusal,) = desk.scan(1e6).refused
    assert isinstance(refusal.error, MissingInputError)


def test_the_video_is_no_consent(desk: Desk) -> None:
    for name in ("a.mp4", "s.wav"):
        desk.put(name)
    manifest(desk, "m.job.json", video="a.mp4", audio="s.wav", consent="a.mp4")
    assert isinstance(refused(desk).error, ManifestError)


def test_it_is_kept_with_the_receipt_by_name_and_sum(desk: Desk, tmp_path: Path) -> None:
    pair(desk)
    desk.put("lecture.consent.pdf", b"I agree")
    (job,) = desk.claim(desk.settled())
    staged = stage(job, desk.layout)
    consents = [copy for copy in staged.inputs if copy.path.endswith(".pdf")]
    folder = publish(job, desk.layout, results(tmp_path, [job.items[0].name]), {}, consents=consents)
    receipt = whole(folder, job)
    digest = hashlib.sha256(b"I agree").hexdigest()
    assert receipt["consent"] == [
        {"file": "lecture.consent.pdf", "path": "lecture.consent.pdf", "size_bytes": 7, "sha256": digest}
    ]
    assert (folder / "lecture.consent.pdf").read_bytes() == b"I agree"
    assert publish(job, desk.layout, results(tmp_path, [job.items[0].name]), {}, consents=consents) == folder


def test_a_name_that_is_the_results_is_given_to_the_result(desk: Desk, tmp_path: Path) -> None:
    for name in ("a.mp4", "s.wav", "a.jpg"):
        desk.put(name, name)
    manifest(desk, "a.job.json", video="a.mp4", audio="s.wav", consent="a.jpg")
    (job,) = desk.claim(desk.settled())
    consents = [copy for copy in stage(job, desk.layout).inputs if copy.path == "a.jpg"]
    folder = publish(job, desk.layout, results(tmp_path, ["a"]), {}, consents=consents)
    assert (folder / "a.jpg").read_bytes() == b"sheet of a"
    assert whole(folder, job)["consent"][0]["file"] == "a-consent.jpg"
    assert (folder / "a-consent.jpg").read_bytes() == b"a.jpg"


def test_it_goes_to_failed_and_a_retry_needs_it(desk: Desk) -> None:
    pair(desk)
    desk.put("lecture.consent.pdf", b"yes")
    (job,) = desk.claim(desk.settled())
    moved = reject(job, desk.layout, MissingInputError("x"))
    assert (moved.folder / "lecture.consent.pdf").is_file()
    assert json.loads((moved.folder / "error.json").read_text())["inputs"][2]["file"] == "lecture.consent.pdf"
    begin_retry(job, desk.layout)
    assert stage(job, desk.layout).sums()["lecture.consent.pdf"] == hashlib.sha256(b"yes").hexdigest()
