"""Which way files go, and that a share that is missing on one node costs that node its share and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heygemd.cluster.agents import NodeAgent
from heygemd.cluster.cargo import Blob, Cargo
from heygemd.cluster.nodes import Node
from heygemd.cluster.transfer import EXCHANGE, Transfer
from heygemd.core.errors import NodeLostError


class Remote:
    """An agent as Ray would offer it: every method has `.remote`, and its answer is awaited."""

    def __init__(self, agent: NodeAgent) -> None:
        self._agent = agent
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._agent, name)

        class Method:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                self.calls.append(name)
                try:
                    result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                    result.set_result(method(*arguments))
                except (OSError, NodeLostError) as error:
                    result.set_exception(error)
                return result

        return Method


def node(tmp_path: Path, name: str, *, sees_share: bool) -> Node:
    agent = Remote(NodeAgent(name, str(tmp_path / "nodes"), 100, {}))
    return Node(name, name, {}, agent, sees_share=sees_share)


def cargo(tmp_path: Path, data: bytes) -> Cargo:
    source = tmp_path / "clip.mp4"
    source.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return Cargo(
        {"video_path": str(source)}, (Blob("video_path", "clip.mp4", digest, len(data)),), {digest: str(source)}
    )


@pytest.fixture
def share(tmp_path: Path) -> Path:
    (tmp_path / "share" / EXCHANGE).mkdir(parents=True)
    return tmp_path / "share"


def test_each_node_gets_files_by_its_own_way_and_a_share_that_fails_gives_way_to_ray(
    tmp_path: Path, share: Path
) -> None:
    what, told = cargo(tmp_path, bytes(range(256)) * 40), []
    near, far = node(tmp_path, "near", sees_share=True), node(tmp_path, "far", sees_share=False)
    wrong = node(tmp_path, "wrong", sees_share=True)

    async def run() -> list[str]:
        transfer = Transfer(1000, share, "")
        elsewhere = Transfer(1000, share, str(tmp_path / "not mounted"))
        say = lambda _name, fields: told.append(fields["reason"])  # noqa: E731 - a word of an event
        return [
            await transfer.bring(what, near, say),
            await transfer.bring(what, far, say),
            await elsewhere.bring(what, wrong, say),
            await transfer.bring(what, near, say),
        ]

    assert asyncio.run(run()) == ["share", "ray", "ray", ""]
    assert near.agent.calls.count("write") == 0 and far.agent.calls.count("write") == 11
    assert not wrong.sees_share and near.sees_share
    assert len(told) == 1 and "wrong" in told[0] and "over Ray" in told[0]


@pytest.mark.parametrize("sees_share", [True, False])
def test_a_segment_comes_back_whole_or_not_at_all(tmp_path: Path, share: Path, sees_share: bool) -> None:
    place, data = node(tmp_path, "n", sees_share=sees_share), b"segment" * 900
    made = Path(place.agent._agent.parts()) / "segment-1.mp4"
    target = tmp_path / "item" / "segments" / "0000.mp4"
    file = {"name": made.name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    async def fetch() -> str:
        return await Transfer(1000, share, "").fetch(file, place, target, lambda *_: None)

    made.write_bytes(data[:-1] + b"X")
    with pytest.raises(NodeLostError, match="damaged"):
        asyncio.run(fetch())
    assert not target.exists() and not list(target.parent.iterdir())

    place.sees_share = sees_share
    made.write_bytes(data)
    assert asyncio.run(fetch()) == ("share" if sees_share else "ray")
    assert target.read_bytes() == data
    assert not made.exists() and not list((share / EXCHANGE).glob("segment-*"))


def test_a_file_that_changes_while_it_is_sent_is_refused_on_both_ways(tmp_path: Path, share: Path) -> None:
    for sees_share in (True, False):
        what = cargo(tmp_path, b"before")
        (tmp_path / "clip.mp4").write_bytes(b"after!")
        place = node(tmp_path, f"n{sees_share}", sees_share=sees_share)
        with pytest.raises(NodeLostError):
            asyncio.run(Transfer(1000, share, "").bring(what, place, lambda *_: None))
