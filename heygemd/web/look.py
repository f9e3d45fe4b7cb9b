"""What an uploaded file holds: a process of its own, because media of strangers are opened in it.

`python -m heygemd.web.look KIND FILE FOLDER LIMITS`: LIMITS is settings.limits as JSON. Writes poster.jpg and look.json
into FOLDER. look.json has `ok`; `seconds`, and by kind `width`, `height`, `faces` (boxes x0, y0, x1, y1 in source
pixels, the largest first), `poster`, `text`; where `ok` is false, `error`.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from heygemd.core.errors import BadInputError, HeygemdError, LimitError, UnreadableMediaError
from heygemd.core.settings import LimitSettings
from heygemd.files import write_atomic, write_json
from heygemd.media.inputs import MediaLimits
from heygemd.web.uploads import LOOK, POSTER

_CPU_SECONDS = 120
_SIDE_PX = 960
_LOOKS = (0, 10, 25, 50, 75)
"""Frames in which faces are looked for; the one with most of them becomes the poster."""
_SAME_FACE_SHARE = 0.4  # of the largest: what is smaller is no speaker but a picture on the wall
_TEXT_SHOWN = 400


def look(kind: str, path: Path, folder: Path, limits: LimitSettings) -> dict[str, Any]:
    """Raises HeygemdError."""
    media_limits = MediaLimits(
        max_pixels=limits.max_frame_pixels,
        max_seconds=limits.max_speech_seconds if kind == "audio" else limits.max_video_seconds,
        threads=1,
    )
    if kind == "text":
        return _text(path, limits)
    if kind == "audio":
        return _audio(path, media_limits)
    return _picture(path, folder, media_limits)


def _text(path: Path, limits: LimitSettings) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        text = f"the text is not UTF-8 (byte {error.start})"
        raise BadInputError(text, remedy="Save it as UTF-8.", path=path.name, case="not_utf8") from None
    if not text.strip():
        raise BadInputError("the text is empty", remedy="Give at least a word.", path=path.name, case="empty_text")
    if len(text) > limits.max_text_characters:
        raise LimitError(
            f"{len(text):,} characters are more than the limit of {limits.max_text_characters:,}",
            case="text_too_long",
            characters=len(text),
            limit=limits.max_text_characters,
        )
    return {"characters": len(text), "text": text[:_TEXT_SHOWN]}


def _audio(path: Path, limits: MediaLimits) -> dict[str, Any]:
    from heygemd.media.audio import probe_audio

    info = probe_audio(path, limits=limits)
    if info.duration_seconds > limits.max_seconds:
        raise LimitError(
            f"{info.duration_seconds:.0f} s are more than the limit of {limits.max_seconds:.0f} s",
            path=path.name,
            case="too_long",
            seconds=info.duration_seconds,
            limit_seconds=limits.max_seconds,
        )
    return {"seconds": round(info.duration_seconds, 2)}


def _picture(path: Path, folder: Path, limits: MediaLimits) -> dict[str, Any]:
    import cv2

    from heygemd.faces.detect import CascadeDetector
    from heygemd.media.decode import analysis_frames
    from heygemd.media.probe import probe_video

    cv2.setNumThreads(1)
    video = probe_video(path, limits=limits)
    detector = CascadeDetector(max_side_px=640)
    best: tuple[int, Any, list[Any], float] | None = None
    frames = iter(analysis_frames(path, video, longest_side=_SIDE_PX, limits=limits))
    for frame in frames:
        if frame.index in _LOOKS:
            found = detector.detect(frame.image)
            if best is None or len(found) > best[0]:
                best = (len(found), frame.image.copy(), found, frame.scale)
        if frame.index >= _LOOKS[-1]:
            break
    del frames  # ends its ffmpeg
    if best is None:
        raise UnreadableMediaError(f"{path.name}: no frame can be decoded", path=path.name, case="no_frame")
    _, image, found, scale = best
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise HeygemdError(f"{path.name}: no preview could be made", path=path.name)
    write_atomic(folder / POSTER, data.tobytes(), durable=False)
    largest = max((d.size for d in found), default=0.0)
    real = sorted((d for d in found if d.size >= _SAME_FACE_SHARE * largest), key=lambda d: -d.size)
    limit = (video.width, video.height) * 2
    return {
        "seconds": None if video.still else round(video.duration_seconds, 2),
        "width": video.width,
        "height": video.height,
        "fps": round(float(video.fps), 3),
        "still": video.still,
        "has_audio": video.has_audio,
        "faces": [
            [min(max(0, round(float(v) * scale)), most) for v, most in zip(d.box, limit, strict=True)] for d in real
        ],
        "poster": True,
    }


def main(arguments: list[str]) -> int:
    kind, path, folder, limits = arguments
    try:
        found = {"ok": True, **look(kind, Path(path), Path(folder), LimitSettings.model_validate_json(limits))}
    except HeygemdError as error:
        found = {"ok": False, "error": error.to_dict()}
    write_json(Path(folder) / LOOK, json.loads(json.dumps(found)), durable=False)
    return 0


if __name__ == "__main__":
    # Here and not in `main`: the limits last as long as the process, and a test is one that goes on.
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main(sys.argv[1:]))
