"""A booted Debian: systemd as process 1 in a container of systemd-nspawn, and commands run inside it."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from debian_root import IN_NAMESPACES, Carried, require

# A machine whose cores and disk others keep busy is slow; these only bound what hangs.
BOOT_SECONDS = 240.0
STOP_SECONDS = 90.0
COMMAND_SECONDS = 900.0
CGROUPS = Path("/sys/fs/cgroup")
FORBIDDEN = re.compile(r"Operation not permitted|Permission denied|Read-only file system|Function not implemented")


class CannotBootError(RuntimeError):
    """Containers are forbidden here; the message says by what."""


def require_containers() -> None:
    """Raises CannotBootError where namespaces, mounts or pseudo-terminals are forbidden; ToolMissingError."""
    if os.geteuid() != 0:
        raise CannotBootError("only root can make containers")
    for tool, package in (
        ("systemd-nspawn", "systemd-container"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
    ):
        require(tool, package)
    try:
        for end in pty.openpty():
            os.close(end)
    except OSError as error:
        raise CannotBootError(f"no pseudo-terminal: {error}") from None
    with tempfile.TemporaryDirectory() as folder:
        probe = 'mount --make-rprivate / && mount -t tmpfs none "$0" && mount --bind "$0" "$0"'
        done = subprocess.run(
            [*IN_NAMESPACES, "--uts", "--ipc", "/bin/sh", "-c", probe, folder],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode != 0:
        raise CannotBootError(f"no namespaces, or no mounts in them: {done.stderr.strip()}")


class Machine:
    """A container. Commands join its namespaces; output is returned, or goes to the terminal."""

    def __init__(self, root: Path, carried: Carried) -> None:
        """`root` is changed: files that this machine carries over get a place in it."""
        self.root = root
        self.console = root / "console.log"
        self._command = _nspawn(root, carried)
        self._environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **carried.variables,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def start(self) -> float:
        """Boot; the seconds that it took. Raises CannotBootError, or AssertionError when it hangs."""
        started = time.monotonic()
        master, slave = pty.openpty()
        self._process = subprocess.Popen(
            self._command, stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True
        )
        os.close(slave)
        threading.Thread(target=_drain, args=(master, self.console), daemon=True).start()
        self._leader = self._find_leader()
        self.wait_for("boot", self._is_up, BOOT_SECONDS)
        return time.monotonic() - started

    def stop(self) -> None:
        """Power off."""
        if self._process is not None and self._process.poll() is None and self._leader:
            with suppress(subprocess.TimeoutExpired):
                self._enter(["systemctl", "poweroff"], timeout=STOP_SECONDS)
                self._process.wait(STOP_SECONDS)
        self.end()

    def end(self) -> None:
        """At once: its process 1 dies with nspawn, and all others with that."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process, self._leader = None, 0

    def run(
        self, command: str, *, user: str | None = None, check: bool = True, show: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command inside, as root or another user."""
        inner = ["env", "-C", "/", "/bin/bash", "-c", command]
        if user:
            inner = ["runuser", "-u", user, "--", "env", "HOME=/nonexistent", *inner]
        done = self._enter(inner, show=show)
        if check and done.returncode != 0:
            raise AssertionError(f"exit {done.returncode} from: {command}\n{done.stdout or ''}")
        return done

    def _enter(
        self, command: list[str], *, show: bool = False, timeout: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--pid", "--root", *command],
            check=False, timeout=timeout, env=self._environment, stdin=subprocess.DEVNULL, text=True, errors="replace",
            stdout=None if show else subprocess.PIPE, stderr=None if show else subprocess.STDOUT,
        )  # fmt: skip

    def output(self, command: str, *, user: str | None = None) -> str:
        return self.run(command, user=user).stdout.strip()

    def succeeds(self, command: str, *, user: str | None = None) -> bool:
        return self.run(command, user=user, check=False).returncode == 0

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Poll until the condition holds; the seconds that it took. Fails with `what` when time is up."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > seconds:
                raise AssertionError(f"{what}: not within {seconds:.0f} s")
            time.sleep(0.5)
        return time.monotonic() - started

    def _is_up(self) -> bool:
        said = self.run("systemctl is-system-running", check=False).stdout.strip()
        return said in ("running", "degraded")

    def _find_leader(self) -> int:
        """The container's process 1, seen from here: nspawn's child, once it is systemd."""
        assert self._process is not None
        pid = self._process.pid
        started = time.monotonic()
        while time.monotonic() - started < BOOT_SECONDS and self._process.poll() is None:
            with suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                        return int(child)
            time.sleep(0.2)
        said = f"systemd-nspawn did not boot: {shlex.join(self._command)}\n{self.console_tail()}"
        if self._process.poll() is not None and FORBIDDEN.search(said):
            raise CannotBootError(said)
        raise AssertionError(said)

    def console_tail(self) -> str:
        return self.console.read_text(errors="replace")[-2000:] if self.console.exists() else ""


@contextmanager
def machine_of(root: Path, carried: Carried) -> Iterator[Machine]:
    """The machine, still off; whatever happens, nothing of it is left running or mounted."""
    machine = Machine(root, carried)
    before = _cgroups()
    try:
        yield machine
        machine.stop()
    finally:
        machine.end()
        _remove_cgroups(before)


def _nspawn(root: Path, carried: Carried) -> list[str]:
    # When this process is killed, the container must not outlive it.
    command = ["setpriv", "--pdeathsig", "KILL", "systemd-nspawn"]
    command += ["--quiet", "--boot", f"--directory={root}", "--register=no", "--keep-unit"]
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
    if not (CGROUPS / "cgroup.controllers").exists():
        command.append("systemd.unified_cgroup_hierarchy=0")  # the container's systemd must use what the host has
    return command


def _drain(master: int, console: Path) -> None:
    with console.open("ab") as file, suppress(OSError):
        while data := os.read(master, 65536):
            file.write(data)
            file.flush()
    os.close(master)


def _cgroups() -> set[Path]:
    return {path for path in CGROUPS.glob("**/") if path.name in ("payload", "supervisor")}


def _remove_cgroups(before: set[Path]) -> None:
    """nspawn leaves the groups that it made, empty."""
    for made in _cgroups() - before:
        for folder, _, _ in os.walk(made, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
