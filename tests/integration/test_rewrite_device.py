"""Where `rewrite` warps: the operator's choice goes through preparing and planning to the renderer and the receipt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heygemd.config import Settings
from heygemd.core.capacity import Device
from heygemd.core.job import Item
from heygemd.core.options import Options
from heygemd.core.plan import Segment
from heygemd.core.settings import EngineSettings, LimitSettings, MediaSettings, SchedulerSettings
from heygemd.engines.base import Analysis, load_engine
from heygemd.service.door import StagedItem
from heygemd.service.planning import plan_item
from heygemd.service.setup import task_settings
from heygemd.service.tasks import prepare_task
from heygemd.work.choose import device_kinds_of
from heygemd.work.item import ItemFolder
from heygemd.work.prepare import PrepareRequest, memory_points, prepare
from heygemd.work.render import SegmentRenderer
from tests import media

CPU = Device("cpu", "cpu", 16 << 30, 12 << 30, slots=1)
CARD = Device("cuda:0", "cuda", 8 << 30, 7 << 30, slots=2, uuid="GPU-1")


def quiet(_stage: str, _done: int, _total: int) -> None: ...


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ItemFolder:
    """An item that was prepared where there is a card, with `cpu_only = []`."""
    made = tmp_path_factory.mktemp("item")
    request = PrepareRequest(
        video=media.moving_portrait(made / "clip.mp4", seconds=1.0, size=256),
        audio=media.speech(made / "voice.wav", "One two three."),
        text_file=None,
        text=None,
        options=Options.model_validate({"quality": "lossless", "engine": "rewrite"}),
        limits=LimitSettings(),
        default_engine="auto",
        checkpoint_dir=made / "none",
        checkpoint=None,
        device_kinds=("cuda",),
        cpu_only=(),
        media=MediaSettings(encoder="software", decoder="software"),
    )
    item = ItemFolder(made / "item")
    prepare(request, item, quiet)
    return item


@pytest.mark.parametrize(
    ("engine", "offered", "said", "expected"),
    [
        ("rewrite", ("cuda",), ("rewrite",), ("cpu",)),
        ("rewrite", ("cpu", "cuda"), ("rewrite",), ("cpu",)),
        ("rewrite", ("cuda",), (), ("cuda",)),
        ("rewrite", ("cpu", "cuda"), (), ("cpu", "cuda")),
        ("rewrite", ("cpu",), (), ("cpu",)),
        ("wav2lip", ("cuda",), ("rewrite",), ("cuda",)),
    ],
)
def test_the_setting_speaks_of_the_engines_that_it_names(
    engine: str, offered: tuple[str, ...], said: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert device_kinds_of(load_engine(engine), offered, said) == expected


@pytest.mark.parametrize("said", [("rewrite",), ()])
def test_the_configuration_reaches_the_task(said: tuple[str, ...], tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, state=tmp_path / "state", engines=EngineSettings(cpu_only=said))
    staged = StagedItem(Item("talk", "clip.mp4", audio="voice.wav"), tmp_path / "clip.mp4", None, None, "Hello.")
    folder = ItemFolder(tmp_path / "item")
    task = prepare_task("t", folder, staged, Options(), CPU, ("cuda",), task_settings(settings))
    assert task.values["cpu_only"] == list(said)


def test_nobody_gets_a_card_without_asking() -> None:
    assert EngineSettings().cpu_only == ("rewrite",)


def test_the_plan_is_for_the_card(folder: ItemFolder) -> None:
    prepared = folder.load_prepared()
    plan = plan_item(prepared, folder, [CPU, CARD], SchedulerSettings())
    assert (plan.device_kind, plan.precision) == ("cuda", "float32")
    assert plan.batch == 8, "more would only take the host's RAM"
    assert 600 < plan.predicted_bytes / 2**20 < 800
    analysis = Analysis({}, prepared.summary)
    both = memory_points(load_engine("rewrite"), prepared.video, {"cpu": ("float32",), "cuda": ("float32",)}, analysis)
    plan = plan_item(replace(prepared, memory=both), folder, [CPU, CARD], SchedulerSettings())
    assert set(plan.needs) == {"cpu", "cuda"}


def test_a_split_render_on_a_card_equals_the_unsplit_one(folder: ItemFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch on the CPU stands for the card."""
    torch_canvas = pytest.importorskip("heygemd.engines.rewrite.torch_canvas")
    canvas = torch_canvas.TorchCanvas("cpu")
    monkeypatch.setattr(torch_canvas, "TorchCanvas", lambda device: {"cuda:0": canvas}[device])
    renderer = SegmentRenderer(folder, device="cuda:0", precision="float32", media=MediaSettings(), threads=1)
    parts = [Segment(0, 0, 20), Segment(1, 0, 7), Segment(2, 7, 20)]
    stats = [renderer.render(part, batch=batch, report=quiet) for part, batch in zip(parts, (8, 3, 8), strict=True)]
    assert {s.device for s in stats} == {"cuda"} and sum(s.passed_frames for s in stats) == 0
    whole, first, second = (media.framemd5(folder.segment(part.number)) for part in parts)
    assert whole == first + second and len(set(whole)) > 15
    on_cpu = SegmentRenderer(folder, device="cpu", precision="float32", media=MediaSettings(), threads=1)
    assert on_cpu.render(Segment(3, 0, 7), batch=8, report=quiet).device == "cpu"
