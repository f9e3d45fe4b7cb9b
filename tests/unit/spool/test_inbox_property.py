"""Whatever lies in the inbox: every file is explained, nothing is promised twice, nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.spool.drops import claim_key
from heygemd.spool.inbox import Inbox
from heygemd.spool.layout import Layout

stems = st.sampled_from(["a", "b", "é", "e\u0301"])
media = st.builds(str.__add__, stems, st.sampled_from([".mp4", ".mov", ".wav", ".txt", ".pdf", ".part"]))
folders = st.sampled_from(["", "sub/"])
paths = st.builds(str.__add__, folders, media)
named = media | st.builds("sub/{}".format, media) | st.sampled_from(["../a.mp4", "a.job.json", "none.mp4"])
manifests = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional={
        "video": named,
        "audio": named,
        "text": st.just("hi"),
        "videos": st.lists(named, min_size=1, max_size=3),
        "audios": st.lists(named, min_size=1, max_size=3),
        "options": st.sampled_from([{}, {"quality": 20}, {"quality": "x"}]),
    },
)
manifest_files = st.dictionaries(
    st.builds("{}{}.job.json".format, folders, stems), manifests.map(json.dumps) | st.just("{"), max_size=4
)
presets = st.dictionaries(
    st.sampled_from([".heygemd.toml", "sub/.heygemd.toml"]), st.sampled_from(["priority = 3", "oops"]), max_size=2
)


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """One share for all examples: making one syncs the disk several times."""
    folder = tmp_path_factory.mktemp("share")
    layout = Layout(folder / "share", folder / "state")
    layout.ensure()
    return layout


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sets(paths, max_size=12), manifest_files, presets, st.randoms(), st.booleans())
def test_every_file_is_explained_once(share: Layout, files, manifests_, presets_, random, overdue: bool) -> None:
    layout = share
    shutil.rmtree(layout.inbox)
    (layout.inbox / "sub").mkdir(parents=True)
    for path in files:
        (layout.inbox / path).write_bytes(path.encode())
    for path, text in {**manifests_, **presets_}.items():
        (layout.inbox / path).write_text(text)
    now = [0.0]
    inbox = Inbox(layout, InboxSettings(), LimitSettings(), monotonic=lambda: now[0])
    inbox.scan(frozenset())
    now[0] = 1e6 if overdue else 100.0
    scan = inbox.scan(frozenset())

    everything = {*files, *manifests_}
    for path in everything:
        assert scan.about(path) is not None, path
    refused = Counter(file.path for refusal in scan.refused for file in refusal.drop.inputs)
    assert all(count == 1 for count in refused.values()), "a file goes to failed/ once"
    ready = Counter(file.path for drop in scan.ready for file in drop.inputs)
    assert not set(ready) & set(refused), "and not while another job needs it"
    shared = {path for path, count in ready.items() if count > 1}
    for drop in scan.ready:
        assert drop.items and {p for i in drop.items for p in (i.video, i.audio) if p} <= {f.path for f in drop.inputs}
        if drop.manifest is None:
            assert not {f.path for f in drop.inputs} & shared, "only manifests share"
    assert all(refusal.drop.inputs and not refusal.drop.items for refusal in scan.refused)
    if overdue:
        assert {w.reason.value for w in scan.waiting} <= {"preset", "in use"}, "in the end everything is decided"

    # Claim some of it: what is claimed is never offered again, the rest still is.
    drops = [*scan.ready, *(r.drop for r in scan.refused)]
    taken = [drop for drop in drops if random.random() < 0.5]
    claimed = frozenset(claim_key(f) for drop in taken for f in drop.inputs)
    again = inbox.scan(claimed)
    keys = {drop.key for drop in (*again.ready, *(r.drop for r in again.refused))}
    assert not keys & {drop.key for drop in taken}
    for path in everything:
        seen = (layout.inbox / path).lstat()
        if (path, seen.st_size, seen.st_mtime_ns) not in claimed:
            assert again.about(path) is not None, path
