"""From the names in a manifest to files of the listing, and from both to a Drop. No file is touched here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heygemd.core.errors import HeygemdError, LimitError, ManifestError, UnsafePathError
from heygemd.core.job import InputFile, Item
from heygemd.core.manifest import Manifest, merge_options
from heygemd.core.settings import LimitSettings
from heygemd.spool.consent import consent_stem
from heygemd.spool.documents import manifest_stem
from heygemd.spool.drops import Drop
from heygemd.spool.listing import IS_LINK, Listing, Seen
from heygemd.spool.names import fold, nfc, safe_name, shown, unique_name
from heygemd.spool.pairing import Pair, kind_of, stem_of


@dataclass(frozen=True)
class Found:
    """What became of a manifest's names."""

    files: Mapping[str, Seen]  # name as written → file
    missing: Mapping[str, str]  # name → why it is not there; "" when nothing of that name is
    error: HeygemdError | None  # a name that can never be served


class Finder:
    """Finds files by path, where need be without regard to composition (NFC and NFD are one name to people)."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._by_fold: dict[str, list[Seen]] | None = None

    def find(self, folder: str, names: Sequence[str]) -> Found:
        files: dict[str, Seen] = {}
        missing: dict[str, str] = {}
        error: HeygemdError | None = None
        for name in names:
            path = f"{folder}/{name}" if folder else name
            try:
                seen = self._one(path)
            except HeygemdError as found:
                error = error or found
                continue
            if seen is None:
                missing[name] = self._listing.ignored.get(path) or self._near(path)
            else:
                files[name] = seen
        return Found(files, missing, error)

    def _one(self, path: str) -> Seen | None:
        """Raises UnsafePathError for links, ManifestError where a name could mean several files."""
        seen = self._listing.files.get(path)
        if seen is None:
            same = [other for other in self._alike(path) if nfc(other.path) == nfc(path)]
            if len(same) > 1:
                raise ManifestError(f"{shown(path)} could be any of {len(same)} files that look the same", path=path)
            seen = same[0] if same else None
        if seen is not None:
            if manifest_stem(seen.name) is not None:
                raise ManifestError(f"{shown(path)} is a manifest, not a video or a recording", path=path)
            return seen
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            step = "/".join(parts[:end])
            if self._listing.ignored.get(step) == IS_LINK:
                raise UnsafePathError(f"{shown(path)}: {shown(step)} is a symbolic link", path=path)
        return None

    def _alike(self, path: str) -> list[Seen]:
        """Files whose paths differ in composition or case alone."""
        if self._by_fold is None:
            self._by_fold = defaultdict(list)
            for other in self._listing.files.values():
                self._by_fold[fold(other.path)].append(other)
        return self._by_fold.get(fold(path), [])

    def _near(self, path: str) -> str:
        """For who works on a system that sees no case: the file may be there under a name that looks like it."""
        alike = self._alike(path)
        return f"{shown(alike[0].name)} is there: upper and lower case count" if alike else ""


def check_files(files: Sequence[Seen], limits: LimitSettings) -> None:
    """Raise UnsafePathError for hard links, LimitError for what is too large."""
    for seen in files:
        if seen.links > 1:
            # It may be a file from outside the inbox that its owner never meant to hand over.
            raise UnsafePathError(
                f"{shown(seen.path)} has another name (hard link)", remedy="Copy the file instead.", path=seen.path
            )
        limit = limits.max_file_bytes
        if kind_of(seen.name) == "text":
            limit = min(limit, 4 * limits.max_text_characters + 3)  # the longest UTF-8 has 4 bytes a character
        if seen.size > limit:
            raise LimitError(
                f"{shown(seen.path)}: {seen.size:,} bytes, allowed are {limit:,}",
                path=seen.path,
                case="file_too_large",
                size_bytes=seen.size,
                limit_bytes=limit,
            )


def drop_of_pair(pair: Pair, consents: Sequence[Seen], layers: Sequence[Mapping[str, Any]], priority: int) -> Drop:
    """Raises ManifestError where the presets together make no valid options."""
    name = safe_name(pair.stem)
    role = "text" if kind_of(pair.audio.name) == "text" else "audio"
    return Drop(
        name=name,
        folder=pair.video.folder,
        items=(Item(name, pair.video.path, pair.audio.path),),
        inputs=(
            pair.video.as_input("video"),
            pair.audio.as_input(role),
            *(seen.as_input("consent") for seen in consents),
        ),
        options=merge_options(shown(pair.video.path), *map(dict, layers)),
        priority=priority,
    )


def drop_of_manifest(
    seen: Seen,
    manifest: Manifest,
    files: Mapping[str, Seen],
    consents: Sequence[Seen],
    layers: Sequence[Mapping[str, Any]],
    priority: int,
    limits: LimitSettings,
) -> Drop:
    """`consents`: those beside its videos, not the one it names. Raises ManifestError and LimitError."""
    videos, audios = manifest.all_videos, manifest.all_audios
    wanted = [files[name] for name in (*videos, *audios)]
    if manifest.consent is not None:
        if files[manifest.consent] in wanted:
            raise ManifestError(f"{shown(seen.path)}: consent names the video or the recording", path=seen.path)
        consents = (files[manifest.consent], *consents)
    for names, key in ((videos, "videos"), (audios, "audios")):
        if len({files[name].path for name in names}) < len(names):
            raise ManifestError(f"{shown(seen.path)}: {key} names a file twice", path=seen.path)
    if max(len(videos), len(audios)) > limits.max_batch_items:
        raise LimitError(
            f"{shown(seen.path)}: {max(len(videos), len(audios))} results, allowed are {limits.max_batch_items}",
            path=seen.path,
            case="batch_too_long",
            count=max(len(videos), len(audios)),
            limit=limits.max_batch_items,
        )
    if manifest.text is not None and len(manifest.text) > limits.max_text_characters:
        raise LimitError(
            f"{shown(seen.path)}: the text has {len(manifest.text):,} characters, "
            f"allowed are {limits.max_text_characters:,}",
            path=seen.path,
            case="text_too_long",
            characters=len(manifest.text),
            limit=limits.max_text_characters,
        )
    paths = {nfc(seen_file.path): seen_file.path for seen_file in (*wanted, *consents)}
    sums: dict[str, str] = {}
    for name, digest in manifest.sha256.items():
        path = paths.get(nfc(f"{seen.folder}/{name}" if seen.folder else name))
        if path is None:
            raise ManifestError(f"{shown(seen.path)}: sha256 names {shown(name)}, the job does not", path=seen.path)
        sums[path] = digest
    inputs: dict[str, InputFile] = {}
    for file in wanted:
        picture = any(files[name] is file for name in videos)
        role = "video" if picture else "text" if kind_of(file.name) == "text" else "audio"
        inputs[file.path] = file.as_input(role, sums.get(file.path))
    for file in consents:
        inputs[file.path] = file.as_input("consent", sums.get(file.path))
    stem = safe_name(manifest_stem(seen.name) or "")
    own = {**manifest.options, **({} if manifest.engine is None else {"engine": manifest.engine})}
    return Drop(
        name=stem,
        folder=seen.folder,
        items=_items(manifest, files, stem),
        inputs=(*inputs.values(), seen.as_input("manifest")),
        options=merge_options(shown(seen.path), *map(dict, layers), own),
        priority=manifest.priority if "priority" in manifest.model_fields_set else priority,
        batch=manifest.batch,
        manifest=seen.path,
    )


def refused_drop(stem: str, folder: str, files: Sequence[Seen], manifest: Seen | None) -> Drop:
    """What stands in a Refusal: the files, no items."""
    roles = {"video": "video", "image": "video", "audio": "audio", "text": "text", None: "video"}
    inputs = [
        seen.as_input("consent" if consent_stem(seen.name) else roles[kind_of(seen.name)])
        for seen in files
        if seen is not manifest
    ]
    if manifest is not None:
        inputs.append(manifest.as_input("manifest"))
    return Drop(safe_name(stem), folder, (), tuple(inputs), manifest=manifest.path if manifest else None)


def _items(manifest: Manifest, files: Mapping[str, Seen], stem: str) -> tuple[Item, ...]:
    videos = [files[name] for name in manifest.all_videos]
    audios = [files[name] for name in manifest.all_audios]
    if not manifest.batch:
        return (Item(stem, videos[0].path, audios[0].path if audios else None, manifest.text),)
    if manifest.videos is not None:
        rows = [(video, video, audios[0] if audios else None) for video in videos]
    else:
        rows = [(audio, videos[0], audio) for audio in audios]
    taken = {fold(stem)}  # <job>.json and <job>.zip stand beside the items
    items = []
    for named_by, video, audio in rows:
        name = unique_name(safe_name(stem_of(named_by.name) or named_by.name), taken)
        taken.add(fold(name))
        items.append(Item(name, video.path, audio.path if audio else None, manifest.text))
    return tuple(items)
