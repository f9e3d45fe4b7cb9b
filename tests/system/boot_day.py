"""What the boot test's steps share: the machine, the share, jobs dropped by its users, the operator's configuration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from nspawn import Machine

sys.path.append(str(Path(__file__).resolve().parents[1]))

from ports import free_port

FOLDER = "/srv/checkout"
ROOT = "/srv/studio"
GROUP = "studio"
INSTALL = f"cd {FOLDER} && ./install.sh"
LINK = "readlink /opt/heygemd/current"
# What a render may take on a machine that others keep busy.
RENDER_SECONDS = 300.0
LONG_TEXT = "The quick brown fox jumps over the lazy dog. " * 12


class Day:
    """An administrator's day on one machine; each step uses what the ones before it left."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        # The container shares the network of the machine that it runs on: ports that nobody uses there.
        self.metrics_port, self.web_port = free_port(), free_port()

    def property(self, name: str, unit: str = "heygemd") -> str:
        return self.machine.output(f"systemctl show -P {name} {unit}")

    def is_active(self, unit: str = "heygemd") -> bool:
        return self.property("ActiveState", unit) == "active"

    def program(self, unit: str = "heygemd") -> str:
        """The release whose Python runs the unit's main process."""
        words = self.machine.output(f"tr '\\0' ' ' </proc/{self.property('MainPID', unit)}/cmdline").split()
        return words[0].removesuffix("/bin/python")

    def drop_pair(self, name: str, *, user: str, folder: str = "", umask: str = "022") -> None:
        target = f"{ROOT}/inbox/{folder}".rstrip("/")
        self.machine.run(
            f"umask {umask} && mkdir -p {target} && cp /tmp/sample/clip.mp4 '{target}/{name}.mp4'"
            f" && cp /tmp/sample/speech.wav '{target}/{name}.wav'",
            user=user,
        )

    def drop_text(self, name: str, text: str) -> None:
        self.machine.run(
            f"cp /tmp/sample/face.png {ROOT}/inbox/{name}.png && echo '{text}' >{ROOT}/inbox/{name}.txt", user="alice"
        )

    def result(self, name: str) -> float:
        """Wait for the job's receipt; the seconds that it took."""
        return self.machine.wait_for(f"the result of {name}", lambda: self.is_done(name), RENDER_SECONDS)

    def is_done(self, name: str) -> bool:
        """The receipt is there; a failed job ends the wait with its reason."""
        for place in ("failed", "outbox"):
            found = self.machine.output(f"find {ROOT}/{place} -name '{name}*' -maxdepth 1 -type d | head -1")
            if not found:
                continue
            if place == "failed":
                raise AssertionError(self.machine.output(f"cat '{found}'/error.json"))
            return self.machine.succeeds(f"ls '{found}'/*.json")
        return False

    def receipt(self, name: str) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads(
            self.machine.output(f"cat '{ROOT}/outbox/{name}/{name}.json'", user="alice")
        )
        return receipt

    def wait_until_it_renders(self, name: str, percent: float) -> None:
        self.machine.wait_for(f"{name} to render", lambda: self._percent(name) >= percent, RENDER_SECONDS)

    def _percent(self, name: str) -> float:
        texts = self.machine.output(f"cat {ROOT}/status/{name}*.json 2>/dev/null || true")
        return float(json.loads(texts).get("percent") or 0) if texts else 0.0

    def wait_for_event(self, action: str) -> float:
        return self.machine.wait_for(
            action, lambda: self.machine.succeeds(f"journalctl -t heygemd -o cat | grep -qF '{action}'"), 120
        )

    def configure(self, more: str) -> None:
        """The operator's file as installed, with more at its end."""
        self.machine.run(
            "f=/etc/heygemd/heygemd.toml; test -f $f.first || cp $f $f.first;"
            f" grep -E '^(root|state) ' $f.first >$f; printf '%s' '{more}' >>$f"
        )

    def page(self, path: str = "/") -> str:
        """What the web page answers; fails unless it is 200."""
        return self._get(self.web_port, path)

    def metrics(self) -> str:
        return self._get(self.metrics_port, "/metrics")

    def _get(self, port: int, path: str) -> str:
        read = "import sys, urllib.request as r; o = r.build_opener(r.ProxyHandler({}));"
        read += " sys.stdout.write(o.open(sys.argv[1], timeout=60).read().decode())"
        return self.machine.output(f"python3 -c '{read}' http://127.0.0.1:{port}{path}")
