"""A Debian system in a folder, made with debootstrap, for tests that need a whole machine.

What a package client needs here to reach its packages (proxies, certificates, local folders of wheels, pip's
configuration files) is read from this machine's own settings and carried over: no machine's particulars are in this
file. Linux, root and debootstrap are required; mounts live in a private namespace and vanish with the command.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

CHECKOUT = Path(__file__).resolve().parents[2]
CARRIED_VARIABLE = re.compile(r"PIP_\w+|SSL_CERT_\w+|\w*_CA_BUNDLE|(?:https?|no|all|ftp)_proxy", re.IGNORECASE)
NETWORK_FILES = ("/etc/resolv.conf", "/etc/hosts")

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


class CannotMakeRootError(RuntimeError):
    """This machine lacks what a Debian root is made with; the message says what."""


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


def base_root(suite: str, packages: Sequence[str], cache: Path | None = None) -> Path:
    """A minimal Debian with the packages, made once and kept; never enter it, copy it (fresh_root)."""
    if os.geteuid() != 0:
        raise CannotMakeRootError("a Debian root can only be made by root")
    if shutil.which("debootstrap") is None:
        raise CannotMakeRootError("debootstrap is not installed (apt-get install debootstrap)")
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heygemd"
    base = cache / f"{suite}-{'-'.join(packages)}"[:200]
    if base.is_dir():
        return base
    cache.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
    building.chmod(0o755)
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(building), *_mirror(suite)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    # Proxies and checks that this machine's apt was told about hold inside, too.
    acquire = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    lines = [line for line in acquire.splitlines() if line.startswith("Acquire::")]
    (building / "etc/apt/apt.conf.d/99host").write_text("\n".join(lines) + "\n", encoding="utf-8")
    building.rename(base)
    return base


@contextmanager
def fresh_root(base: Path, *, keep: bool = False) -> Iterator[Path]:
    """A copy of the base that may be changed, on the same filesystem; removed afterwards unless kept."""
    root = Path(tempfile.mkdtemp(prefix="run-", dir=base.parent))
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", str(root)], check=True)
        yield root
    finally:
        if not keep:
            shutil.rmtree(root)


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
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/bash", "-c", ENTER, "enter",
         str(root), *binds, "--", folder, *command],
        check=False, env=environment,
    )  # fmt: skip
