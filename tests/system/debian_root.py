"""A Debian system in a folder, made with debootstrap, for tests that need a whole machine.

What a package client needs here to reach its packages (proxies, certificates, local folders of wheels, pip's
configuration files) is read from this machine's own settings and carried over: no machine's particulars are in this
file. Linux, root and debootstrap are required; mounts live in a private namespace and vanish with the command.

A root that was made is kept in the user's cache folder, where that can be written; each run changes a copy of its own.
"""

from __future__ import annotations

import configparser
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

CHECKOUT = Path(__file__).resolve().parents[2]
CARRIED_VARIABLE = re.compile(r"PIP_\w+|SSL_CERT_\w+|\w*_CA_BUNDLE|(?:https?|no|all|ftp)_proxy", re.IGNORECASE)
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")
ROOM_BYTES = 6_000_000_000
IN_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")

# Mounts, then the command; "$@" is ROOT, then SOURCE TARGET pairs, then --, then the command.
ENTER = r"""
set -eu
root=$1; shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$(dirname "$root$2")"; [ -e "$root$2" ] || : >"$root$2"; fi
    mount --rbind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2" 2>/dev/null || true
    shift 2
done
shift
exec chroot "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' enter "$@"
"""


class ToolMissingError(RuntimeError):
    """A program is missing; the message names it and its package."""


class CannotMakeRootError(RuntimeError):
    """A Debian root cannot be made here, or not now; the message says why."""


@dataclass(frozen=True)
class Carried:
    """What package clients need from this machine: variables, and paths that appear at the same place inside."""

    variables: Mapping[str, str]
    paths: tuple[Path, ...]


def carried_settings(environment: Mapping[str, str] = os.environ) -> Carried:
    """Collect pip's and the TLS clients' settings of this machine, following the paths that they name."""
    variables = {name: value for name, value in environment.items() if CARRIED_VARIABLE.fullmatch(name)}
    config_files = _pip_config_files()
    named = set(config_files)
    for value in [*variables.values(), *_pip_config_values(config_files)]:
        named.update(_paths_in(value))
    named.update(Path(name) for name in NETWORK_FILES if Path(name).is_file())
    return Carried(variables, _without_nested(named))


def _pip_config_files() -> list[Path]:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], check=True, capture_output=True, text=True
    ).stdout
    return [Path(match) for match in re.findall(r"^\s+(/.*), exists: True$", listing, re.MULTILINE)]


def _pip_config_values(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        parser = configparser.RawConfigParser()
        parser.read(file, encoding="utf-8")
        for section in parser.sections():
            yield from parser[section].values()


def _paths_in(value: str) -> Iterator[Path]:
    for word in value.split():
        url = urlparse(word)
        path = Path(url.path if url.scheme == "file" else word)
        # An index is named by the folder of its pages; its files lie beside that folder.
        if url.scheme == "file" and path.name == "simple":
            path = path.parent
        if path.is_absolute() and path.exists():
            yield path


def _without_nested(paths: Iterable[Path]) -> tuple[Path, ...]:
    ordered = sorted(set(paths))
    return tuple(path for path in ordered if not any(parent in path.parents for parent in ordered))


def _mirror(suite: str) -> list[str]:
    """The mirror that this machine's apt uses for the suite; none leaves debootstrap its own default."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        check=False, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for line in listing.splitlines():
        uri, _, release = line.partition(" ")
        if release == suite:
            return [uri]
    return []


def require(tool: str, package: str) -> None:
    """Raises ToolMissingError."""
    if shutil.which(tool) is None:
        raise ToolMissingError(f"{tool} is not installed (apt-get install {package})")


@contextmanager
def fresh_root(suite: str, packages: Sequence[str], cache: Path | None = None, *, keep: bool = False) -> Iterator[Path]:
    """A minimal Debian with the packages that may be changed; removed afterwards unless kept."""
    if os.geteuid() != 0:
        raise CannotMakeRootError("a Debian root can only be made by root")
    require("debootstrap", "debootstrap")
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heygemd"
    place = _place(cache)
    with ExitStack() as stack:
        root = stack.enter_context(_claimed(place, keep=keep))
        base = cache / f"{suite}-{'-'.join(packages)}"[:200]
        if not base.is_dir() and place == cache:
            _make(suite, packages, building := stack.enter_context(_claimed(place, keep=False)))
            with suppress(OSError):  # somebody else has made it meanwhile
                building.rename(base)
        if base.is_dir():
            subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", str(root)], check=True)
        else:
            _make(suite, packages, root)
        # No test outlives its root: nothing in it must survive a power cut.
        (root / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True, exist_ok=True)
        (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n", encoding="utf-8")
        (root / "etc/apt/apt.conf.d/99retries").write_text('Acquire::Retries "3";\n', encoding="utf-8")
        yield root


def _place(cache: Path) -> Path:
    """The folder for roots: the cache where it can be written, else a temporary folder; one with room."""
    short = []
    for folder in (cache, Path("/var/tmp"), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Path(tempfile.mkdtemp(dir=folder)).rmdir()
        except OSError:
            continue
        if shutil.disk_usage(folder).free >= ROOM_BYTES:
            return folder
        short.append(str(folder))
    raise CannotMakeRootError(f"no folder with {ROOM_BYTES // 10**9} GB of room for a Debian root (tried: {short})")


@contextmanager
def _claimed(place: Path, *, keep: bool) -> Iterator[Path]:
    """A new folder, locked while it is in use. What killed runs left there, unlocked, is removed."""
    with _locked(place):
        for left in place.glob("heygemd-root-*"):
            with suppress(OSError), _locked(left, wait=False):
                _remove(left)
        folder = Path(tempfile.mkdtemp(prefix="heygemd-root-", dir=place))
        folder.chmod(0o755)
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(lock)
        if keep:
            folder.rename(folder.with_name(folder.name.replace("-root-", "-kept-")))
        else:
            _remove(folder)


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


def _make(suite: str, packages: Sequence[str], folder: Path) -> None:
    """debootstrap, tried twice: a mirror may be away for a moment. Its mounts and processes end with it."""
    for attempt in (1, 2):
        try:
            _debootstrap(suite, packages, folder)
            break
        except subprocess.CalledProcessError as error:
            log = folder / "debootstrap/debootstrap.log"
            tail = log.read_text(encoding="utf-8", errors="replace")[-1500:] if log.exists() else ""
            if attempt == 2:
                raise CannotMakeRootError(f"debootstrap {suite} failed: {error}\n{error.stdout or ''}{tail}") from None
            for left in folder.iterdir():
                _remove(left)
    # Proxies and checks that this machine's apt was told about hold inside, too.
    acquire = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    lines = [line for line in acquire.splitlines() if line.startswith("Acquire::")]
    (folder / "etc/apt/apt.conf.d/99host").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _debootstrap(suite: str, packages: Sequence[str], folder: Path) -> None:
    first = ["debootstrap", "--foreign", "--variant=minbase", f"--include={','.join(packages)}", suite, str(folder)]
    second = ["chroot", str(folder), "/debootstrap/debootstrap", "--second-stage"]
    subprocess.run([*IN_NAMESPACES, *first, *_mirror(suite)], check=True, stdout=subprocess.PIPE, text=True)
    # Between the two: dpkg would wait for the disk after every file.
    (folder / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True, exist_ok=True)
    (folder / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n", encoding="utf-8")
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    subprocess.run([*IN_NAMESPACES, *second], check=True, stdout=subprocess.PIPE, text=True, env=environment)


def clone_checkout(root: Path, target: str) -> None:
    """What is committed here, cloned to `target` inside the root."""
    subprocess.run(
        ["git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", str(CHECKOUT), f"{root}{target}"], check=True
    )


def enter(
    root: Path, command: Sequence[str], *, carried: Carried, folder: str = "/", extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in the root with a clean environment, output to this process's own; exit code returned."""
    binds = [part for path in carried.paths for part in (str(path.resolve()), str(path))]
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        **carried.variables,
        **(extra or {}),
    }
    return subprocess.run(
        [*IN_NAMESPACES, "/bin/bash", "-c", ENTER, "enter", str(root), *binds, "--", folder, *command],
        check=False, env=environment,
    )  # fmt: skip
