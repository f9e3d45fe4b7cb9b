"""Memory, cores, GPUs, and which engines can run here."""

from __future__ import annotations

from collections.abc import Iterator

from heygemd.cli.checks import Finding
from heygemd.config import Settings
from heygemd.core.errors import HeygemdError
from heygemd.engines.base import engine_names, load_engine
from heygemd.gpu.devices import cards, devices, usable_cores, usable_ram_bytes
from heygemd.work.choose import choose_engine

_LEAST_RAM_BYTES = 2 * 2**30


def check_machine(settings: Settings) -> Iterator[Finding]:
    cores, ram = usable_cores(), usable_ram_bytes()
    yield Finding("machine", "ok", f"{cores} cores")
    if ram < _LEAST_RAM_BYTES:
        yield Finding("machine", "warn", f"{ram / 2**30:.1f} GiB of memory", "Give it 2 GiB or more.")
    else:
        yield Finding("machine", "ok", f"{ram / 2**30:.1f} GiB of memory")
    found = cards()
    for card in found:
        free, total = card.free_bytes / 2**30, card.total_bytes / 2**30
        yield Finding(
            "gpu", "ok", f"cuda:{card.index} {card.name}, {free:.1f} of {total:.1f} GiB free, driver {card.driver}"
        )
    if not found:
        yield Finding("gpu", "ok", "no NVIDIA GPU: the CPU renders")
    try:
        names = ", ".join(
            f"{d.name} ({d.budget_bytes // 2**20} MiB, {d.slots} at once)" for d in devices(settings.scheduler)
        )
        yield Finding("devices", "ok", f"renders on {names}")
    except HeygemdError as error:
        yield Finding("devices", "fail", error.message, error.remedy)
    yield from _engines(settings)


def _engines(settings: Settings) -> Iterator[Finding]:
    for name in engine_names():
        if load_engine(name).needs_checkpoint:
            yield _needy(name, settings)
        else:
            state = load_engine(name).availability(None)
            yield Finding("engine", "ok" if state.ok else "fail", f"{name}: {state.reason}", state.remedy)
    try:
        choice = choose_engine("auto", settings.engines.default, settings.checkpoint_dir, None)
        yield Finding("engine", "ok", f"auto means {choice.engine.name}: {choice.reason}")
    except HeygemdError as error:
        yield Finding("engine", "fail", error.message, error.remedy)


def _needy(name: str, settings: Settings) -> Finding:
    """An engine that waits for the operator's checkpoint is no fault while another can do the work."""
    try:
        choice = choose_engine(name, settings.engines.default, settings.checkpoint_dir, None)
    except HeygemdError as error:
        asked = settings.engines.default == name
        return Finding("engine", "fail" if asked else "warn", error.message, error.remedy)
    return Finding("engine", "ok", f"{name}: {choice.reason}")
