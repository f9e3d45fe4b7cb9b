"""Which files of one folder belong together by their names. Pure: the same answer for any order of the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from heygemd.spool.drops import Why
from heygemd.spool.ignore import KINDS
from heygemd.spool.listing import Seen
from heygemd.spool.names import nfc, shown


@dataclass(frozen=True)
class Pair:
    """A picture and a speech of one stem. One of them may be claimed by an older job, never both."""

    stem: str
    video: Seen
    audio: Seen


@dataclass(frozen=True)
class Lone:
    """Files of one stem that make no pair. `files` are unclaimed, in order of their names."""

    stem: str
    files: tuple[Seen, ...]
    why: Why
    detail: str


def stem_of(name: str) -> str:
    return name.rpartition(".")[0]


def kind_of(name: str) -> str | None:
    """video, image, audio, text, or None for what no pair is made of."""
    stem, dot, suffix = name.rpartition(".")
    return KINDS.get(dot + suffix.lower()) if stem else None


def is_picture(name: str) -> bool:
    return kind_of(name) in ("video", "image")


def pair_files(files: Iterable[Seen], claimed: Collection[tuple[str, int, int]]) -> tuple[list[Pair], list[Lone]]:
    """Pair the files of one folder by NFC stem. Files of no known kind are left out; `claimed`: keys of older jobs.

    A stem needs one picture (a video or an image) and one speech (a recording or a text). Where there are more,
    stems that are equal byte for byte are tried by themselves; what is left is ambiguous. A new file also pairs with
    a claimed one, when the job's own file of its kind is gone: somebody replaced one half.
    """
    groups: dict[str, list[Seen]] = defaultdict(list)
    for seen in files:
        if kind_of(seen.name) is not None:
            groups[nfc(stem_of(seen.name))].append(seen)
    pairs: list[Pair] = []
    lone: list[Lone] = []
    for stem, group in sorted(groups.items()):
        group.sort(key=lambda seen: seen.name)
        new = [seen for seen in group if seen.claim not in claimed]
        if not new:
            continue
        old = [seen for seen in group if seen.claim in claimed]
        if pair := _pair(stem, new) or _with_old(stem, new, old):
            pairs.append(pair)
            continue
        rest = []
        for exact in sorted({stem_of(seen.name) for seen in new}):
            same = [seen for seen in new if stem_of(seen.name) == exact]
            if len(same) < len(new) and (pair := _pair(stem, same)):
                pairs.append(pair)
            else:
                rest += same
        if rest:
            lone.append(_lone(stem, rest, old))
    return pairs, lone


def _pair(stem: str, files: list[Seen]) -> Pair | None:
    videos = [seen for seen in files if is_picture(seen.name)]
    if len(files) != 2 or len(videos) != 1:
        return None
    return Pair(stem, videos[0], next(seen for seen in files if seen is not videos[0]))


def _with_old(stem: str, new: list[Seen], old: list[Seen]) -> Pair | None:
    if len(new) != 1 or any(is_picture(seen.name) == is_picture(new[0].name) for seen in old):
        return None
    return _pair(stem, new + old)


def _lone(stem: str, files: list[Seen], old: list[Seen]) -> Lone:
    videos = [shown(seen.name) for seen in files if is_picture(seen.name)]
    speeches = [shown(seen.name) for seen in files if not is_picture(seen.name)]
    ordered = tuple(sorted(files, key=lambda seen: seen.name))
    if old:
        names = ", ".join(shown(seen.name) for seen in old)
        return Lone(stem, ordered, Why.IN_USE, f"an older job of this name still uses {names}")
    if len(videos) + len(speeches) > 1:
        return Lone(stem, ordered, Why.AMBIGUOUS, _ambiguous(videos, speeches))
    wanted = "a recording (.wav, .mp3, …) or a .txt" if videos else "a video (.mp4, .mov, …) or a picture"
    return Lone(stem, ordered, Why.PARTNER, f"waits for {wanted} with the same name, {shown(stem)}")


def _ambiguous(videos: list[str], speeches: list[str]) -> str:
    if videos and speeches:
        return f"several files could be the pair: {', '.join(videos)} with {', '.join(speeches)}; a manifest can tell"
    return f"{', '.join(videos or speeches)}: several of one kind and nothing to go with them"
