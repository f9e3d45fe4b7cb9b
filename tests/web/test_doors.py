"""Who comes in: sessions, passwords, the proxy's word; and what other sites cannot make a browser do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from heygemd.config import Settings
from heygemd.core.errors import ConfigError, ShareAwayError, UsageError
from heygemd.core.job import JobState
from heygemd.core.options import QUALITY_PRESETS
from heygemd.web.accounts import Accounts, add_user
from heygemd.web.refusal import Discretion
from heygemd.web.secret import Signer, load_key
from heygemd.web.serve import serve
from heygemd.web.texts import LANGUAGES, choose, texts
from tests.web.conftest import TUS, WORDS, Maker, Web, create_upload, order


@pytest.fixture
def users(layout: object, tmp_path: Path) -> Path:
    path = tmp_path / "users"
    add_user(path, "ana", WORDS)
    add_user(path, "bo", WORDS)
    return path


# ---- guests ----


def test_a_session_begins_with_the_page(web: Web) -> None:
    client = web.client()
    assert client.get("/api/me").json()["error"]["code"] == "no_session"
    cookie = client.get("/").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie, "there is no https here"
    me = client.get("/api/me").json()
    assert (me["guest"], me["admin"], me["name"]) == (True, False, "")
    assert "set-cookie" not in client.get("/").headers, "the session stays"


def test_a_session_that_somebody_made_up(web: Web) -> None:
    client = web.client(cookies={"heygemd_session": "admin.AAAAAAAAAAAAAAAAAAAAAAAA"})
    assert client.get("/api/me").status_code == 401


def test_behind_https_the_cookie_says_so(make: Maker) -> None:
    web = make(proxies=["testclient"])
    cookie = web.client().get("/", headers={"X-Forwarded-Proto": "https"}).headers["set-cookie"]
    assert "Secure" in cookie


# ---- passwords ----


def test_names_and_passwords(make: Maker, users: Path) -> None:
    web = make(auth="basic", users_file=str(users), admins=["ana"])
    refused = web.client().get("/api/me")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="heygemd", charset="UTF-8"')
    assert web.user("ana", "wrong").get("/").status_code == 401
    assert web.user("nobody").get("/").status_code == 401
    assert web.client(headers={"Authorization": "Basic %%%"}).get("/").status_code == 401
    assert web.client(headers={"Authorization": "Bearer x"}).get("/").status_code == 401
    ana, bo = web.user("ana"), web.user("bo")
    assert (ana.get("/api/me").json()["admin"], bo.get("/api/me").json()["admin"]) == (True, False)
    assert "set-cookie" not in ana.get("/").headers
    assert create_upload(ana, "a.mp4", 5).status_code == 201
    assert bo.get("/api/uploads").json() == []
    assert len(web.user("ana").get("/api/uploads").json()) == 1, "another browser, the same files"


def test_guessing_is_slowed_down(make: Maker, users: Path) -> None:
    web = make(auth="basic", users_file=str(users))
    guesses = [web.user("ana", f"guess {n}").get("/api/me").status_code for n in range(11)]
    assert guesses == [401] * 10 + [429]
    assert web.user("ana").get("/api/me").status_code == 429, "the right one waits too: an answer would be a hint"


def test_a_new_password_holds_at_once(make: Maker, users: Path) -> None:
    web = make(auth="basic", users_file=str(users))
    assert web.user("ana").get("/api/me").status_code == 200
    assert add_user(users, "ana", "battery staple") is False
    assert web.user("ana").get("/api/me").status_code == 401
    assert web.user("ana", "battery staple").get("/api/me").status_code == 200


def test_the_users_file(users: Path, tmp_path: Path) -> None:
    assert WORDS not in users.read_text()
    assert users.stat().st_mode & 0o777 == 0o600
    for name in ("", "a:b", " a", "a\nb", "x" * 101):
        with pytest.raises(UsageError):
            add_user(users, name, WORDS)
    with pytest.raises(UsageError, match="shorter"):
        add_user(users, "carl", "short")
    with pytest.raises(ConfigError, match="there is no file"):
        Accounts(tmp_path / "none").load()
    users.write_text("ana:plain password\n")
    with pytest.raises(ConfigError, match="line 1"):
        Accounts(users).load()


# ---- the proxy ----


def test_the_proxys_word(make: Maker) -> None:
    web = make(auth="proxy", proxies=["testclient"], admins=["ana"])
    assert web.client().get("/").status_code == 403
    ana = web.client(headers={"X-Remote-User": "ana"})
    assert ana.get("/api/me").json()["admin"] is True
    twice = [("X-Remote-User", "bo"), ("X-Remote-User", "ana")]
    assert web.client().get("/api/me", headers=twice).status_code == 403, "one that a visitor slipped in"


def test_anybody_elses_word_counts_nothing(make: Maker) -> None:
    web = make(auth="proxy", proxies=["10.0.0.1"])
    assert web.client(headers={"X-Remote-User": "ana"}).get("/api/me").status_code == 403


def test_names_that_look_alike_are_different_users(make: Maker) -> None:
    web = make(auth="proxy", proxies=["testclient"])
    create_upload(web.client(headers={"X-Remote-User": "a.b"}), "a.mp4", 5)
    for name in ("a-b", "A.B", "a b", "../a.b"):
        assert web.client(headers={"X-Remote-User": name}).get("/api/uploads").json() == []
    for folder in web.site.uploads.users():
        assert re.fullmatch(r"[a-z0-9-]+", folder)


# ---- other sites ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://page.test"}, 201),
        ({"Origin": "http://page.test", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://page.test.evil.test"}, 403),
        ({"Origin": "http://page.test:8080"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.test", "X-Forwarded-Host": "evil.test"}, 403),
    ],
)
def test_what_another_site_sends_is_refused(web: Web, headers: dict[str, str], status: int) -> None:
    client = web.guest()
    answer = create_upload(client, "a.mp4", 5, **headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "other_site"
        assert client.post("/api/jobs", json={}, headers=headers).status_code == 403
        assert client.delete("/api/uploads/" + "0" * 32, headers={**TUS, **headers}).status_code == 403


def test_behind_a_proxy_the_public_name_is_ours(make: Maker) -> None:
    web = make(proxies=["testclient"])
    headers = {"Origin": "https://video.test", "X-Forwarded-Host": "video.test"}
    assert create_upload(web.guest(), "a.mp4", 5, **headers).status_code == 201


def test_every_answer_carries_the_headers(web: Web) -> None:
    client = web.guest()
    for path in ("/", "/api/me", "/api/nothing", "/static/app.js", "/static/none.js", "/operators", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["referrer-policy"] == "same-origin", path
    policy = client.get("/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_page_asks_nobody_else(web: Web) -> None:
    """No address of another host in anything that is served: fonts, scripts and pictures are here."""
    folder = Path(__file__).parents[2] / "heygemd" / "web"
    client = web.guest()
    served = [client.get("/").text] + [path.read_text() for path in folder.glob("static/*") if path.is_file()]
    for text in served:
        assert [url for url in re.findall(r"https?://[^\s\"'<>)]+", text) if "www.w3.org" not in url] == []


def test_static_files_stay_below_their_folder(web: Web) -> None:
    client = web.client()
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/",
    ):
        assert client.get(path).status_code == 404, path


def test_operators_only(make: Maker, users: Path) -> None:
    web = make(auth="basic", users_file=str(users), admins=["ana"])
    for client in (make().guest(), web.user("bo")):
        for path in ("/operators", "/operators/en/", "/operators/en/gradio_api/queue/join", "/operators/x"):
            assert client.get(path).json()["error"]["code"] == "operators_only", path
    for door in ("upload", "file=/etc/passwd", "proxy=http://x", "stream/x", "component_server", "deep_link"):
        assert web.user("ana").get(f"/operators/en/gradio_api/{door}").json()["error"]["code"] == "nothing_here"


def test_a_user_named_as_admin_who_is_a_guest(make: Maker) -> None:
    assert make(admins=[""]).guest().get("/operators").status_code == 403


# ---- addresses ----


@pytest.mark.parametrize("prefix", ["", "/video"])
def test_below_a_path(make: Maker, prefix: str) -> None:
    """A proxy may leave the path's beginning where it is, or take it away."""
    web = make(root_path="/video")
    client = web.client()
    page = client.get(f"{prefix}/")
    assert '<base href="/video/">' in page.text
    assert "Path=/video;" in page.headers["set-cookie"]
    cookie = page.headers["set-cookie"].partition(";")[0]
    client = web.client(headers={"Cookie": cookie})
    assert client.get(f"{prefix}/api/me").status_code == 200
    assert client.get(f"{prefix}/static/app.js").status_code == 200
    where = client.post(
        f"{prefix}/api/uploads", headers={**TUS, "Upload-Length": "3", "Upload-Metadata": "filename YS5tcDQ="}
    )
    assert where.headers["location"].startswith("/video/api/uploads/")
    assert client.get(f"{prefix}/operators").status_code == 403
    assert client.get("/videos/api/me").status_code == 404


def test_a_share_that_is_not_there(tmp_path: Path) -> None:
    """A name mistyped: the folder is not made."""
    root = tmp_path / "shaer"
    with pytest.raises(ShareAwayError, match="shaer: there is no such folder"):
        serve(Settings(root=root, state=root / ".state"))
    assert not root.exists()


# ---- what is said ----


def test_both_languages_say_the_same_things() -> None:
    english, chinese = texts("en"), texts("zh")
    # English operators read the daemon's own remedies.
    assert english.keys() == {key for key in chinese if not key.startswith("operators.todo.")}
    for key, text in english.items():
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", chinese[key])), key
    folder = Path(__file__).parents[2] / "heygemd" / "web"
    code = "".join(
        path.read_text() for path in [*folder.glob("static/*.js"), *folder.glob("templates/*"), *folder.glob("*.py")]
    )
    for key in re.findall(r"\bt\(\"([a-z_.]+)\"", code):
        assert key in english or f"operators.{key}" in english, key
    for key in re.findall(r"Refused\(\s*\d+, \"(\w+)\"", code):
        assert f"refused.{key}" in english, key


PUT_TOGETHER = ("banner", "job", "list", "operators", "options", "refused", "speech", "state", "value")
"""Beginnings of keys whose last word the code takes from elsewhere."""


def test_every_sentence_is_said() -> None:
    folder = Path(__file__).parents[2] / "heygemd" / "web"
    code = "".join(path.read_text() for pattern in ("*.py", "*/*.js", "*/*.html") for path in folder.glob(pattern))
    quoted = set(re.findall(r"""["'`]([\w.-]+)["'`]""", code))
    elsewhere = {state.value for state in JobState} | set(QUALITY_PRESETS)
    for key in texts("en"):
        if "HG-" in key:
            continue  # test_telling.py
        first, _, last = key.partition(".")
        known = first in PUT_TOGETHER and last.rpartition(".")[2] in quoted | elsewhere
        assert key in quoted or known, f"nobody says {key}"


@pytest.mark.parametrize(
    ("cookie", "accept", "language"),
    [
        (None, "", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "de,en;q=0.5,zh;q=0.9", "zh"),
        (None, "de,fr", "en"),
        (None, "zh;q=0,en", "en"),
        (None, "zh;q=x", "en"),
        ("zh", "en", "zh"),
        ("tlh", "zh", "zh"),
    ],
)
def test_the_language(cookie: str | None, accept: str, language: str) -> None:
    assert choose(cookie, accept) == language


def test_choosing_a_language(web: Web) -> None:
    client = web.guest()
    assert 'lang="en"' in client.get("/").text
    answer = client.get("/language/zh")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert 'lang="zh-Hans"' in client.get("/").text
    assert "制作视频" in client.get("/").text
    assert client.get("/api/nothing").json()["error"]["message"] == texts("zh")["refused.nothing_here"]
    assert "set-cookie" not in client.get("/language/x").headers
    assert LANGUAGES == ("en", "zh")


def test_people_get_pages_and_programs_get_json(web: Web) -> None:
    client = web.guest()
    page = client.get("/s/none", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "not complete" in page.text
    assert client.get("/s/none").json()["error"]["code"] == "no_link"


def test_a_file_name_is_no_markup(web: Web) -> None:
    client = web.guest()
    order(client, title="</title><script>alert(1)</script>")
    text = json.dumps(texts("en"))
    assert "<script>alert" not in client.get("/").text
    assert "</" not in text


def test_paths_are_taken_out() -> None:
    discretion = Discretion([Path("/srv/share"), Path("/srv/share/.state")])
    for words, public in (
        ("/srv/share/inbox/a b/x.mp4: no face", "inbox/a b/x.mp4: no face"),
        ("/srv/share is not mounted", "the server is not mounted"),
        ("little room on /srv/share/.state", "little room on the server"),
        ("cannot open '/usr/lib/python3/x.py', line 3", "cannot open 'x.py', line 3"),
        ("(/var/lib/heygemd/work/1/)", "(a folder)"),
        ("24/7, 16/9 and 25/1 fps; http://x.test/a/b", "24/7, 16/9 and 25/1 fps; http://x.test/a/b"),
        ("video/mp4", "video/mp4"),
    ):
        assert discretion.text(words) == public
    tree = {"a": ["/srv/share/x", {"b": "/a/b"}], "n": 1}
    assert discretion.tree(tree) == {"a": ["x", {"b": "b"}], "n": 1}


# ---- secrets ----


def test_the_key_is_made_once_and_for_one_user(tmp_path: Path) -> None:
    key = load_key(tmp_path)
    assert load_key(tmp_path) == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "key").write_bytes(b"")
    assert len(load_key(tmp_path)) == 32, "a crash had left it empty"


@pytest.mark.parametrize("text", ["", ".", "x", "eyJ9.AAAA", "\ud800.x", "é.é"])
def test_what_is_not_signed(text: str) -> None:
    signer = Signer(b"k" * 32, "link")
    assert signer.check(text) is None
    assert signer.unpack(text) is None
    assert Signer(b"k" * 32, "session").check(signer.sign("a")) is None
    assert signer.unpack(signer.sign("bm90IGpzb24")) is None
    assert signer.unpack(signer.pack({"j": "讲座"})) == {"j": "讲座"}
