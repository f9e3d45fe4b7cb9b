"""The share that install.sh --with-samba makes: a real smbd on the loopback interface, used by smbclient.

Users and groups are the system's own (games, news): nothing outside the test's folder is changed.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
MEMBER, GROUP, STRANGER = "games", "games", "news"
PASSWORD = "drop-it-here"  # noqa: S105 - of a server that lives for seconds
LIBRARY = CHECKOUT / "scripts/lib"

MISSING = [tool for tool in ("smbd", "smbclient", "pdbedit", "testparm") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: a Samba server that changes users needs root"),
    pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"NOT RUN: {', '.join(MISSING)} missing"),
]


def section(root: Path, group: str) -> str:
    script = f'DRY_RUN=no; source "{LIBRARY}/say.sh"; source "{LIBRARY}/samba.sh"; samba_share "$1" "$2"'
    command = ["bash", "-euo", "pipefail", "-c", script, "samba", str(root), group]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Server:
    configuration: Path
    root: Path
    port: int

    def command(self) -> list[str]:
        return ["smbclient", f"--configfile={self.configuration}", "//127.0.0.1/heygemd", "-p", str(self.port)]

    def client(self, user: str, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """smbclient's commands on the share, in the server's own folder."""
        login = ["-N"] if user == "" else ["-U", f"{user}%{PASSWORD}"]
        done = subprocess.run(
            [*self.command(), *login, "-c", command],
            check=False, capture_output=True, text=True, cwd=self.configuration.parent, timeout=240,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    place = Path(tempfile.mkdtemp(prefix="heygemd-samba-"))
    place.chmod(0o755)
    root = place / "share"
    group = grp.getgrnam(GROUP).gr_gid
    for name, mode in (("", 0o3770), ("inbox", 0o2770), ("outbox", 0o2770), ("archive", 0o2750)):
        folder = root / name
        folder.mkdir()
        os.chown(folder, pwd.getpwnam("backup").pw_uid, group)  # stands for the service
        folder.chmod(mode)
    port = free_port()
    own = {key: place / key for key in ("private", "lock", "state", "cache", "pid", "ncalrpc")}
    for folder in own.values():
        folder.mkdir(mode=0o755)
    configuration = place / "smb.conf"
    share = place / "heygemd.conf"
    share.write_text(section(root, GROUP))
    lines = [f"{key} {'dir' if key in ('private', 'ncalrpc') else 'directory'} = {own[key]}" for key in own]
    configuration.write_text(
        "[global]\n"
        + "".join(f"   {line}\n" for line in lines)
        + "   interfaces = 127.0.0.1\n   bind interfaces only = yes\n   map to guest = bad user\n"
        + f"   smb ports = {port}\n   disable spoolss = yes\n   load printers = no\n"
        + f"   log file = {place}/log\n   passdb backend = tdbsam:{place}/passdb.tdb\n[other]\n   path = /tmp\n"
        + f"   include = {share}\n"
    )
    for user in (MEMBER, STRANGER):
        subprocess.run(
            ["pdbedit", f"--configfile={configuration}", "-a", "-t", "-u", user],
            check=True, capture_output=True, text=True, input=f"{PASSWORD}\n{PASSWORD}\n",
        )  # fmt: skip
    log = (place / "smbd.out").open("wb")
    smbd = subprocess.Popen(
        ["smbd", f"--configfile={configuration}", "--foreground", "--no-process-group"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        made = Server(configuration, root, port)
        deadline = time.monotonic() + 120
        while made.client(MEMBER, "ls", check=False).returncode != 0:
            assert smbd.poll() is None, (place / "smbd.out").read_text()
            assert time.monotonic() < deadline, made.client(MEMBER, "ls", check=False).stdout
            time.sleep(0.2)
        yield made
    finally:
        if smbd.poll() is None:
            os.killpg(smbd.pid, 15)  # a session of its own: smbd and its children
            smbd.wait(120)
        log.close()
        shutil.rmtree(place)


def test_testparm_has_nothing_to_complain(server: Server) -> None:
    done = subprocess.run(["testparm", "-s", str(server.configuration)], check=True, capture_output=True, text=True)
    shown = done.stdout.split("[heygemd]")[1]
    assert "guest ok" not in shown  # it is not the default, so it would be shown
    assert f"valid users = @{GROUP}" in shown
    complaints = [line for line in done.stderr.splitlines() if "service heygemd" in line or "Unknown" in line]
    assert complaints == []


def test_a_member_drops_a_pair_that_the_group_may_move(server: Server) -> None:
    (server.configuration.parent / "clip.bin").write_bytes(b"video" * 100_000)
    server.client(MEMBER, 'cd inbox; mkdir "课 1"; cd "课 1"; put clip.bin lecture.mp4; put clip.bin lecture.wav')
    folder = server.root / "inbox/课 1"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770
    for name in ("lecture.mp4", "lecture.wav"):
        found = (folder / name).stat()
        assert found.st_size == 500_000
        assert grp.getgrgid(found.st_gid).gr_name == GROUP
        assert found.st_mode & 0o060 == 0o060, "the service could not read it"
        assert found.st_mode & 0o007 == 0


def test_a_member_fetches_and_removes_a_result(server: Server) -> None:
    result = server.root / "outbox/lecture"
    result.mkdir()
    service = pwd.getpwnam("backup").pw_uid
    (result / "lecture.mp4").write_bytes(b"result")
    for path in (result, result / "lecture.mp4"):
        os.chown(path, service, grp.getgrnam(GROUP).gr_gid)
        path.chmod(0o2770 if path.is_dir() else 0o660)
    server.client(MEMBER, "cd outbox/lecture; get lecture.mp4; del lecture.mp4; cd ..; rmdir lecture")
    assert (server.configuration.parent / "lecture.mp4").read_bytes() == b"result"
    assert not result.exists()
    refused = server.client(MEMBER, "rmdir outbox", check=False)
    assert "NT_STATUS_ACCESS_DENIED" in refused.stdout + refused.stderr or (server.root / "outbox").is_dir()
    assert (server.root / "outbox").is_dir(), "a member removed a folder of the share itself"


@pytest.mark.parametrize("user", [STRANGER, ""])
def test_nobody_else_gets_in(server: Server, user: str) -> None:
    done = server.client(user, "ls", check=False)
    assert done.returncode != 0
    assert "NT_STATUS_ACCESS_DENIED" in done.stdout + done.stderr


def test_what_the_service_moves_is_gone_at_once_for_a_client_that_holds_the_folder(server: Server) -> None:
    """No oplocks: the client's view is the server's."""
    source = server.root / "inbox/moved.mp4"
    source.write_bytes(b"x")
    moved = server.root / "archive/moved.mp4"
    client = subprocess.Popen(
        ["stdbuf", "-oL", *server.command(), "-U", f"{MEMBER}%{PASSWORD}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("ls inbox/moved.mp4\n")
    client.stdin.flush()
    first = next(line for line in client.stdout if "moved.mp4" in line)
    source.rename(moved)
    rest, _ = client.communicate("ls inbox/moved.mp4\nls archive/moved.mp4\nquit\n", timeout=120)
    told = first + rest
    assert told.count("moved.mp4  ") == 2, told
    assert "NT_STATUS_NO_SUCH_FILE" in told
