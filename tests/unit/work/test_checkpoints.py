"""The registry, what lies in the folder, and downloads from servers that misbehave."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from heygemd.core.errors import CheckpointError, ConfigError, TryLaterError
from heygemd.work import checkpoints
from heygemd.work.checkpoints import (
    KnownFile,
    Registry,
    best_checkpoint,
    import_file,
    list_checkpoints,
    load_registry,
    verify,
)
from heygemd.work.download import fetch

BODY = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(BODY).hexdigest()
ENTRY = KnownFile("net.pth", "generator", "classic96", "a network", SHA256, "For tests only.", "The test.", len(BODY))


# --- a server that misbehaves on demand -------------------------------------------------------------------------------


@dataclass
class Server:
    """`breaks`: how many answers end early, each after `piece` bytes. `seen`: the Range headers that came."""

    body: bytes = BODY
    breaks: int = 0
    piece: int = 300_000
    claims: int | None = None
    content_type: str = "application/octet-stream"
    ranges: bool = True
    wrong_range: bool = False
    status: int = 200
    url: str = ""
    seen: list[str | None] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.seen.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0  # type: ignore[index]
        if self.status != 200:
            handler.send_error(self.status)
            return
        if start and start >= len(self.body):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        total = self.claims if self.claims is not None else len(self.body)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(total - start))
        if start:
            first = start + 1 if self.wrong_range else start
            handler.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        handler.end_headers()
        rest = self.body[start:]
        if self.breaks:
            self.breaks -= 1
            rest = rest[: self.piece]
        handler.wfile.write(rest)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_port}/net.pth"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def get(server: Server, folder: Path, entry: KnownFile = ENTRY, attempts: int = 5) -> Path:
    return fetch(entry, folder, accept_licence=lambda _entry: True, url=server.url, attempts=attempts, pause_seconds=0)


def test_fetches_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with serving(Server()) as server:
        path = fetch(
            ENTRY, tmp_path / "new", accept_licence=lambda _e: True, url=server.url, progress=lambda *a: told.append(a)
        )
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert told == sorted(told)
    assert [p.name for p in path.parent.iterdir()] == ["net.pth"]


def test_goes_on_where_the_server_broke_off(tmp_path: Path) -> None:
    with serving(Server(breaks=2)) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    assert server.seen == [None, "bytes=300000-", "bytes=600000-"]


def test_goes_on_in_the_next_run(tmp_path: Path) -> None:
    with serving(Server(breaks=99)) as server:
        with pytest.raises(TryLaterError, match=r"broke off 2 times, 600000 bytes are here"):
            get(server, tmp_path, attempts=2)
        assert not (tmp_path / "net.pth").exists()
        server.breaks = 0
        assert get(server, tmp_path).read_bytes() == BODY
    assert server.seen[-1] == "bytes=600000-"


def test_starts_again_where_the_server_knows_no_ranges(tmp_path: Path) -> None:
    with serving(Server(breaks=1, ranges=False)) as server:
        assert get(server, tmp_path).read_bytes() == BODY


def test_a_part_of_another_file_is_thrown_away_once(tmp_path: Path) -> None:
    (tmp_path / ".net.pth.part").write_bytes(b"x" * 1000)
    with serving(Server()) as server:
        assert get(server, tmp_path).read_bytes() == BODY
    assert server.seen == ["bytes=1000-", None]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / ".net.pth.part").write_bytes(b"x" * (len(BODY) + 5))
    with serving(Server()) as server:
        assert get(server, tmp_path).read_bytes() == BODY


def test_a_complete_part_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / ".net.pth.part").write_bytes(BODY)
    assert get(Server(url="http://127.0.0.1:9/never"), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    ("server", "says"),
    [
        (Server(claims=len(BODY) + 10), "it is another file"),
        (Server(claims=len(BODY) - 10), "it is another file"),
        (Server(body=BODY[:-1] + b"!"), "the sha256 differs"),
        (Server(body=b"<html>sign in</html>", content_type="text/html; charset=utf-8"), "is a web page"),
        (Server(body=b"  <!DOCTYPE html>".ljust(len(BODY))), "is a web page"),
        (Server(status=404), "answers 404"),
        (Server(status=403), "answers 403"),
        (Server(breaks=1, wrong_range=True), "another part of the file"),
    ],
)
def test_refuses_what_is_not_the_file(server: Server, says: str, tmp_path: Path) -> None:
    with serving(server), pytest.raises(CheckpointError, match=says):
        get(server, tmp_path)
    assert not (tmp_path / "net.pth").exists()


def test_a_server_that_lies_about_the_length_cannot_fill_the_disk(tmp_path: Path) -> None:
    """No size in the registry: the server's own claim is the limit, and the hash decides."""
    unknown = replace(ENTRY, num_bytes=None)
    with serving(Server(body=b"0" * 5000)) as server, pytest.raises(CheckpointError, match="sha256 differs"):
        get(server, tmp_path, unknown)
    longer = Server(body=BODY, claims=len(BODY) + 1)
    with serving(longer), pytest.raises(TryLaterError, match="the connection ended at"):
        get(longer, tmp_path, unknown, attempts=1)
    assert (tmp_path / ".net.pth.part").stat().st_size == len(BODY)


def test_tries_again_when_the_server_is_overloaded_or_away(tmp_path: Path) -> None:
    with serving(Server(status=503)) as server, pytest.raises(TryLaterError, match="503"):
        get(server, tmp_path, attempts=3)
    assert len(server.seen) == 3
    with pytest.raises(TryLaterError, match="refused"):
        get(server, tmp_path, attempts=1)


def test_asks_for_the_licence_before_the_first_byte(tmp_path: Path) -> None:
    asked: list[str] = []

    def refuse(entry: KnownFile) -> bool:
        asked.append(entry.licence)
        return False

    with serving(Server()) as server, pytest.raises(CheckpointError, match="licence"):
        fetch(ENTRY, tmp_path, accept_licence=refuse, url=server.url)
    assert asked == ["For tests only."]
    assert server.seen == []


def test_needs_an_address_and_only_http(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no address") as caught:
        fetch(ENTRY, tmp_path, accept_licence=lambda _e: True)
    assert "The test." in caught.value.remedy
    with pytest.raises(CheckpointError, match="not an http"):
        fetch(ENTRY, tmp_path, accept_licence=lambda _e: True, url=(tmp_path / "x").as_uri())


def test_an_intact_file_is_not_fetched_again_and_a_foreign_one_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(BODY)
    assert get(Server(url="http://127.0.0.1:9/never"), tmp_path) == tmp_path / "net.pth"
    (tmp_path / "net.pth").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="exists and is not"):
        get(Server(url="http://127.0.0.1:9/never"), tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == b"mine"


# --- registry and folder ----------------------------------------------------------------------------------------------


def test_the_registry_is_whole() -> None:
    registry = load_registry()
    names = {"wav2lip_gan.pth", "wav2lip.pth", "s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar"}
    assert {file.name for file in registry.files} >= names
    for file in registry.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.licence
        assert file.source
        assert file.kind in ("generator", "detector", "landmarks")
    assert len({file.sha256 for file in registry.files}) == len(registry.files)
    with pytest.raises(CheckpointError, match="known: wav2lip_gan"):
        registry.named("nothing")


def test_a_damaged_registry_is_a_configuration_error(tmp_path: Path) -> None:
    for text in ("[[file]]\nname = 1", "nonsense", "", "[[file]]\nname='a'\nunknown=1"):
        path = tmp_path / "registry.toml"
        path.write_text(text)
        load_registry.cache_clear()
        with pytest.raises(ConfigError):
            load_registry(path)


def seeded(path: Path, name: str = "compressed96") -> Path:
    from heygemd.engines.wav2lip.seeded import save_seeded
    from heygemd.engines.wav2lip.variants import variant_named

    path.parent.mkdir(parents=True, exist_ok=True)
    return save_seeded(variant_named(name), path)


def entry_for(path: Path) -> KnownFile:
    return replace(ENTRY, variant="compressed96", sha256=hashlib.sha256(path.read_bytes()).hexdigest(), num_bytes=None)


def test_an_empty_or_missing_folder_has_no_best(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        best = best_checkpoint(folder)
        assert not best.ok
        assert best.path is None
        assert "no Wav2Lip checkpoint" in best.reason


def test_best_prefers_known_files_then_larger_networks(tmp_path: Path) -> None:
    small = seeded(tmp_path / "a.pth")
    best = best_checkpoint(tmp_path)
    assert best.ok
    assert (best.path, best.variant) == (small, "compressed96")
    assert "by its shapes" in best.reason
    large = seeded(tmp_path / "b.pth", "classic96")
    best = best_checkpoint(tmp_path)
    assert (best.path, best.variant) == (large, "classic96")
    assert "1 other(s)" in best.reason
    best = best_checkpoint(tmp_path, Registry((entry_for(small),)))
    assert best.path == small
    assert "verified by its sha256" in best.reason


def test_a_truncated_file_is_not_taken_and_the_reason_says_so(tmp_path: Path) -> None:
    whole = seeded(tmp_path / "whole.pth").read_bytes()
    (tmp_path / "whole.pth").unlink()
    (tmp_path / "wav2lip_gan.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("not looked at")
    best = best_checkpoint(tmp_path)
    assert not best.ok
    assert "truncated" in best.reason
    assert "435801865 bytes" in best.reason


def test_the_record_spares_hashing_and_notices_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = seeded(tmp_path / "a.pth")
    calls: list[Path] = []

    def counted(file: Path, registry: Registry | None = None) -> checkpoints.Verification:
        calls.append(file)
        return verify(file, registry)

    monkeypatch.setattr(checkpoints, "verify", counted)
    first, second = best_checkpoint(tmp_path), best_checkpoint(tmp_path)
    assert first == second
    assert calls == [path]
    path.write_bytes(b"broken")
    assert not best_checkpoint(tmp_path).ok
    assert calls == [path, path]
    (tmp_path / checkpoints.RECORD).write_text("{damaged")
    assert not best_checkpoint(tmp_path).ok
    assert len(calls) == 3


def test_list_shows_entries_and_strangers(tmp_path: Path) -> None:
    path = seeded(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"nothing")
    known = entry_for(path)
    lines = list_checkpoints(tmp_path, Registry((known, replace(ENTRY, name="other.pth"))))
    assert [(line.known.name if line.known else None, [v.path.name for v in line.found]) for line in lines] == [
        ("net.pth", ["a.pth"]),
        ("other.pth", []),
        (None, ["b.pth"]),
    ]


def test_import_copies_under_the_published_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = seeded(tmp_path / "download" / "some (1).pth")
    monkeypatch.setattr(checkpoints, "load_registry", lambda _path=None: Registry((entry_for(source),)))
    done = import_file(source, tmp_path / "store")
    assert done.path == tmp_path / "store" / "net.pth"
    assert done.ok
    assert source.exists()
    assert import_file(source, tmp_path / "store").path == done.path
    done.path.write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="differs"):
        import_file(source, tmp_path / "store")


def test_import_by_shape_reads_the_numbers_too(tmp_path: Path) -> None:
    import torch

    from heygemd.engines.wav2lip.seeded import seeded_state
    from heygemd.engines.wav2lip.variants import COMPRESSED96

    done = import_file(seeded(tmp_path / "mine.pth"), tmp_path / "store")
    assert (done.path.name, done.variant) == ("mine.pth", "compressed96")
    state = seeded_state(COMPRESSED96)
    state["output_block.1.bias"][1] = float("inf")
    torch.save(state, tmp_path / "bad.pth")
    assert verify(tmp_path / "bad.pth").ok
    with pytest.raises(CheckpointError, match="not finite"):
        import_file(tmp_path / "bad.pth", tmp_path / "store")
    with pytest.raises(CheckpointError, match="not a file"):
        import_file(tmp_path / "none.pth", tmp_path / "store")
    assert sorted(p.name for p in (tmp_path / "store").iterdir()) == ["mine.pth"]


def test_none_of_it_imports_torch(tmp_path: Path) -> None:
    seeded(tmp_path / "a.pth")
    code = (
        "import sys, pathlib, heygemd.work.download\n"
        "from heygemd.work.checkpoints import best_checkpoint\n"
        "assert best_checkpoint(pathlib.Path(sys.argv[1])).ok\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
