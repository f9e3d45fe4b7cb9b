"""All that strangers could drop, in one inbox: each gets one clear error, the daemon lives, the next job is served."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from tests import media
from tests.daemon import Daemon
from tests.hostile import SECRET, ZOO

AWKWARD_NAMES = ("-rf", "line\nERROR forged", "\x1b[31mred", "ü" * 120, "%d %s {0} $(id)", "dots.. ", "tab\there")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_zoo(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    clip = media.moving_portrait(tmp_path / "clip.mp4", seconds=0.3, size=96)
    voice = media.speech(tmp_path / "voice.wav", "Bob.")
    with socket.create_server(("127.0.0.1", 0)) as listener, Daemon(tmp_path / "share") as daemon:
        listener.settimeout(0.1)
        for name, (make, _) in ZOO.items():
            make(daemon.inbox / f"{name}.mp4", secret, listener.getsockname()[1])
            shutil.copy(voice, daemon.inbox / f"{name}.wav")
        for name in AWKWARD_NAMES:
            shutil.copy(clip, daemon.inbox / f"{name}.mp4")
            shutil.copy(voice, daemon.inbox / f"{name}.wav")
        shutil.copy(clip, daemon.inbox / "markup.mp4")
        (daemon.inbox / "markup.txt").write_text(
            '<speak><audio src="/etc/passwd"/>Bob <break time="10s"/></speak> [[h]]'
        )
        before = {path.name for path in daemon.inbox.iterdir()}
        assert daemon.once(timeout=500) == 1
        with pytest.raises(TimeoutError):
            listener.accept()  # nobody called

    found = {}
    for name, (_, right) in ZOO.items():
        error = daemon.error(name)["error"]
        found[name] = error["type"]
        assert error["type"] in right, error
        assert "\n" not in error["message"] and len(error["message"]) < 400, error
        kept = {path.name for path in (daemon.root / "failed" / name).iterdir()}
        assert {f"{name}.mp4", f"{name}.wav"} <= kept
    done = [json.loads(path.read_text()) for path in daemon.root.glob("outbox/*/*.json")]
    assert len(done) == len(AWKWARD_NAMES) + 1, [receipt["job"] for receipt in done]
    for receipt in done:
        assert receipt["job"].isprintable() and not receipt["job"].startswith(("-", ".")), receipt["job"]
    markup = next(receipt for receipt in done if receipt["job"] == "markup")
    assert markup["items"][0]["speech_seconds"] < 10, "the break is text, not markup"
    assert {p.name for p in (daemon.root / "archive").rglob("*.mp4")} >= {f"{n}.mp4" for n in AWKWARD_NAMES}
    assert before and not any(daemon.inbox.iterdir())

    for line in daemon.log.read_text().splitlines():
        json.loads(line)  # no name broke a line
    told = [daemon.log, *(p for top in ("status", "outbox", "failed") for p in (daemon.root / top).rglob("*"))]
    for path in told:
        mine = path.name.startswith("subtitle.")  # the secret was in the input itself
        if path.is_file() and not mine:
            assert SECRET.encode() not in path.read_bytes(), path
    (tmp_path / "outcome.json").write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))  # noqa: T201 - the table of docs/reliability.md, with pytest -s
