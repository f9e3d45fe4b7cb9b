"""A real Samba server on loopback, and `smbclient` as its user. Needs no root and no configuration of the machine."""

from __future__ import annotations

import getpass
import subprocess
import time
from pathlib import Path

from tests.ports import free_port

CONFIG = """
[global]
    server role = standalone server
    workgroup = TEST
    map to guest = Bad User
    guest account = {user}
    interfaces = 127.0.0.1
    bind interfaces only = yes
    smb ports = {port}
    private dir = {work}/private
    lock directory = {work}/lock
    state directory = {work}/state
    cache directory = {work}/cache
    pid directory = {work}/pid
    ncalrpc dir = {work}/ncalrpc
    log file = {work}/log
    load printers = no
    printcap name = /dev/null
    disable spoolss = yes
    server min protocol = SMB2

[drop]
    path = {share}
    guest ok = yes
    guest only = yes
    read only = no
    force user = {user}

[large]
    # as Samba's own manual advises for folders with thousands of files: no search for other spellings
    copy = drop
    case sensitive = yes
    default case = lower
    preserve case = no
    short preserve case = no
"""


class Samba:
    """`smbd` on a free port with `share` as //127.0.0.1/drop. A context manager."""

    def __init__(self, share: Path, work: Path) -> None:
        self.share = share
        self.work = work
        self.port = free_port()
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
            (work / name).mkdir(parents=True)
        self.config = work / "smb.conf"
        self.config.write_text(CONFIG.format(user=getpass.getuser(), port=self.port, work=work, share=share))
        self.process: subprocess.Popen[bytes] | None = None
        self.transcript: list[str] = []

    def __enter__(self) -> Samba:
        command = ["smbd", "--foreground", "--no-process-group", "-s", str(self.config)]
        with (self.work / "smbd.out").open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )  # it ends its whole process group with itself
        until = time.monotonic() + 120
        while time.monotonic() < until:
            assert self.process.poll() is None, (self.work / "smbd.out").read_text()
            if self.client("ls", check=False).returncode == 0:
                self.transcript.clear()
                return self
            time.sleep(0.1)
        raise AssertionError("smbd does not answer")

    def __exit__(self, *_exc: object) -> None:
        assert self.process is not None
        self.process.terminate()  # its children end with it
        self.process.wait(120)

    def command(self, commands: str, share: str = "drop") -> list[str]:
        return ["smbclient", f"//127.0.0.1/{share}", "-p", str(self.port), "-N", "-s", str(self.config), "-c", commands]

    def client(
        self, commands: str, *, check: bool = True, share: str = "drop", timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run commands of smbclient, separated by ;"""
        command = self.command(commands, share)
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds)
        self.transcript.append(f"smb: {commands}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def upload(self, name: str) -> subprocess.Popen[bytes]:
        """An upload that takes what its stdin gives, as slowly as that comes."""
        self.transcript.append(f"smb: put - {name}   (fed by hand)")
        return subprocess.Popen(
            self.command(f"put - {name}"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
