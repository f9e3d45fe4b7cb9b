"""What an order says of single videos, and of its place among the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from heygemd.web.accounts import add_user
from tests.web.conftest import AUDIO_LOOK, VIDEO_LOOK, WORDS, Maker, Web, bring, manifests, order


def test_the_face_of_one_video_of_several(web: Web) -> None:
    client = web.guest()
    audio = bring(client, "speech.wav", b"a", AUDIO_LOOK)
    names = ("one.mp4", "two.mp4", "three.mp4")
    one, two, three = ({"video": bring(client, name, b"v", VIDEO_LOOK), "audio": audio} for name in names)
    pairs = (one | {"face": "leftmost"}, two | {"face": "largest"}, three)
    assert order(client, *pairs, options={"face": "rightmost"}).status_code == 201
    written = {path.name: path.read_text() for path in web.site.layout.inbox.rglob("*.job.json")}
    assert '"face": "leftmost"' in written["one.job.json"]
    assert '"face"' not in written["two.job.json"], "the default, whatever holds for the others"
    assert '"face": "rightmost"' in written["three.job.json"]
    refused = order(client, one | {"face": "the nice one"}).json()["error"]
    assert (refused["code"], refused["values"]) == ("bad_option", {"name": "face"})


@pytest.mark.parametrize(("turn", "priority"), [(None, None), ("later", -20)])
def test_letting_others_go_first(web: Web, turn: str | None, priority: int | None) -> None:
    assert order(web.guest(), turn=turn).status_code == 201
    (manifest,) = manifests(web.site.layout)
    assert manifest.get("priority") == priority, "without a wish the folder's preset has its say"


def test_only_operators_go_first(make: Maker, tmp_path: Path) -> None:
    add_user(tmp_path / "users", "ana", WORDS)
    add_user(tmp_path / "users", "bo", WORDS)
    web = make(auth="basic", users_file=str(tmp_path / "users"), admins=["ana"])
    refused = order(web.user("bo"), turn="first")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "operators_first")
    assert order(web.user("bo"), turn="now").status_code == 422
    assert manifests(web.site.layout) == []
    assert order(web.user("ana"), turn="first").status_code == 201
    assert [manifest["priority"] for manifest in manifests(web.site.layout)] == [20]
