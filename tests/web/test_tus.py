"""The tus protocol, request by request: https://tus.io/protocols/resumable-upload"""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from heygemd.web import tus
from tests.web.conftest import OFFSET, TUS, Maker, Web, create_upload, send


def test_what_the_server_can(web: Web) -> None:
    answer = web.guest().options("/api/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,expiration,termination"
    assert int(answer.headers["tus-max-size"]) == web.site.uploads.max_bytes


def test_a_file_in_pieces(web: Web) -> None:
    client = web.guest()
    data = os.urandom(5000)
    created = create_upload(client, "Vidéo 讲座.MP4", len(data))
    assert created.status_code == 201
    assert created.headers["tus-resumable"] == "1.0.0"
    assert created.headers["upload-expires"].endswith("GMT")
    where = created.headers["location"]
    for start in (0, 2000, 4000):
        head = client.head(where, headers=TUS)
        assert (head.headers["upload-offset"], head.headers["upload-length"]) == (str(start), "5000")
        answer = send(client, where, start, data[start : start + 2000])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(min(start + 2000, 5000)))
    upload = web.site.uploads.whole(*_whose(web, where))
    assert upload.media.read_bytes() == data
    assert (upload.name, upload.kind, upload.media.name) == ("Vidéo 讲座.MP4", "video", "media.mp4")
    assert not upload.part.exists()
    assert client.head(where, headers=TUS).headers["upload-offset"] == "5000"
    assert send(client, where, 5000, b"").status_code == 204, "a client that lost the last answer asks again"
    assert send(client, where, 5000, b"more").status_code == 409


def test_the_length_on_disk_is_the_offset(web: Web) -> None:
    """Whatever a crash left: the client goes on from what is really there."""
    client = web.guest()
    where = create_upload(client, "a.wav", 100).headers["location"]
    send(client, where, 0, b"x" * 40)
    upload = web.site.uploads.get(*_whose(web, where))
    os.truncate(upload.part, 25)
    assert client.head(where, headers=TUS).headers["upload-offset"] == "25"
    assert send(client, where, 40, b"y" * 60).status_code == 409
    assert send(client, where, 25, b"y" * 75).status_code == 204
    assert upload.media.read_bytes() == b"x" * 25 + b"y" * 75


@pytest.mark.parametrize(
    ("name", "size", "status", "code"),
    [
        ("virus.exe", 10, 415, "wrong_kind"),
        ("page.html", 10, 415, "wrong_kind"),
        ("picture.svg", 10, 415, "wrong_kind"),
        ("nothing", 10, 415, "wrong_kind"),
        (".mp4", 10, 415, "wrong_kind"),
        ("", 10, 415, "wrong_kind"),
        ("a.mp4" + "x" * 300, 10, 415, "wrong_kind"),
        ("a.mp4", 0, 422, "empty_file"),
        ("a.mp4", 5001, 413, "too_large"),
    ],
)
def test_refused_at_the_door(make: Maker, name: str, size: int, status: int, code: str) -> None:
    web = make(max_upload_bytes=5000)
    answer = create_upload(web.guest(), name, size)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert web.site.uploads.users() == [], "nothing was made"


@pytest.mark.parametrize(
    "name", ["../../../evil.mp4", "..\\..\\evil.mp4", "/etc/evil.mp4", "a\x00/evil.mp4", "\nevil.mp4"]
)
def test_a_name_is_never_a_path(web: Web, name: str) -> None:
    client = web.guest()
    where = create_upload(client, name, 3).headers["location"]
    send(client, where, 0, b"abc")
    upload = web.site.uploads.whole(*_whose(web, where))
    assert upload.name == "evil.mp4"
    assert upload.media.parent.parent.parent == web.site.uploads.root


@pytest.mark.parametrize("upload_id", ["..", "%2e%2e", "../x", "0" * 31, "0" * 33, "G" * 32, "0" * 32, "%2fetc"])
def test_an_id_is_never_a_path(web: Web, upload_id: str) -> None:
    client = web.guest()
    assert client.head(f"/api/uploads/{upload_id}", headers=TUS).status_code == 404
    assert client.get(f"/api/uploads/{upload_id}/content").status_code == 404
    assert send(client, f"/api/uploads/{upload_id}", 0, b"x").status_code in (404, 405)


@pytest.mark.parametrize("headers", [{}, {"Tus-Resumable": "0.2.2"}])
def test_another_version(web: Web, headers: dict[str, str]) -> None:
    answer = web.guest().post("/api/uploads", headers={**headers, "Upload-Length": "3"})
    assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")


@pytest.mark.parametrize("length", ["", "-1", "1e3", "٣", "9" * 30, "0x10"])
def test_a_length_that_is_none(web: Web, length: str) -> None:
    answer = web.guest().post("/api/uploads", headers={**TUS, "Upload-Length": length.encode()})  # type: ignore[dict-item]
    assert answer.status_code == 400


@pytest.mark.parametrize("metadata", ["filename !!!", "filename /w==", "x" * 5000])
def test_metadata_that_is_none(web: Web, metadata: str) -> None:
    answer = web.guest().post("/api/uploads", headers={**TUS, "Upload-Length": "3", "Upload-Metadata": metadata})
    assert answer.json()["error"]["code"] == "bad_header"


def test_no_more_than_was_announced(web: Web) -> None:
    client = web.guest()
    where = create_upload(client, "a.mp4", 10).headers["location"]
    answer = send(client, where, 0, b"x" * 11)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "more_than_told")
    assert client.head(where, headers=TUS).headers["upload-offset"] == "0"


def test_the_wrong_content_type(web: Web) -> None:
    client = web.guest()
    where = create_upload(client, "a.mp4", 10).headers["location"]
    headers = {**TUS, "Upload-Offset": "0", "Content-Type": "text/plain"}
    assert client.patch(where, content=b"x", headers=headers).status_code == 415


def test_termination(web: Web) -> None:
    client = web.guest()
    where = create_upload(client, "a.mp4", 10).headers["location"]
    send(client, where, 0, b"12345")
    assert client.delete(where, headers=TUS).status_code == 204
    assert client.head(where, headers=TUS).status_code == 404
    assert not list(web.site.uploads.root.glob("*/*"))


def test_others_do_not_even_see_that_it_is_there(web: Web) -> None:
    mine, other = web.guest(), web.guest()
    where = create_upload(mine, "a.mp4", 10).headers["location"]
    assert other.head(where, headers=TUS).status_code == 404
    assert send(other, where, 0, b"x").status_code == 404
    assert other.delete(where, headers=TUS).status_code == 404
    assert mine.head(where, headers=TUS).headers["upload-offset"] == "0"


def test_limits_of_a_user(make: Maker) -> None:
    web = make(max_user_files=2, max_user_bytes=1000)
    client = web.guest()
    assert create_upload(client, "a.mp4", 600).status_code == 201
    full = create_upload(client, "b.mp4", 500)
    assert (full.status_code, full.json()["error"]["code"]) == (507, "user_full")
    assert create_upload(client, "b.mp4", 400).status_code == 201
    many = create_upload(client, "c.mp4", 1)
    assert (many.status_code, many.json()["error"]["code"]) == (507, "too_many_files")
    assert create_upload(web.guest(), "c.mp4", 1).status_code == 201, "the limit is each one's own"


def test_limits_of_all(make: Maker) -> None:
    web = make(max_sessions=2)
    first = web.guest()
    for client in (first, web.guest()):
        assert create_upload(client, "a.mp4", 5).status_code == 201
    third = create_upload(web.guest(), "a.mp4", 5)
    assert (third.status_code, third.json()["error"]["code"]) == (503, "too_many_sessions")
    assert create_upload(first, "b.mp4", 5).status_code == 201


def test_a_full_disk(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    client = web.guest()
    monkeypatch.setattr("heygemd.web.uploads.free_bytes", lambda _root: 1500)
    assert create_upload(client, "a.mp4", 1000).status_code == 201
    second = create_upload(client, "b.mp4", 1000)
    assert (second.status_code, second.json()["error"]["code"]) == (507, "disk_full"), "the first one's room is taken"


def test_the_share_away(web: Web) -> None:
    web.site.layout.sentinel.unlink()
    answer = create_upload(web.guest(), "a.mp4", 10)
    assert answer.status_code == 503
    assert str(web.site.layout.root) not in answer.text
    assert not web.site.uploads.root.exists(), "nothing is written to a bare mount point"


# ---- a real connection, broken in the middle ----


@pytest.fixture
def port(web: Web) -> Iterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(web.app, log_config=None, lifespan="off", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    yield sock.getsockname()[1]
    server.should_exit = True
    thread.join()
    sock.close()


def _patch(port: int, where: str, cookie: str, offset: int, length: int, data: bytes) -> socket.socket:
    lines = {**TUS, **OFFSET, "Upload-Offset": offset, "Content-Length": length, "Host": "page.test", "Cookie": cookie}
    head = f"PATCH {where} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.sendall(head.encode() + b"\r\n" + data)
    return connection


def _head(port: int, where: str, cookie: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    lines = (f"HEAD {where} HTTP/1.1", "Host: page.test", f"Cookie: {cookie}", "Tus-Resumable: 1.0.0")
    connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
    return connection


def _offset(connection: socket.socket) -> int:
    answer = connection.recv(65536).decode().lower()
    return int(answer.partition("upload-offset: ")[2].partition("\r\n")[0])


def _comes_to(count: Callable[[], int], size: int) -> None:
    until = time.monotonic() + 120
    while count() < size:
        assert time.monotonic() < until, f"never {size} bytes"
        time.sleep(0.02)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what the server has taken from its connections, on disk or about to be."""
    sizes: list[int] = []
    chunks = tus._chunks

    async def noted(request: Any) -> AsyncIterator[bytes]:
        async for chunk in chunks(request):
            sizes.append(len(chunk))
            yield chunk

    monkeypatch.setattr(tus, "_chunks", noted)
    return sizes


def test_what_came_before_the_break_is_kept(web: Web, port: int, received: list[int]) -> None:
    client = web.guest()
    data = os.urandom(3_000_000)
    where = create_upload(client, "a.mp4", len(data)).headers["location"]
    cookie = f"heygemd_session={client.cookies['heygemd_session']}"
    part = web.site.uploads.get(*_whose(web, where)).part
    connection = _patch(port, where, cookie, 0, len(data), data[:1_800_000])
    _comes_to(lambda: sum(received), 1_800_000)
    assert part.stat().st_size < 1_800_000, "the rest of a MiB waits for more"
    connection.close()
    _comes_to(lambda: part.stat().st_size, 1_800_000)
    with _head(port, where, cookie) as asking:
        offset = _offset(asking)
    assert offset == 1_800_000
    assert send(client, where, offset, data[offset:]).status_code == 204
    assert web.site.uploads.whole(*_whose(web, where)).media.read_bytes() == data


def test_a_client_that_comes_back_takes_over(web: Web, port: int, received: list[int]) -> None:
    """Its old connection hangs: nobody told the server that it is gone."""
    client = web.guest()
    data = os.urandom(3_000_000)
    where = create_upload(client, "a.mp4", len(data)).headers["location"]
    cookie = f"heygemd_session={client.cookies['heygemd_session']}"
    old = _patch(port, where, cookie, 0, len(data), data[:1_500_000])
    _comes_to(lambda: sum(received), 1_500_000)
    new = _head(port, where, cookie)
    offset = _offset(new)
    assert offset == 1_500_000, "what the old request had brought is on disk before the new one is answered"
    assert b" 423 " in old.recv(65536).splitlines()[0]
    last = _patch(port, where, cookie, offset, len(data) - offset, data[offset:])
    assert b" 204 " in last.recv(65536).splitlines()[0]
    for connection in (old, new, last):
        connection.close()
    assert web.site.uploads.whole(*_whose(web, where)).media.read_bytes() == data


def test_who_takes_over_waits_for_a_write_under_way(web: Web, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share that stalls is when connections break: what a thread has not written yet must not come later."""
    client = web.guest()
    data = os.urandom(3_000_000)
    where = create_upload(client, "a.mp4", len(data)).headers["location"]
    cookie = f"heygemd_session={client.cookies['heygemd_session']}"
    part = web.site.uploads.get(*_whose(web, where)).part
    began, go_on = threading.Event(), threading.Event()
    write = tus._write

    def slow(path: Path, data: bytes, offset: int) -> None:
        began.set()
        assert go_on.wait(120)
        write(path, data, offset)

    monkeypatch.setattr(tus, "_write", slow)
    monkeypatch.setattr(tus, "_TAKEOVER_SECONDS", 120.0)
    old = _patch(port, where, cookie, 0, len(data), data[:1_500_000])
    assert began.wait(120)
    new = _head(port, where, cookie)
    new.settimeout(0.5)
    with pytest.raises(TimeoutError):
        new.recv(65536)
    go_on.set()
    new.settimeout(120)
    offset = _offset(new)
    assert 1 << 20 <= offset == part.stat().st_size
    assert b" 423 " in old.recv(65536).splitlines()[0]
    old.close()
    new.close()
    assert send(client, where, offset, data[offset:]).status_code == 204
    assert web.site.uploads.whole(*_whose(web, where)).media.read_bytes() == data


def _whose(web: Web, where: str) -> tuple[str, str]:
    upload_id = where.rpartition("/")[2]
    (folder,) = web.site.uploads.root.glob(f"*/{upload_id}")
    return folder.parent.name, upload_id


def test_metadata_in_base64_only() -> None:
    from heygemd.web.tus import _metadata

    word = base64.b64encode("é".encode()).decode()
    assert _metadata(f"filename {word}, empty, ,other {word}") == {"filename": "é", "empty": "", "other": "é"}
