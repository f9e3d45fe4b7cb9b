"""What strangers write, invented: manifests, names, and what ffprobe says of a file. One target each.

    python -m tests.fuzz --seconds 600            a long round; prints how many examples each target saw

The test suite runs each target for a moment (tests/unit/test_fuzz.py); HEYGEMD_TEST_FUZZ_EXAMPLES makes it longer.
A target may raise nothing but an error of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heygemd.core.errors import HeygemdError
from heygemd.core.manifest import parse_manifest, parse_preset
from heygemd.core.settings import InboxSettings, LimitSettings
from heygemd.media import audio, probe
from heygemd.spool.documents import decode
from heygemd.spool.inbox import Inbox
from heygemd.spool.layout import Layout

# ---- manifests ----

KEYS = (
    "version", "video", "videos", "audio", "audios", "text", "engine", "priority", "options", "sha256", "consent",
    "quality", "face", "extend", "tail", "silence", "sync_offset_seconds", "resolution_limit", "notify", "mark",
)  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.sampled_from(["v.mp4", "../x", "/etc/passwd", "a\nb", "auto", "rewrite", "0,0,10,10", "lossless", 1, "1"])
)  # fmt: skip
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner),
    max_leaves=20,
)
manifests = st.dictionaries(st.sampled_from(KEYS), trees, max_size=8)
documents = (
    st.binary(max_size=400)
    | manifests.map(lambda tree: json.dumps(tree).encode())
    | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
YAML_BITS = st.lists(
    st.sampled_from(["a: ", "- ", "{", "}", "[", "]", "&a ", "*a", "!!python/object:os.system ", "? ", "|\n", "<<: ",
                     "\n", "  ", "1", ".nan", "'", '"', "---\n", "%TAG", "\t", "version: 1\n", "video: v.mp4\n"]),
    max_size=40,
).map(lambda bits: "".join(bits).encode())  # fmt: skip


@contextlib.contextmanager
def only_ours() -> Iterator[None]:
    try:
        yield
    except HeygemdError as error:
        assert "\n" not in error.message, "one line"
        assert len(error.message) < 2000, "short"


def manifest_target(data: bytes, suffix: str) -> None:
    with only_ours():
        tree = decode(data, suffix, "m", 1_000_000)
        for parse in (parse_manifest, parse_preset):
            with only_ours():
                parse(tree, "m")


# ---- names in the inbox ----

NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)) | st.sampled_from("ae\u0301.-_ \n"),
    min_size=1,
    max_size=60,
)
ENDINGS = st.sampled_from(["", ".mp4", ".MOV", ".wav", ".txt", ".job.json", ".part", ".png", ".consent.pdf"])
names = st.lists(st.builds(str.__add__, NAMES, ENDINGS), max_size=8)


def pairing_target(layout: Layout, found: list[str]) -> None:
    for path in layout.inbox.iterdir():
        path.unlink()
    for name in found:
        with contextlib.suppress(OSError):  # longer than the filesystem takes, or `.`
            (layout.inbox / name).write_bytes(b"{}")
    now = [0.0]
    inbox = Inbox(layout, InboxSettings(), LimitSettings(), monotonic=lambda: now[0])
    inbox.scan(frozenset())
    now[0] = 1e6
    scan = inbox.scan(frozenset())
    for path in layout.inbox.iterdir():
        assert scan.about(path.name) is not None, f"{path.name!r} is not explained"
    for drop in (*scan.ready, *(refusal.drop for refusal in scan.refused)):
        assert not {unicodedata.category(c) for c in drop.name} & {"Cc", "Cs", "Zl", "Zp"}, drop.name
        assert 0 < len(drop.name.encode()) <= 255


# ---- ffprobe's words ----

WORDS = st.sampled_from(
    ["0", "1/0", "0/0", "25/1", "1/90000", "-1/2", "nan", "inf", "1e999", "N/A", "", "90", "9" * 400]
)
values = scalars | WORDS | st.integers(-(2**70), 2**70)
FIELDS = (
    "index", "width", "height", "pix_fmt", "time_base", "r_frame_rate", "avg_frame_rate", "duration", "nb_frames",
    "sample_rate", "channels", "codec_name", "field_order", "color_range",
)  # fmt: skip
streams = st.fixed_dictionaries(
    {"codec_type": st.sampled_from(["video", "audio", "data"])},
    optional=dict.fromkeys(FIELDS, values) | {
        "side_data_list": st.lists(st.dictionaries(st.sampled_from(["rotation", "x"]), values), max_size=2),
        "disposition": st.dictionaries(st.sampled_from(["attached_pic", "default"]), values),
    },
)  # fmt: skip
plausible = st.fixed_dictionaries(
    {"codec_type": st.just("video"), "index": st.just(0), "width": values | st.just(64), "height": values | st.just(64),
     "pix_fmt": st.just("yuv420p"), "time_base": WORDS, "r_frame_rate": WORDS, "avg_frame_rate": WORDS},
    optional={"duration": WORDS, "nb_frames": WORDS,
              "side_data_list": st.lists(st.dictionaries(st.just("rotation"), values), max_size=1)},
)  # fmt: skip
packets = st.lists(
    st.dictionaries(st.sampled_from(["pts", "dts", "flags"]), st.integers(-(2**63), 2**63 - 1) | values), max_size=6
)
answers = st.fixed_dictionaries(
    {"streams": st.lists(streams | plausible, min_size=1, max_size=3)},
    optional={"format": st.dictionaries(st.sampled_from(["duration", "format_name", "start_time"]), values),
              "packets": packets},
)  # fmt: skip


def probe_target(file: Path, answer: dict[str, Any]) -> None:
    first = probe._FirstFrame(64, 64, "yuv420p", probe.Fraction(1), probe.Fraction(1, 1000), False)
    with (
        mock.patch.object(probe, "_ffprobe", lambda *_arguments: dict(answer)),
        mock.patch.object(probe, "_first_frame", lambda *_arguments: first),
    ):
        with only_ours():
            probe.probe_video(file)
        with only_ours():
            audio.audio_track(file)


# ---- running them ----


def targets(folder: Path, examples: int) -> dict[str, Callable[[], None]]:
    """Name → a round of so many examples."""
    layout = Layout(folder / "share", folder / "state")
    layout.ensure()
    file = folder / "v.mp4"
    file.write_bytes(b"\0\0\0\x18ftypisom")
    some = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    return {
        "manifest": some(given(documents | YAML_BITS, st.sampled_from(["json", "yaml", "toml"]))(manifest_target)),
        "pairing": some(given(names)(lambda found: pairing_target(layout, found))),
        "probe": some(given(answers)(lambda answer: probe_target(file, answer))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = targets(Path(folder), 500)
        for name, run in rounds.items():
            until, count = time.monotonic() + arguments.seconds / len(rounds), 0
            while time.monotonic() < until:
                run()
                count += 500
            sys.stdout.write(f"{name}: {count} examples\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
