"""Memory, cores, GPUs, and which engines can run here."""

from __future__ import annotations

from collections.abc import Iterator

from heygemd.cli.checks import Finding
from heygemd.cli.checks.gpu import check_encoder, check_gpus
from heygemd.config import Settings
from heygemd.core.errors import CheckpointError, HeygemdError
from heygemd.core.options import Options
from heygemd.engines.base import LipSyncEngine, engine_names, load_engine
from heygemd.gpu.devices import devices, usable_cores, usable_ram_bytes
from heygemd.work.checkpoints import verify_folder
from heygemd.work.choose import choose_engine, device_kinds_of, precisions_of
from heygemd.work.landmarks import find_landmarks, why_none

_LEAST_RAM_BYTES = 2 * 2**30


def check_machine(settings: Settings) -> Iterator[Finding]:
    cores, ram = usable_cores(), usable_ram_bytes()
    yield Finding("machine", "ok", f"{cores} cores")
    if ram < _LEAST_RAM_BYTES:
        yield Finding("machine", "warn", f"{ram / 2**30:.1f} GiB of memory", "Give it 2 GiB or more.")
    else:
        yield Finding("machine", "ok", f"{ram / 2**30:.1f} GiB of memory")
    yield from check_gpus()
    yield from check_encoder(settings.media)
    try:
        names = ", ".join(
            f"{d.name} ({d.budget_bytes // 2**20} MiB, {d.slots} at once)" for d in devices(settings.scheduler)
        )
        yield Finding("devices", "ok", f"renders on {names}")
    except HeygemdError as error:
        yield Finding("devices", "fail", error.message, error.remedy)
    yield from _engines(settings)
    yield _landmarks(settings)
    yield from _checkpoints(settings)


def _checkpoints(settings: Settings) -> Iterator[Finding]:
    """Files that lie among the checkpoints and are of no use; the usable one is told with its engine."""
    try:
        results = verify_folder(settings.checkpoint_dir)
    except HeygemdError as error:
        yield Finding("models", "warn", error.message, error.remedy)
        return
    for result in results:
        if not result.ok:
            yield Finding("models", "warn", result.reason, "Download it again, or remove it (`heygemd checkpoints`).")
    if results and all(result.ok for result in results):
        yield Finding("models", "ok", f"{len(results)} checkpoints in {settings.checkpoint_dir}, all readable")


def _landmarks(settings: Settings) -> Finding:
    mode, folder = settings.engines.landmarks, settings.checkpoint_dir
    try:
        found = find_landmarks(mode, settings.landmarks_file, folder)
    except CheckpointError as error:
        return Finding("engine", "fail", f"rewrite's jobs will fail: {error.message}", error.remedy)
    if found is None:
        told = f"no landmarks ({why_none(mode, folder)}): rewrite measures mouths by colours and flow"
        return Finding("engine", "ok", told)
    return Finding("engine", "ok", f"landmarks from {found.name}: rewrite measures mouths with them")


def _engines(settings: Settings) -> Iterator[Finding]:
    for name in engine_names():
        if load_engine(name).needs_checkpoint:
            yield from _needy(name, settings)
        else:
            state = load_engine(name).availability(None)
            yield Finding("engine", "ok" if state.ok else "fail", f"{name}: {state.reason}", state.remedy)
    for name in sorted(set(settings.engines.cpu_only) - set(engine_names())):
        remedy = f"Known are {', '.join(engine_names())}."
        yield Finding("engine", "warn", f"engines.cpu_only names {name!r}, which is no engine here", remedy)
    try:
        choice = choose_engine("auto", settings.engines.default, settings.checkpoint_dir, None)
        yield Finding("engine", "ok", f"auto means {choice.engine.name}: {choice.reason}")
    except HeygemdError as error:
        yield Finding("engine", "fail", error.message, error.remedy)


def _needy(name: str, settings: Settings) -> Iterator[Finding]:
    """An engine that waits for the operator's checkpoint is no fault while another can do the work."""
    try:
        choice = choose_engine(name, settings.engines.default, settings.checkpoint_dir, None)
    except HeygemdError as error:
        asked = settings.engines.default == name
        yield Finding("engine", "fail" if asked else "warn", error.message, error.remedy)
        return
    yield Finding("engine", "ok", f"{name}: {choice.reason}")
    yield from _precisions(choice.engine, settings)


def _precisions(engine: LipSyncEngine, settings: Settings) -> Iterator[Finding]:
    """What its network computes in here, and where a wish for another precision cannot be met."""
    wanted = settings.engines.precision
    try:
        offered = {device.kind for device in devices(settings.scheduler)}
    except HeygemdError:  # told already
        return
    for kind in device_kinds_of(engine, tuple(sorted(offered)), settings.engines.cpu_only):
        used = precisions_of(engine, kind, Options(), wanted)[0]
        told = f"{engine.name} computes in {used} on {kind}"
        if wanted in ("auto", used):
            yield Finding("engine", "ok", told)
        else:
            remedy = "Set engines.precision to auto, or to one that the network and the device have."
            yield Finding("engine", "warn", f"{told}, though engines.precision is {wanted}", remedy)
