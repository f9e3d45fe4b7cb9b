"""Stage 3 of an item: join the segments, mux the speech, verify, draw the contact sheet."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from heygemd.core.plan import Plan
from heygemd.core.settings import MediaSettings, ProvenanceSettings
from heygemd.failpoints import failpoint
from heygemd.files import publish_file, sha256_of, temp_name, write_json
from heygemd.media.mux import join, verify_output
from heygemd.media.sheet import contact_sheet
from heygemd.work.item import ItemFolder
from heygemd.work.label import Labels
from heygemd.work.prepare import Report


def finish(
    folder: ItemFolder,
    plan: Plan,
    media: MediaSettings,
    report: Report,
    provenance: ProvenanceSettings = ProvenanceSettings(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Make result/video.mp4, result/sheet.jpg and, last, result/result.json. Returns what result.json holds."""
    done = folder.load_result()
    if done is not None:
        return done
    prepared = folder.load_prepared()
    labels = Labels(prepared, provenance)
    started = time.monotonic()
    folder.result.mkdir(exist_ok=True)
    video, sheet = folder.result / "video.mp4", folder.result / "sheet.jpg"
    report("join", 0, 3)
    failpoint("finish.join")
    temp, drawn = temp_name(video).with_suffix(".mp4"), temp_name(sheet).with_suffix(".jpg")
    segments = [folder.segment(segment.number) for segment in plan.segments]
    segment_frames = [segment.num_frames for segment in plan.segments]
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="sheet") as beside:
            # Sound is encoded by one thread alone: the pictures are drawn beside it.
            drawing = beside.submit(
                contact_sheet,
                segments,
                drawn,
                video=prepared.video,
                segment_frames=segment_frames,
                work=folder.path,
                log=folder.log,
            )
            join(
                segments,
                Path(prepared.audio_path),
                temp,
                video=prepared.video,
                segment_frames=segment_frames,
                work=folder.path,
                audio_seconds=prepared.speech_seconds,
                lossless=prepared.options.lossless,
                audio_bitrate_kbps=media.audio_bitrate_kbps,
                tags=labels.tags,
                log=folder.log,
            )
            labels.stamp(temp)
            report("verify", 1, 3)
            failpoint("finish.verify")
            checked = verify_output(
                temp,
                num_frames=prepared.num_frames,
                fps=prepared.video.fps,
                width=prepared.video.width,
                height=prepared.video.height,
                audio_seconds=prepared.speech_seconds,
            )
            labelled = labels.check(temp)
            report("sheet", 2, 3)
            failpoint("finish.sheet")
            drawing.result()
        failpoint("finish.publish")
        publish_file(temp, video, replace=True)
        labels.stamp_sheet(drawn)
        publish_file(drawn, sheet, replace=True)
    finally:
        temp.unlink(missing_ok=True)
        drawn.unlink(missing_ok=True)
    result = {
        "video": str(video),
        "sheet": str(sheet),
        "size_bytes": video.stat().st_size,
        "sha256": sha256_of(video),
        "checked": checked,
        "provenance": labelled,
        "seconds": round(time.monotonic() - started, 3),
    }
    failpoint("finish.record")
    write_json(folder.result_file, result)
    report("done", 3, 3)
    return result
