"""`why PATH`: what becomes of a file, and what it waits for."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from heygemd.cli.common import JsonOption, did_you_mean, globals_of, print_json, safe, say, seconds_in_words
from heygemd.core.errors import HeygemdError, ShareAwayError, UsageError

if TYPE_CHECKING:
    from heygemd.config import Settings
    from heygemd.core.job import Job
    from heygemd.spool.drops import Scan
    from heygemd.spool.layout import Layout


@dataclass(frozen=True)
class Answer:
    """`verdict`: one word for programs. `job`: the job that has the file, where there is one."""

    path: str
    verdict: str  # ignored settling waiting refused ready queued working done failed cancelled result unreadable
    reason: str
    next: str
    job: str | None = None


_OVER = ("done", "failed", "cancelled")


def register(app: typer.Typer) -> None:
    app.command()(why)


def why(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file in the inbox, or one that was there.")],
    as_json: JsonOption = False,
) -> None:
    """Say why a file is (not) being processed."""
    options = globals_of(context)
    answer = explain_path(options.settings, options.layout, path)
    if as_json:
        print_json(asdict(answer))
        return
    say(Text.assemble((safe(answer.path), "bold"), f": {answer.verdict}"))
    say(f"  why:  {safe(answer.reason)}")
    say(f"  next: {safe(answer.next)}")


def explain_path(settings: Settings, layout: Layout, path: Path) -> Answer:
    """The answer for one path. Raises UsageError where nothing is known of it."""
    if not layout.inbox.is_dir():
        raise ShareAwayError(
            f"{layout.inbox}: there is no such folder", remedy="Is the share mounted? --root DIR names another."
        )
    relative = _relative(layout, path)
    if relative is None:
        return _elsewhere(layout, path)
    place = layout.inbox / relative
    if not os.path.lexists(place):
        return _gone(layout, relative)
    job = _claimed_by(layout, relative, place)
    if job is None:
        return _from_scan(settings, layout, relative)
    answer = _of_job(layout, relative, job)
    if job.state in _OVER:
        stays = "it is still here: another job needs it, or the daemon may not write to its folder"
        answer = replace(answer, next=stays)
    return answer


def _relative(layout: Layout, path: Path) -> str | None:
    """The path within the inbox. A bare name that is nowhere else is looked for there too."""
    for candidate in (_absolute(path), layout.inbox / path):
        if candidate.is_relative_to(layout.inbox) and (os.path.lexists(candidate) or not path.exists()):
            return candidate.relative_to(layout.inbox).as_posix()
    return None


def _absolute(path: Path) -> Path:
    # A link in the inbox is what the user asks about, not its target.
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow it


def _elsewhere(layout: Layout, path: Path) -> Answer:
    whole = _absolute(path)
    for folder, verdict, words, then in (
        (layout.outbox, "result", "it is a result of", "take it"),
        (
            layout.failed,
            "failed",
            "it is an input of the failed job",
            "read error.json there, then `heygemd retry {job}`",
        ),
        (layout.archive, "done", "it is an archived input of", "retention removes it in time"),
    ):
        if whole.is_relative_to(folder) and whole != folder:
            parts = whole.relative_to(folder).parts
            job = parts[1] if folder == layout.archive and len(parts) > 1 else parts[0]
            return Answer(str(path), verdict, f"{words} {job}", then.format(job=job), job)
    raise UsageError(
        f"{path} is not in the inbox {layout.inbox}", remedy="Copy it there, or use `heygemd submit`.", path=str(path)
    )


def _gone(layout: Layout, relative: str) -> Answer:
    """Not in the inbox: the newest job that took a file of that name knows."""
    from heygemd.spool.names import nfc

    for job in reversed(_jobs(layout)):
        if nfc(job.name) == nfc(relative) or any(nfc(file.path) == nfc(relative) for file in job.inputs):
            return _of_job(layout, relative, job)
    names = [p.relative_to(layout.inbox).as_posix() for p in layout.inbox.rglob("*") if not p.name.startswith(".")]
    hint = did_you_mean(relative, names) if names else ""
    raise UsageError(
        f"there is no {relative} in the inbox, and no job is known that had it"
        + (hint if "did you mean" in hint else ""),
        remedy="`heygemd status` lists the jobs.",
        path=relative,
    )


def _jobs(layout: Layout) -> tuple[Job, ...]:
    """All jobs of the journal, as far as we may read it."""
    from heygemd.spool.journal import Journal

    with contextlib.suppress(HeygemdError, OSError), Journal(layout.journal, readonly=True) as journal:
        return journal.jobs()
    return ()


def _claimed_by(layout: Layout, relative: str, place: Path) -> Job | None:
    found = place.lstat()
    claim = (relative, found.st_size, found.st_mtime_ns)
    for job in reversed(_jobs(layout)):
        if any((file.path, file.size, file.mtime_ns) == claim for file in job.inputs):
            # Dropped again just as it was, after its job had ended: a new drop.
            return job if job.state not in _OVER or claim in _claims(layout) else None
    return None


def _claims(layout: Layout) -> frozenset[Any]:
    from heygemd.spool.journal import Journal

    with contextlib.suppress(HeygemdError, OSError), Journal(layout.journal, readonly=True) as journal:
        return journal.claimed_identities()
    return frozenset()


def _of_job(layout: Layout, relative: str, job: Job) -> Answer:
    from heygemd.spool.viewing import read_view

    view: dict[str, Any] = read_view(layout.status / f"{job.name}.json") or {}
    state = str(view.get("state") or job.state)
    verdict = state if state in ("queued", *_OVER) else "working"
    reason = str(view.get("reason") or (job.error or {}).get("message") or state)
    if verdict == "queued" and view.get("position"):
        behind = int(view["position"]) - 1
        reason = f"queued behind {behind} other{'s' if behind != 1 else ''}" if behind else "the next in the queue"
        if "paused" in str(view.get("reason")):
            reason += f"; {view['reason']}"
    if verdict == "working" and view.get("percent") is not None:
        left = seconds_in_words(view.get("eta_seconds"))
        reason += f" ({view['percent']} %{', ' + left + ' left' if left else ''})"
    if view.get("where"):
        reason += f"; see {view['where']}"
    return Answer(relative, verdict, f"job {job.name}: {reason}", str(view.get("next_action") or "nothing"), job.name)


def _from_scan(settings: Settings, layout: Layout, relative: str) -> Answer:
    """Let the inbox's own reasoning speak, on one look; quiet time is judged by the file's own times."""
    from heygemd.spool.inbox import Inbox
    from heygemd.spool.layout import Layout

    claimed = _claims(layout)
    now = settings.inbox.model_copy(update={"settle_scans": 1, "settle_seconds": 0.0})
    # An ordinary user may not read the state folder; the scan needs nothing of it.
    scan = Inbox(Layout(layout.root, layout.state / "none"), now, settings.limits).scan(claimed)
    if (layout.inbox / relative).is_dir() and not (layout.inbox / relative).is_symlink():
        told = _left_alone(scan, relative)
        if told is None:
            what = "the inbox itself" if relative == "." else f"{relative} is a folder"
            raise UsageError(what, remedy="Name a file in it.")
        return told
    answer = _in_scan(layout, scan, relative)
    if answer.verdict in ("ready", "refused"):
        found = (layout.inbox / relative).lstat()
        quiet = time.time() - max(found.st_mtime, found.st_ctime)
        if quiet < settings.inbox.settle_seconds:
            reason = f"written {max(quiet, 0):.0f} s ago; it must be quiet for {settings.inbox.settle_seconds:g} s"
            return Answer(relative, "settling", reason, "wait; it is looked at again by itself")
    return answer


def _left_alone(scan: Scan, relative: str) -> Answer | None:
    """What the scan does not look at: by its name or kind, or because it may not."""
    from heygemd.spool.ignore import Ignore
    from heygemd.spool.listing import IS_LINK
    from heygemd.spool.names import nfc
    from heygemd.spool.sorting import NO_PAIR

    then = {
        NO_PAIR: "rename it, or name it in a manifest",
        IS_LINK: "copy what it points to",
        "not a plain file": "copy a file",
    }
    for ignored in scan.ignored:
        if nfc(ignored.path) == nfc(relative):
            return Answer(relative, "ignored", ignored.reason, then.get(ignored.reason, "rename it"))
    for part in Path(relative).parts:
        if reason := Ignore().why_ignored(part):
            return Answer(relative, "ignored", f"{part}: {reason}", "rename it")
    for folder in scan.unreadable:
        if relative == folder.path or relative.startswith(folder.path + "/"):
            return Answer(relative, "unreadable", folder.reason, "give the daemon read access; it tries again")
    return None


def _in_scan(layout: Layout, scan: Scan, relative: str) -> Answer:
    from heygemd.spool.viewing import daemon_state

    told = _left_alone(scan, relative)
    if told is not None:
        return told
    for refusal in scan.refused:
        if any(file.path == relative for file in refusal.drop.inputs):
            return Answer(relative, "refused", refusal.error.message, refusal.error.remedy, refusal.drop.name)
    for drop in scan.ready:
        if any(file.path == relative for file in drop.inputs):
            running = daemon_state(layout)["running"]
            then = "the daemon takes it at its next look"
            if running is False:
                then = "no daemon runs: start it (`systemctl start heygemd`, or `heygemd serve`)"
            elif scan.paused:
                then = f"the queue is paused: remove {layout.pause_file}"
            return Answer(relative, "ready", "everything is there", then, drop.name)
    for waiting in scan.waiting:
        if waiting.path == relative or relative in _named_in(layout, waiting.path):
            return Answer(relative, "waiting", waiting.detail, _NEXT.get(waiting.reason, "it is looked at again"))
    stem = Path(relative).with_suffix("")
    for waiting in scan.waiting:  # the other half speaks for both
        if Path(waiting.path).with_suffix("") == stem:
            return Answer(relative, "waiting", waiting.detail, _NEXT.get(waiting.reason, "it is looked at again"))
    return Answer(relative, "waiting", "the scan did not say anything about it", "ask again in a moment")


_NEXT = {
    "partner": "drop the other half: same folder, same name before the suffix",
    "ambiguous": "leave one of each kind, or write a manifest",
    "missing": "drop the missing file beside the manifest",
    "manifest": "wait until the manifest is written",
    "preset": "correct the folder's .heygemd.toml",
    "folder limit": "wait until jobs of this folder are done",
    "busy": "wait; the filesystem says: not now",
    "denied": "let the daemon read it (chmod g+r), or copy it in place of moving it",
}


def _named_in(layout: Layout, manifest: str) -> set[str]:
    """Files that a waiting manifest names, relative to the inbox."""
    from heygemd.core.manifest import parse_manifest
    from heygemd.spool.documents import load_document, manifest_stem

    if manifest_stem(Path(manifest).name) is None:
        return set()
    try:
        found = parse_manifest(load_document(layout.inbox / manifest, 1_000_000), manifest)
    except (HeygemdError, OSError):
        return set()
    return {(Path(manifest).parent / name).as_posix() for name in (*found.all_videos, *found.all_audios)}
