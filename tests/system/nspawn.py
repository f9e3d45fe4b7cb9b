"""A booted Debian: systemd as process 1 in a container of systemd-nspawn, and commands run inside it."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from debian_root import Carried

BOOT_SECONDS = 90.0
STOP_SECONDS = 60.0


class CannotBootError(RuntimeError):
    """Containers are forbidden or unavailable here; the message says what happened."""


class Machine:
    """A running container. Commands join its namespaces; output is returned, or goes to the terminal."""

    def __init__(self, leader: int, variables: Mapping[str, str]) -> None:
        self._leader = leader
        self._environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **variables,
        }

    def run(
        self, command: str, *, user: str | None = None, check: bool = True, show: bool = False, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside, as root or another user."""
        inner = ["env", "-C", "/", "/bin/bash", "-c", command]
        if user:
            inner = ["runuser", "-u", user, "--", "env", "HOME=/nonexistent", *inner]
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--pid", "--root", *inner],
            check=False, timeout=timeout, env=self._environment, stdin=subprocess.DEVNULL, text=True, errors="replace",
            stdout=None if show else subprocess.PIPE, stderr=None if show else subprocess.STDOUT,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"exit {done.returncode} from: {command}\n{done.stdout or ''}")
        return done

    def output(self, command: str, *, user: str | None = None) -> str:
        return self.run(command, user=user).stdout.strip()

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Poll until the condition holds; the seconds that it took. Fails with `what` when time is up."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > seconds:
                raise AssertionError(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.5)
        return time.monotonic() - started

    def succeeds(self, command: str, *, user: str | None = None) -> bool:
        return self.run(command, user=user, check=False).returncode == 0


@contextmanager
def booted(root: Path, carried: Carried, console: Path) -> Iterator[Machine]:
    """Boot the root; power it off afterwards. What process 1 prints goes to `console`."""
    if shutil.which("systemd-nspawn") is None:
        raise CannotBootError("systemd-nspawn is not installed (apt-get install systemd-container)")
    command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={root}", "--register=no", "--keep-unit"]
    # nspawn would bring a resolv.conf of its own; the carried one is bound like the other files.
    command.append("--resolv-conf=off")
    for path in carried.paths:
        target = root / str(path).lstrip("/")
        if path.is_file():
            # A link there (Debian's resolv.conf, say) would lead out of the root.
            target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        command.append(f"--bind-ro={path.resolve()}:{path}")
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        command.append("systemd.unified_cgroup_hierarchy=0")  # the container's systemd must use what the host has
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True)
    os.close(slave)
    threading.Thread(target=_drain, args=(master, console), daemon=True).start()
    try:
        machine = Machine(_leader_of(process, console), carried.variables)
        machine.wait_for(
            "boot",
            lambda: machine.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded"),
            BOOT_SECONDS,
        )
        yield machine
        machine.run("systemctl poweroff", check=False)
        process.wait(STOP_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def _leader_of(process: subprocess.Popen[bytes], console: Path) -> int:
    """The container's process 1, seen from here: nspawn's child, once it is systemd."""
    started = time.monotonic()
    while time.monotonic() - started < BOOT_SECONDS:
        if process.poll() is not None:
            break
        with suppress(OSError):
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        time.sleep(0.2)
    last = console.read_text(errors="replace")[-2000:] if console.exists() else ""
    raise CannotBootError(f"systemd-nspawn did not boot: {shlex.join(map(str, process.args))}\n{last}")  # type: ignore[arg-type]


def _drain(master: int, console: Path) -> None:
    with console.open("wb") as file, suppress(OSError):
        while data := os.read(master, 65536):
            file.write(data)
            file.flush()
