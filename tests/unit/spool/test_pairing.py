"""Pairing as a property: nothing twice, nothing lost, no order matters."""

from __future__ import annotations

import unicodedata
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from heygemd.spool.listing import Seen
from heygemd.spool.names import MAX_NAME_BYTES, fold, nfc, safe_name, shown, unique_name
from heygemd.spool.pairing import is_picture, kind_of, pair_files, stem_of

stems = st.sampled_from(
    ["a", "A", "b.c", "课程 1", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")]
)
suffixes = st.sampled_from([".mp4", ".MOV", ".jpg", ".wav", ".M4A", ".txt", ".pdf", ""])
names = st.builds(str.__add__, stems, suffixes)


def seen(name: str) -> Seen:
    return Seen(name, "", name, 1, 1, 1, 1)


files_and_claims = st.lists(names, unique=True, max_size=14).flatmap(
    lambda found: st.tuples(st.just(found), st.sets(st.sampled_from(found)) if found else st.just(set()))
)


@given(files_and_claims, st.randoms())
def test_every_new_file_is_in_exactly_one_place_and_order_does_not_matter(drawn, random) -> None:
    found, taken = drawn
    claimed = {(name, 1, 1) for name in taken}
    pairs, lone = pair_files([seen(name) for name in found], claimed)
    shuffled = found[:]
    random.shuffle(shuffled)
    assert pair_files([seen(name) for name in shuffled], claimed) == (pairs, lone)

    used = Counter(s.name for pair in pairs for s in (pair.video, pair.audio))
    used.update(s.name for one in lone for s in one.files)
    assert all(count == 1 for count in used.values())
    assert {name for name in found if kind_of(name) and name not in taken} == set(used) - taken
    for pair in pairs:
        assert is_picture(pair.video.name) and not is_picture(pair.audio.name)
        assert nfc(stem_of(pair.video.name)) == nfc(stem_of(pair.audio.name)) == pair.stem
        assert {pair.video.claim, pair.audio.claim} - claimed, "a job of its own needs something new"
    for one in lone:
        assert not {s.claim for s in one.files} & claimed
        kinds = Counter(is_picture(s.name) for s in one.files)
        assert kinds != {True: 1, False: 1}, "that would have been a pair"


@given(st.lists(names, unique=True, max_size=14))
def test_a_lone_pair_of_a_stem_is_always_found(found: list[str]) -> None:
    pairs, _ = pair_files([seen(name) for name in found], ())
    groups: dict[str, list[str]] = {}
    for name in found:
        if kind_of(name):
            groups.setdefault(nfc(stem_of(name)), []).append(name)
    for stem, group in groups.items():
        if len(group) == 2 and is_picture(group[0]) != is_picture(group[1]):
            assert sum(pair.stem == stem for pair in pairs) == 1


@given(st.text(max_size=300))
def test_safe_names(stem: str) -> None:
    name = safe_name(stem)
    assert name and len(name.encode()) <= MAX_NAME_BYTES
    assert name[0] not in "-." and name[-1] not in ". "
    assert not any(c in "/\\\0" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert name not in (".", "..")


@given(st.lists(st.text(max_size=120), max_size=30))
def test_unique_names_never_collide_even_without_case(stems_: list[str]) -> None:
    taken: set[str] = set()
    for stem in stems_:
        name = unique_name(safe_name(stem), taken)
        assert fold(name) not in taken and len(name.encode()) <= MAX_NAME_BYTES
        taken.add(fold(name))


def test_ten_thousand_jobs_of_one_name() -> None:
    taken: set[str] = set()
    given_names = []
    for _ in range(10_000):
        given_names.append(unique_name("课程", taken))
        taken.add(fold(given_names[-1]))
    assert given_names[:3] == ["课程", "课程-2", "课程-3"] and given_names[-1] == "课程-10000"


@given(st.text(max_size=1000))
def test_shown_is_one_short_line(text: str) -> None:
    line = shown(text)
    assert len(line.splitlines()) <= 1 and len(line) <= 300
    assert all(c.isprintable() or c in "\u200c\u200d" for c in line)
    line.encode()
