from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from heygemd.cluster.agents import NodeAgent
from heygemd.cluster.cargo import Blob, Cargo, NodeStore, Sums, cargo_of
from heygemd.core.errors import NodeLostError
from heygemd.core.task import Task


@pytest.fixture
def item(tmp_path: Path) -> Path:
    """A prepared item as the daemon has it, in as many words as this room reads."""
    folder = tmp_path / "work" / "items" / "000"
    (folder / "segments").mkdir(parents=True)
    video = tmp_path / "inputs" / "my clip.mp4"
    video.parent.mkdir()
    video.write_bytes(b"picture" * 1000)
    (folder / "item.json").write_text(json.dumps({"video_path": str(video), "checkpoint": None, "engine": "rewrite"}))
    (folder / "motion.npz").write_bytes(b"motion")
    (folder / "frames.npz").write_bytes(b"")
    for name in ("plan.json", "ffmpeg.log", "speech.wav", ".heygemd-1.part"):
        (folder / name).write_text("stays")
    return folder


def cargo(item: Path) -> Cargo:
    found = cargo_of(Task("1", "render", str(item)), Sums())
    assert found is not None
    return found


def bring(store: NodeStore, what: Cargo) -> Path:
    for blob in store.missing(what.blobs):
        store.take(blob, Path(what.sources[blob.sha256]))
    return Path(store.unpack(what.key, what.prepared, what.blobs))


def test_an_item_is_laid_out_on_the_node_with_its_paths_there(tmp_path: Path, item: Path) -> None:
    store = NodeStore(tmp_path / "node", 10**9)
    there = bring(store, cargo(item))
    assert {path.name for path in there.iterdir()} == {"item.json", "motion.npz", "frames.npz", "segments"}
    prepared = json.loads((there / "item.json").read_text())
    video = Path(prepared["video_path"])
    assert video.read_bytes() == b"picture" * 1000 and video.is_relative_to(tmp_path / "node")
    assert video.name == "my clip.mp4", "messages and formats speak of its name"
    assert store.missing(cargo(item).blobs) == [] and bring(store, cargo(item)) == there


def test_another_state_of_the_item_never_meets_old_files(tmp_path: Path, item: Path) -> None:
    store = NodeStore(tmp_path / "node", 10**9)
    first = bring(store, cargo(item))
    (item / "motion.npz").write_bytes(b"other motion")
    second = bring(store, cargo(item))
    assert first != second and (first / "motion.npz").read_bytes() == b"motion"


def test_pieces_may_come_in_any_order_and_damage_is_noticed(tmp_path: Path, item: Path) -> None:
    store, what = NodeStore(tmp_path / "node", 10**9), cargo(item)
    blob = next(blob for blob in what.blobs if blob.role == "video_path")
    data = Path(what.sources[blob.sha256]).read_bytes()
    for offset in (4000, 0, 2000, 6000):
        store.write("one", offset, data[offset : offset + 2000])
    store.close("one", blob)
    assert blob not in store.missing(what.blobs)

    empty = next(blob for blob in what.blobs if blob.role == "frames.npz")
    store.close("nothing was sent", empty)
    motion = next(blob for blob in what.blobs if blob.role == "motion.npz")
    store.write("two", 0, b"motioN")
    with pytest.raises(NodeLostError, match="damaged"):
        store.close("two", motion)
    assert motion in store.missing(what.blobs)
    assert not list((tmp_path / "node" / "parts").iterdir())


def test_names_cannot_lead_elsewhere(tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "node", 10**9)
    for name in ("../x", "a/b", ".hidden", ""):
        with pytest.raises(ValueError, match="no file name"):
            store.part_named(name)
    with pytest.raises(ValueError, match="no file name"):
        store.missing([Blob("video_path", "../../x", "0" * 64, 1)])


def test_the_oldest_files_make_room_and_those_in_use_stay(tmp_path: Path, item: Path) -> None:
    store = NodeStore(tmp_path / "node", 5000)
    there = bring(store, cargo(item))  # 7,006 bytes
    (item / "motion.npz").write_bytes(b"more")
    bring(store, cargo(item))
    assert there.exists(), "used within the hour"
    for path in (*(tmp_path / "node" / "items").iterdir(), *(tmp_path / "node" / "blobs").iterdir()):
        os.utime(path, (1, 1))
    (item / "motion.npz").write_bytes(b"still more")
    last = bring(store, cargo(item))
    assert not there.exists() and last.exists()


def test_a_task_without_an_item_brings_nothing(tmp_path: Path) -> None:
    assert cargo_of(Task("1", "render", "echo"), Sums()) is None
    assert cargo_of(Task("1", "calibrate", str(tmp_path)), Sums()) is None


def test_a_sum_is_computed_again_when_the_file_changes(tmp_path: Path) -> None:
    file, sums = tmp_path / "x", Sums()
    file.write_text("a")
    one = sums.of(file)
    os.utime(file, (1, 1))
    file.write_text("b")
    assert sums.of(file) != one


def test_an_agent_sees_the_share_only_if_it_is_the_same_and_can_be_written(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    agent = NodeAgent("n1", str(tmp_path / "nodes"), 100, {})
    (share / "probe-abc").write_text("abc")
    assert agent.probe(str(share), "abc", "xyz")
    assert (share / "answer-xyz").read_text() == "xyz"
    assert not agent.probe(str(tmp_path / "elsewhere"), "abc", "xyz"), "not mounted there"
    (share / "probe-def").write_text("of somebody else")
    assert not agent.probe(str(share), "def", "uvw")
    assert not (share / "answer-uvw").exists()
    agent.end()
    assert not (tmp_path / "nodes" / "n1").exists()


def test_an_agent_removes_what_killed_ones_have_left(tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    living = NodeAgent("living", str(nodes), 100, {})
    (nodes / "dead" / "blobs").mkdir(parents=True)
    (nodes / "dead.lock").touch()
    NodeAgent("fresh", str(nodes), 100, {}).end()
    assert not (nodes / "dead").exists() and (nodes / "living").exists()
    living.end()
