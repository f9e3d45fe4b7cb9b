"""What lies in the inbox, sorted: what of it is a job, what is refused, what everything else waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heygemd.core.errors import BadInputError, HeygemdError, MissingInputError
from heygemd.core.job import InputFile
from heygemd.core.manifest import Manifest, Preset
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool.consent import NOT_ALONE, Consents, consent_stem
from heygemd.spool.documents import manifest_stem
from heygemd.spool.drops import ClaimKey, Drop, Refusal, Waiting, Why
from heygemd.spool.listing import Listing, Seen
from heygemd.spool.names import nfc, shown
from heygemd.spool.pairing import Lone, Pair, kind_of, pair_files, stem_of
from heygemd.spool.resolve import Finder, Found, check_files, drop_of_manifest, drop_of_pair, refused_drop
from heygemd.spool.settle import Settle
from heygemd.spool.wording import Wording, Words
from heygemd.spool.writers import denied, knows_writers, obstacle

NO_PAIR = "not a kind of file that a pair is made of"


@dataclass(frozen=True)
class _Presets:
    layers: list[dict[str, Any]]  # options, the inner over the outer
    priority: int
    require_consent: bool


@dataclass
class Sorting:
    """One scan's reasoning. `run`, then `hold_back`; the result is `ready`, `refused`, `waiting` and `num_claimed`."""

    listing: Listing
    settle: Settle
    wording: Wording
    settings: InboxSettings
    limits: LimitSettings
    claimed: Collection[ClaimKey]
    ready: list[tuple[float, Drop]] = field(default_factory=list)  # with how long it is quiet
    refused: list[Refusal] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    num_claimed: int = 0

    def run(self) -> None:
        files = self.listing.files.values()
        manifests = [seen for seen in files if manifest_stem(seen.name) is not None]
        self.wording.forget_all_but({m.path for m in manifests}, {p.path for p in self.listing.presets.values()})
        self.num_claimed = sum(seen.claim in self.claimed for seen in files)
        finder = Finder(self.listing)
        self.named_by: dict[str, set[str]] = defaultdict(set)  # file → manifests that name it
        self.held: list[tuple[str, str]] = []  # folder, manifest in it that cannot be read yet
        self.locked: dict[tuple[str, str], str] = {}  # folder and stem → a manifest that is not ours to read
        known: list[tuple[Seen, Words, Found]] = []
        for seen in sorted(manifests, key=lambda seen: seen.path):
            try:
                words = self.wording.manifest(seen)
            except PermissionError:
                self._wait(seen.path, Why.DENIED, [seen], denied(seen.path))
                self.locked[seen.folder, nfc(manifest_stem(seen.name) or "")] = seen.name
                continue
            except OSError as error:
                self._wait(seen.path, Why.BUSY, [seen], f"cannot be read now: {error.strerror}")
                self.held.append((seen.folder, seen.name))
                continue
            found = finder.find(seen.folder, words.names)
            for file in found.files.values():
                self.named_by[file.path].add(seen.path)
            if seen.claim in self.claimed:
                continue
            if words.error is not None and not self.settle.settled(seen.path):
                self.held.append((seen.folder, seen.name))
            known.append((seen, words, found))
        self.by_folder: dict[str, list[Seen]] = defaultdict(list)
        self.consents = Consents(files)
        for seen in files:
            if manifest_stem(seen.name) is not None or seen.path in self.named_by:
                continue
            if consent_stem(seen.name) is not None:
                self.listing.ignored[seen.path] = NOT_ALONE
            elif kind_of(seen.name) is None:
                self.listing.ignored[seen.path] = NO_PAIR
            else:
                self.by_folder[seen.folder].append(seen)
        self.taken_along: set[str] = set()  # files that go to failed/ with a manifest that does not name them
        for seen, words, found in known:
            self._manifest(seen, words, found)
        for folder in sorted(self.by_folder):
            rest = [seen for seen in self.by_folder[folder] if seen.path not in self.taken_along]
            pairs, lone = pair_files(rest, self.claimed)
            for pair in pairs:
                self._pair(pair)
            for single in lone:
                self._lone(folder, single)
        self._left_over()

    def _left_over(self) -> None:
        """Files that only refused manifests name, more than one of them: free again once those are gone."""
        told = {path for waiting in self.waiting for path in waiting.files}
        told |= {file.path for _, drop in self.ready for file in drop.inputs}
        told |= {file.path for refusal in self.refused for file in refusal.drop.inputs}
        for path in sorted(self.named_by.keys() - told):
            seen = self.listing.files[path]
            if seen.claim not in self.claimed:
                names = ", ".join(shown(name) for name in sorted(self.named_by[path]))
                self._wait(path, Why.IN_USE, [seen], f"{names} name it")

    def hold_back(self, inbox: Path) -> None:
        """What somebody still has open is not complete, however long it was quiet; what is not ours to read must not
        become a job that waits for ever."""
        if not (self.ready or self.refused) or not knows_writers(inbox):
            return
        ready, refused = self.ready, self.refused
        self.ready = [(quiet, drop) for quiet, drop in ready if not self._held_back(inbox, drop.inputs)]
        self.refused = [refusal for refusal in refused if not self._held_back(inbox, refusal.drop.inputs, {Why.BUSY})]

    def _held_back(self, inbox: Path, inputs: Sequence[InputFile], reasons: Collection[Why] = tuple(Why)) -> bool:
        found = obstacle(inbox, inputs)
        if found is None or found[0] not in reasons:
            return False
        self._wait(inputs[0].path, found[0], [self.listing.files[one.path] for one in inputs], found[1])
        return True

    def _manifest(self, seen: Seen, words: Words, found: Found) -> None:
        """Sort one unclaimed manifest."""
        present = list({file.path: file for file in found.files.values()}.values())
        group = [seen, *present]
        stem = manifest_stem(seen.name) or ""
        if not self.settle.settled(seen.path):
            self._wait(seen.path, Why.SETTLING, [seen], self.settle.missing_for(seen.path))
            return
        error = words.error or found.error
        along: list[Seen] = []
        if words.error is not None:
            beside = [s for s in self.by_folder.get(seen.folder, ()) if s.path not in self.taken_along]
            along = [s for s in beside if nfc(stem_of(s.name)) == nfc(stem)]
            self.taken_along.update(s.path for s in along)
        if error is None and found.missing:
            names = ", ".join(shown(name) + (f" ({why})" if why else "") for name, why in sorted(found.missing.items()))
            if not self._overdue(group):
                self._wait(seen.path, Why.MISSING, group, f"waits for {names}")
                return
            error = MissingInputError(
                f"{shown(seen.path)}: {names} never came",
                path=seen.path,
                case="named",
                names=", ".join(map(shown, sorted(found.missing))),
            )
        if error is None and words.manifest is not None:
            error = self._manifest_drop(seen, words.manifest, found, present)
        if error is not None:
            own = [f for f in present if self.named_by[f.path] == {seen.path}] + along
            self._refuse(stem, seen.folder, own, seen, error)

    def _manifest_drop(self, seen: Seen, manifest: Manifest, found: Found, present: list[Seen]) -> HeygemdError | None:
        """Make the drop or wait; the error when it can never be made."""
        try:
            videos = [found.files[name] for name in manifest.all_videos]
            along = [file for file in self.consents.of(videos) if file not in present]
            check_files([*present, *along], self.limits)
            if self._hold(seen.folder, [seen, *present, *along], seen.path):
                return None
            preset = self._presets(seen.folder)
            if preset.require_consent:
                self.consents.require(videos, [] if manifest.consent is None else [found.files[manifest.consent]])
            drop = drop_of_manifest(seen, manifest, found.files, along, preset.layers, preset.priority, self.limits)
        except HeygemdError as error:
            return error
        self._ready(drop, [seen, *present, *along])
        return None

    def _pair(self, pair: Pair) -> None:
        consents = self.consents.of([pair.video])
        group = [pair.video, pair.audio, *consents]
        folder = pair.video.folder
        if self._hold(folder, group, pair.video.path):
            return
        for name in (
            name for where, name in self.held if folder == where or folder.startswith(where + "/") or not where
        ):
            self._wait(pair.video.path, Why.MANIFEST, group, f"{shown(name)} is still being written")
            return
        if (manifest := self.locked.get((folder, pair.stem))) is not None:
            self._wait(pair.video.path, Why.DENIED, group, denied(manifest))
            return
        preset = self._presets(folder)
        try:
            check_files(group, self.limits)
            if preset.require_consent:
                self.consents.require([pair.video])
            drop = drop_of_pair(pair, consents, preset.layers, preset.priority)
        except HeygemdError as error:
            self._refuse(pair.stem, folder, group, None, error)
            return
        self._ready(drop, group)

    def _lone(self, folder: str, lone: Lone) -> None:
        first = lone.files[0]
        if not all(self.settle.settled(seen.path) for seen in lone.files):
            moving = next(seen for seen in lone.files if not self.settle.settled(seen.path))
            self._wait(first.path, Why.SETTLING, [moving], self.settle.missing_for(moving.path))
        elif lone.why is Why.IN_USE or not self._overdue(lone.files):
            self._wait(first.path, lone.why, lone.files, lone.detail)
        else:
            names = ", ".join(shown(seen.name) for seen in lone.files)
            hours = self.settings.partner_timeout_seconds / 3600
            if lone.why is Why.PARTNER:
                error: HeygemdError = MissingInputError(
                    f"{names}: the other half never came in {hours:g} h",
                    case="other_half",
                    names=names,
                    waited_seconds=self.settings.partner_timeout_seconds,
                )
            else:
                error = BadInputError(lone.detail, remedy="Leave one of each kind, or write a manifest.")
            self._refuse(lone.stem, folder, lone.files, None, error)

    def _hold(self, folder: str, group: Sequence[Seen], path: str) -> bool:
        """Note why a complete group has to wait a little, if it has to."""
        for seen in group:
            if not self.settle.settled(seen.path):
                self._wait(path, Why.SETTLING, [seen], f"{shown(seen.name)}: {self.settle.missing_for(seen.path)}")
                return True
        for place in _up(folder):
            preset = self.listing.presets.get(place)
            if preset is None:
                continue
            try:
                words = self.wording.preset(preset)
            except PermissionError:
                self._wait(path, Why.DENIED, group, denied(preset.path))
                return True
            except OSError as error:
                self._wait(path, Why.BUSY, group, f"{shown(preset.path)} cannot be read now: {error.strerror}")
                return True
            if not self.settle.settled(preset.path):
                detail = f"{shown(preset.path)}: {self.settle.missing_for(preset.path)}"
                self._wait(path, Why.SETTLING, group, detail)
                return True
            if isinstance(words, HeygemdError):
                self._wait(path, Why.PRESET, group, words.message)
                return True
        return False

    def _presets(self, folder: str) -> _Presets:
        """What the presets from the top down to `folder` give. A consent once demanded is demanded below too."""
        layers: list[dict[str, Any]] = []
        priority, require_consent = 0, False
        for place in _up(folder):
            seen = self.listing.presets.get(place)
            preset = None if seen is None else self.wording.preset(seen)
            if isinstance(preset, Preset):
                layers.append({**preset.options, **({} if preset.engine is None else {"engine": preset.engine})})
                priority = priority if preset.priority is None else preset.priority
                require_consent = require_consent or bool(preset.require_consent)
        return _Presets(layers, priority, require_consent)

    def _ready(self, drop: Drop, group: Sequence[Seen]) -> None:
        self.ready.append((self._quiet(group), drop))

    def _refuse(
        self, stem: str, folder: str, files: Sequence[Seen], manifest: Seen | None, error: HeygemdError
    ) -> None:
        """Refuse once everything that goes to failed/ is quiet. What another job uses stays."""
        mine = [seen for seen in files if seen.claim not in self.claimed]
        for seen in mine:
            if not self.settle.settled(seen.path):
                self._wait(
                    manifest.path if manifest else seen.path, Why.SETTLING, [seen], self.settle.missing_for(seen.path)
                )
                return
        self.refused.append(Refusal(refused_drop(stem, folder, mine, manifest), error))

    def _wait(self, path: str, why: Why, group: Sequence[Seen], detail: str) -> None:
        files = tuple(dict.fromkeys((path, *(seen.path for seen in group))))
        self.waiting.append(Waiting(path, why, self._quiet(group), detail, files))

    def _quiet(self, group: Sequence[Seen]) -> float:
        return min(self.settle.quiet_seconds(seen.path) for seen in group)

    def _overdue(self, group: Sequence[Seen]) -> bool:
        """Whether a group waited long enough. Never while a part of the inbox could not be seen."""
        limit = self.settings.partner_timeout_seconds
        if not limit or self.listing.unreadable or self.listing.truncated:
            return False
        return self._quiet(group) >= limit


def _up(folder: str) -> list[str]:
    """The top, and every folder down to `folder`."""
    parts = folder.split("/") if folder else []
    return ["", *("/".join(parts[:end]) for end in range(1, len(parts) + 1))]
