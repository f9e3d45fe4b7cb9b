"""What preparing takes and the least that rendering will, told right after the probe: before pass 1 costs minutes."""

from __future__ import annotations

from collections.abc import Mapping

from heygemd.core.ceiling import Ceiling
from heygemd.core.clip import VideoInfo
from heygemd.core.errors import CannotFitError
from heygemd.core.memory import (
    FIRST_MARGIN,
    LEAST_RATIO,
    Picture,
    bytes_per_pixel,
    mib,
    pipeline_bytes,
    preparing_bytes,
)
from heygemd.core.options import Options
from heygemd.engines.base import LipSyncEngine, MemoryQuery, PrepareQuery
from heygemd.media.probe import scaled

_SIDES = (3840, 2560, 1920, 1280, 960, 640)
"""Values of `resolution_limit` that a refusal may propose."""


class MoreRoomNeededError(Exception):
    """Preparing takes more than was reserved for it: it is to be begun again with `needed_bytes`."""

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(f"preparing takes {needed_bytes} bytes")
        self.needed_bytes = needed_bytes


def require_device(
    engine: LipSyncEngine,
    video: VideoInfo,
    kinds: tuple[str, ...],
    ceiling: Ceiling,
    instead: tuple[LipSyncEngine, tuple[str, ...]] | None = None,
) -> None:
    """Raises CannotFitError where no device could render the clip in any way, whatever pass 1 will find in it.

    `kinds`: of devices that the engine would render on; `instead`: another engine and its kinds, to be proposed.
    """
    rooms = ceiling.of(kinds)
    least = {kind: least_bytes(engine, video, kind) for kind in rooms}
    if not rooms or not all(ceiling.surely_above(kind, least[kind], rooms[kind]) for kind in rooms):
        return
    most, needed = max(rooms.values()), min(least.values())
    raise CannotFitError(
        f"a {video.width}x{video.height} render by {engine.name} takes at least {mib(needed)} MiB, frame by frame "
        f"and with the smallest face; no device here can ever give more than {mib(most)} MiB",
        remedy=_remedy(engine, video, rooms, ceiling, instead),
        case="memory",
        needed_bytes=needed,
        offered_bytes=most,
    )


def least_bytes(engine: LipSyncEngine, video: VideoInfo, kind: str) -> int:
    """What the formulas say of the smallest face, the smallest batch and the best precision: no plan of the clip needs
    less, before anything is measured."""
    return min(_formula_bytes(engine, video, kind, precision, 1) for precision in engine.precisions(kind, Options()))


def usual_bytes(engine: LipSyncEngine, video: VideoInfo, kind: str) -> int:
    """The same of a face whose size is not known, with the margin of a first prediction."""
    return int(
        (1 + FIRST_MARGIN) * min(_formula_bytes(engine, video, kind, p, 0) for p in engine.precisions(kind, Options()))
    )


def _formula_bytes(engine: LipSyncEngine, video: VideoInfo, kind: str, precision: str, region_pixels: int) -> int:
    query = MemoryQuery(kind, precision, 1, video.width, video.height, engine.variant, region_pixels)
    picture = Picture(
        video.width, video.height, bytes_per_pixel(video.pix_fmt, video.bit_depth), deep=video.bit_depth > 8
    )
    return engine.memory_bytes(query) + (pipeline_bytes(picture, 1) if kind == "cpu" else 0)


def _remedy(
    engine: LipSyncEngine,
    video: VideoInfo,
    rooms: Mapping[str, int],
    ceiling: Ceiling,
    instead: tuple[LipSyncEngine, tuple[str, ...]] | None,
) -> str:
    """What would fit."""
    ways = []
    for side in (side for side in _SIDES if side < max(video.width, video.height)):
        if any(usual_bytes(engine, scaled(video, side), kind) <= room for kind, room in rooms.items()):
            ways.append(f"set `resolution_limit: {side}` in the job")
            break
    device = min(usual_bytes(engine, video, kind) for kind in rooms)
    ways.append(f"give the daemon a device that offers {mib(device)} MiB to renders")
    if "cpu" not in rooms and usual_bytes(engine, video, "cpu") <= ceiling.host_bytes:
        ways.append("let the CPU render it (scheduler.cpu_fallback)")
    if instead is not None and instead[0].name != engine.name:
        other, kinds = instead
        if any(usual_bytes(other, video, kind) <= room for kind, room in ceiling.of(kinds).items()):
            ways.append(f"choose `engine: {other.name}`")
    words = ", or ".join(ways)
    return f"{words[0].upper()}{words[1:]}."


def require_preparing_room(
    engine: LipSyncEngine,
    video: VideoInfo,
    speech_seconds: float,
    reserved_bytes: int,
    ceiling: Ceiling | None,
    beside_bytes: int = 0,
) -> None:
    """Whether what is reserved holds what comes after the probe. `reserved_bytes`: 0 where nobody counts;
    `beside_bytes`: of a process beside the worker.

    Raises MoreRoomNeededError where more must be asked for, CannotFitError where this machine will never have it.
    """
    query = PrepareQuery(video.width, video.height, video.num_frames, speech_seconds)
    picture = Picture(video.width, video.height, bytes_per_pixel(video.source_pix_fmt, video.bit_depth))
    needed = preparing_bytes(picture) + engine.prepare_bytes(query) + beside_bytes
    if ceiling is not None:
        if LEAST_RATIO * needed > ceiling.host_bytes:
            raise CannotFitError(
                f"preparing {speech_seconds / 3600:.1f} h of speech over {video.num_frames} frames of {video.width}x"
                f"{video.height} takes {mib(needed)} MiB of RAM; this machine's jobs may have "
                f"{mib(ceiling.host_bytes)} MiB at most",
                remedy="Cut the recording into shorter ones, or raise scheduler.cpu_memory_mib, or the memory limit of "
                "the machine or container (MemoryMax).",
                case="memory",
                needed_bytes=needed,
                offered_bytes=ceiling.host_bytes,
            )
        needed = min(needed, ceiling.host_bytes)  # the formula may be too careful: it is tried with all there is
    if 0 < reserved_bytes < needed:
        raise MoreRoomNeededError(needed)
