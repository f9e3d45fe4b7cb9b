"""NVIDIA cards: there, driven, and usable by the torch that is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from heygemd.cli.checks import Finding
from heygemd.core.coding import NVENC, SOFTWARE, Card
from heygemd.core.settings import MediaSettings
from heygemd.gpu.devices import CardSnapshot, cards

_TIMEOUT_SECONDS = 120
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_TORCH = "import torch; print(torch.__version__, torch.version.cuda or '-', torch.cuda.is_available())"


def check_gpus(pci: Path = Path("/sys/bus/pci/devices")) -> Iterator[Finding]:
    found = cards()
    yield from _cards(found)
    usable = [card for card in found if card.problem is None]
    if usable:
        yield _torch()
    elif not found and _on_the_bus(pci):
        yield Finding(
            "gpu",
            "warn",
            "an NVIDIA card is in this machine, but its driver does not answer: the CPU renders",
            "Install the driver (Debian: nvidia-driver), then `nvidia-smi` must list the card; in a container: --gpus.",
        )
    elif not found:
        yield Finding("gpu", "ok", "no NVIDIA GPU: the CPU renders")


def check_encoder(media: MediaSettings) -> Iterator[Finding]:
    """A real encode on every card; nothing where software is asked for, or is all there is."""
    usable = [Card(card.index, card.uuid) for card in cards() if card.problem is None]
    if media.encoder == SOFTWARE or not (usable or media.encoder == NVENC):
        return
    from heygemd.media.hardware import try_encoder

    for card in usable or [Card()]:
        trial = try_encoder(card)
        if trial.ok:
            yield Finding("encoder", "ok", f"NVENC works: {trial.reason}")
        elif media.encoder == NVENC:
            remedy = (
                'Set media.encoder = "auto", or give the driver its video libraries (containers: capability video).'
            )
            yield Finding("encoder", "fail", f"HG-3005: media.encoder is nvenc, but {trial.reason}", remedy)
        else:
            remedy = (
                "Many data-centre cards have no encoder; in a container the driver needs the capability `video`. "
                'media.encoder = "software" ends this line.'
            )
            yield Finding("encoder", "warn", f"software encodes: {trial.reason}", remedy)


def _cards(found: Sequence[CardSnapshot]) -> Iterator[Finding]:
    for card in found:
        name = f"cuda:{card.index} {card.name}"
        if card.problem is not None:
            remedy = "`nvidia-smi -q` and `journalctl -k | grep NVRM` say more; a reboot often helps."
            yield Finding("gpu", "fail", f"{name} cannot be used: {card.problem}", remedy)
            continue
        free, total = card.free_bytes / 2**30, card.total_bytes / 2**30
        yield Finding("gpu", "ok", f"{name}, {free:.1f} of {total:.1f} GiB free, driver {card.driver}")


def _torch() -> Finding:
    """In a child: this process never loads torch."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, timeout=_TIMEOUT_SECONDS, check=False, text=True
        )
    except subprocess.TimeoutExpired:
        return Finding("gpu", "fail", f"torch did not start in {_TIMEOUT_SECONDS} s", "`nvidia-smi` answers at once?")
    parts = done.stdout.split()
    if len(parts) != 3:
        return Finding("gpu", "fail", "torch cannot be imported", "See what is said of it above.")
    version, cuda, available = parts
    if available == "True":
        return Finding("gpu", "ok", f"torch {version} uses it (CUDA {cuda})")
    if cuda == "-":
        return Finding(
            "gpu", "warn", f"torch {version} is a build for the CPU: the card is not used", "./install.sh --torch cuda"
        )
    return Finding(
        "gpu",
        "fail",
        f"torch {version} (CUDA {cuda}) cannot use the card",
        "The driver may be too old for this CUDA, or the service's user may not open /dev/nvidia* (group video).",
    )


def _on_the_bus(pci: Path) -> bool:
    for device in pci.glob("*"):
        try:
            vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
        except OSError:  # unplugged meanwhile, or a name that is no device
            continue
        if vendor.strip() == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False
