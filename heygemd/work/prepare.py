"""Stage 1 of an item: probe, speech, pass 1 over the picture, motion. Afterwards nothing about it is unknown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heygemd.core.ceiling import Ceiling
from heygemd.core.clip import AudioInfo, Phone, VideoInfo
from heygemd.core.coding import Card
from heygemd.core.errors import LimitError, NoAudioError
from heygemd.core.options import Options
from heygemd.core.plan import BATCHES
from heygemd.core.settings import LimitSettings, MediaSettings
from heygemd.core.timeline import num_output_frames
from heygemd.engines.base import (
    SPEECH_RATE,
    Analyser,
    Analysis,
    AnalysisFrame,
    LipSyncEngine,
    MemoryQuery,
    Speech,
    load_engine,
)
from heygemd.faces.landmarks import Landmarks
from heygemd.faces.landmarks_fan import FanLandmarker
from heygemd.failpoints import failpoint
from heygemd.files import fsync_file
from heygemd.media.audio import hear, kept_samples, load_speech
from heygemd.media.decode import analysis_frames
from heygemd.media.inputs import MediaLimits
from heygemd.media.probe import counted, probe_video, scaled
from heygemd.media.speech import EspeakSource
from heygemd.work.afford import require_device, require_preparing_room
from heygemd.work.choose import EMBEDDED, best_batch_of, checkpoint_id, choose_engine, device_kinds_of, precisions_of
from heygemd.work.coding import choose_coding
from heygemd.work.cuts import cut_cost
from heygemd.work.detector import make_detector
from heygemd.work.item import ItemFolder, MemoryPoint, Prepared
from heygemd.work.landmarks import LANDMARKS_BYTES, find_landmarks, why_none

Report = Callable[[str, int, int], None]
"""stage, done, total; called often, so that a silent worker is a hung one."""


@dataclass(frozen=True)
class PrepareRequest:
    """What the daemon knows of an item. Exactly one of `audio`, `text_file`, `text` is given. `cards`: of this machine,
    that may render it. `reserved_bytes`: of RAM for preparing, 0 where nobody counts; `ceiling`: the most that it and a
    render could ever be given, None where nobody knows."""

    video: Path
    audio: Path | None
    text_file: Path | None
    text: str | None
    options: Options
    limits: LimitSettings
    default_engine: str
    checkpoint_dir: Path
    checkpoint: Path | None
    device_kinds: tuple[str, ...]
    face_detector: str = "cascade"
    face_detector_file: Path | None = None
    landmarks: str = "auto"
    landmarks_file: Path | None = None
    precision: str = "auto"
    media: MediaSettings = field(default_factory=MediaSettings)
    cards: tuple[Card, ...] = ()
    cpu_only: tuple[str, ...] = ()
    reserved_bytes: int = 0
    ceiling: Ceiling | None = None


def prepare(request: PrepareRequest, folder: ItemFolder, report: Report) -> Prepared:
    """Do stage 1 and leave its files in `folder`. Does nothing when it is done already.

    Raises HeygemdError, and MoreRoomNeededError where what is reserved does not hold what the probe has found.
    """
    if folder.is_prepared:
        return folder.load_prepared()
    folder.make()
    try:
        return _prepare(request, folder, report)
    finally:
        folder.drop_samples()


def _prepare(request: PrepareRequest, folder: ItemFolder, report: Report) -> Prepared:
    clock = _Clock()
    report("probe", 0, 1)
    failpoint("prepare.probe")
    limits = request.limits
    media = MediaLimits(max_pixels=limits.max_frame_pixels, max_seconds=limits.max_video_seconds)
    with ThreadPoolExecutor(1, thread_name_prefix="speech") as beside:
        hearing = beside.submit(_speech, request, folder)  # both are a chain of short processes
        video = probe_video(request.video, limits=media, log=folder.log)
        video = scaled(video, request.options.resolution_limit)
        choice = choose_engine(
            request.options.engine, request.default_engine, request.checkpoint_dir, request.checkpoint
        )
        kinds = device_kinds_of(choice.engine, request.device_kinds, request.cpu_only)
        if request.ceiling is not None:
            embedded = load_engine(EMBEDDED)
            instead = embedded, device_kinds_of(embedded, request.device_kinds, request.cpu_only)
            require_device(choice.engine, video, kinds, request.ceiling, instead)
        if request.device_kinds == ("cpu",):
            threading.Thread(target=choice.engine.import_ahead, name="import", daemon=True).start()
        clock.lap("probe")

        report("speech", 0, 1)
        failpoint("prepare.speech")
        spoken = hearing.result()
    del hearing  # it holds the samples, too
    speech_seconds = Fraction(len(spoken.samples), SPEECH_RATE)
    if speech_seconds > limits.max_speech_seconds:
        raise LimitError(
            f"the speech lasts {float(speech_seconds):.0f} s; the limit is {limits.max_speech_seconds:.0f} s",
            case="speech_too_long",
            seconds=float(speech_seconds),
            limit_seconds=limits.max_speech_seconds,
        )
    landmarks = _landmarks(request) if choice.engine.uses_landmarks else None
    finding = landmarks is not None and landmarks.landmarker is not None and not video.still
    more = LANDMARKS_BYTES if finding else 0
    require_preparing_room(choice.engine, video, float(speech_seconds), request.reserved_bytes, request.ceiling, more)
    clock.lap("speech")

    failpoint("prepare.analyse")
    detector = make_detector(request.face_detector, request.face_detector_file, request.checkpoint_dir)
    side = choice.engine.analysis_side(request.options)
    frames = analysis_frames(request.video, video, longest_side=side, log=folder.log, limits=media)
    analyser: Analyser | None = None
    for image in frames:
        if analyser is None:
            # The clip's own sound is aligned to its first frame, whose time is known only now.
            start = None if image.pts is None else float(image.pts * video.time_base)
            own = _own_speech(request.video, video, start, folder)
            analyser = choice.engine.analyser(video, request.options, own, folder.path, detector, landmarks)
        analyser.update(AnalysisFrame(image.index, image.image, image.scale))
        report("analyse", image.index + 1, max(video.num_frames, image.index + 1))
    assert analyser is not None  # noqa: S101 - a clip without a frame has raised UnreadableMediaError
    table = frames.table
    failpoint("prepare.frames")
    folder.save_frames(table)
    video = counted(video, table)
    report("analyse", video.num_frames, video.num_frames)
    analysis = analyser.finish()
    failpoint("prepare.analysis")
    folder.save_arrays("analysis", analysis.arrays)
    clock.lap("analyse")

    num_frames = num_output_frames(speech_seconds, video.fps)
    if request.options.tail == "keep":
        num_frames = max(num_frames, len(table.constant_rate(video.fps)))
    report("motion", 0, 1)
    num_samples = max(len(spoken.samples), int(num_frames / video.fps * SPEECH_RATE))
    samples = kept_samples(folder.speech_samples, num_samples)
    speech = Speech(samples, num_frames, video.fps, spoken.phones, spoken.language)
    motion = choice.engine.drive(speech, analysis, request.options)
    failpoint("prepare.motion")
    folder.save_arrays("motion", motion.arrays)
    folder.save_arrays("cuts", {"cost": cut_cost(speech, choice.engine.mouth_speed(motion))})
    clock.lap("motion")

    ways = {kind: precisions_of(choice.engine, kind, request.options, request.precision) for kind in kinds}
    memory = memory_points(choice.engine, video, ways, analysis)
    on_card = any(point.device == "cuda" for point in memory)
    prepared = Prepared(
        video_path=str(request.video),
        audio_path=str(spoken.path),
        video=video,
        audio=spoken.info,
        options=request.options,
        engine=choice.engine.name,
        engine_reason=choice.reason,
        checkpoint=None if choice.checkpoint is None else str(choice.checkpoint),
        num_frames=num_frames,
        speech_seconds=float(speech_seconds),
        phones=spoken.phones,
        language=spoken.language,
        memory=memory,
        best_batch=best_batch_of(choice.engine),
        summary={**analysis.summary, **motion.summary, **_checkpoint_facts(choice.checkpoint)},
        seconds=clock.laps,
        coding=choose_coding(request.media, request.video, video, request.options, request.cards, on_card=on_card),
    )
    failpoint("prepare.record")
    folder.save_prepared(prepared)
    return prepared


def memory_points(
    engine: LipSyncEngine, video: VideoInfo, ways: Mapping[str, tuple[str, ...]], analysis: Analysis
) -> tuple[MemoryPoint, ...]:
    """The engine's prediction for every device kind, precision and batch. `ways`: the precisions of each kind."""
    variant = str(analysis.summary.get("variant", ""))
    region = analysis.summary.get("region") or (0, 0)
    pixels = int(region[0] * region[1])
    return tuple(
        MemoryPoint(
            kind,
            precision,
            batch,
            engine.memory_bytes(MemoryQuery(kind, precision, batch, video.width, video.height, variant, pixels)),
        )
        for kind, precisions in ways.items()
        for precision in precisions
        for batch in BATCHES
    )


def _checkpoint_facts(path: Path | None) -> dict[str, str]:
    return {} if path is None else {"checkpoint_id": checkpoint_id(path)}


def _landmarks(request: PrepareRequest) -> Landmarks:
    """Raises CheckpointError."""
    weights = find_landmarks(request.landmarks, request.landmarks_file, request.checkpoint_dir)
    if weights is None:
        return Landmarks(None, why_none(request.landmarks, request.checkpoint_dir))
    return Landmarks(FanLandmarker(weights))


@dataclass(frozen=True)
class _Spoken:
    path: Path
    info: AudioInfo
    samples: NDArray[np.float32]
    phones: tuple[Phone, ...] | None = None
    language: str | None = None


def _speech(request: PrepareRequest, folder: ItemFolder) -> _Spoken:
    options = request.options
    if request.audio is not None:
        info, samples = hear(request.audio, log=folder.log, keep=folder.speech_samples)
        return _Spoken(request.audio, info, samples, language=options.language)
    text = request.text
    if request.text_file is not None:
        text = read_text(request.text_file, request.limits.max_text_characters)
    most = request.limits.max_text_characters
    if len(text or "") > most:
        raise LimitError(
            f"the text has {len(text or '')} characters; the limit is {most}",
            case="text_too_long",
            characters=len(text or ""),
            limit=most,
        )
    spoken = EspeakSource().speak(text or "", folder.speech, language=options.language, voice=options.voice)
    fsync_file(folder.speech)
    info, samples = hear(folder.speech, log=folder.log, keep=folder.speech_samples)
    return _Spoken(folder.speech, info, samples, spoken.phones, spoken.language)


def read_text(path: Path, max_characters: int) -> str:
    """A user's text: UTF-8 (with or without a mark), UTF-16 with a mark, else GB 18030. Raises LimitError."""
    data = path.read_bytes()
    if len(data) > max_characters * 4 + 4:
        raise LimitError(
            f"{path.name} is longer than {max_characters} characters",
            path=path.name,
            case="text_longer",
            limit=max_characters,
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030", errors="replace")


def _own_speech(
    path: Path, video: VideoInfo, start_seconds: float | None, folder: ItemFolder
) -> NDArray[np.float32] | None:
    if not video.has_audio:
        return None
    try:
        return load_speech(path, log=folder.log, origin_seconds=start_seconds, keep=folder.own_samples)
    except NoAudioError:
        return None  # an empty sound stream: the clip counts as silent


class _Clock:
    """Seconds of each stage, for the receipt."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
