import sys
import time
from pathlib import Path

import pytest

from heygemd.core import heartbeat
from heygemd.core.errors import DiskFullError, FfmpegError, UnreadableMediaError
from heygemd.media.ffmpeg import Child
from heygemd.media.inputs import image_demuxer, input_options, input_url


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_names_never_become_options_or_patterns(tmp_path: Path) -> None:
    path = tmp_path / "-i http:%03d.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n123")
    assert input_url(path).startswith("file:/")
    assert input_options(path)["f"] == "png_pipe"
    assert input_options(path)["protocol_whitelist"] == "file,pipe"


@pytest.mark.parametrize("demuxer", ["concat", "hls", "dash", "image2", "sdp", "lavfi", "data", "srt", "tty", "imf"])
def test_demuxers_that_open_other_things_are_not_on_the_list(demuxer: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x" * 64)
    assert demuxer not in input_options(path)["format_whitelist"].split(",")


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [(b"\xff\xd8\xff\xe0", "jpeg_pipe"), (b"RIFF1234WEBPVP8 ", "webp_pipe"), (b"RIFF1234AVI LIST", None), (b"", None)],
)
def test_images_are_told_by_their_first_bytes(tmp_path: Path, head: bytes, demuxer: str | None) -> None:
    (tmp_path / "a").write_bytes(head)
    assert image_demuxer(tmp_path / "a") == demuxer


def test_a_vanished_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMediaError, match=r"gone\.mp4.*No such file"):
        image_demuxer(tmp_path / "gone.mp4")


def test_a_child_that_stands_still_is_given_up() -> None:
    with (
        Child(python("import time; time.sleep(60)"), stall_seconds=0.2) as child,
        pytest.raises(UnreadableMediaError, match="no progress"),
    ):
        child.read_into(memoryview(bytearray(10)))


def test_a_child_that_reads_in_silence_is_alive(tmp_path: Path) -> None:
    """A clip that does not seek: hours may be decoded before the first wanted frame."""
    (tmp_path / "long").write_bytes(b"x" * 4096)
    code = f"""import time
with open({str(tmp_path / "long")!r}, "rb", buffering=0) as file:
    while file.read(64):
        time.sleep(0.1)
print("here", end="", flush=True)"""
    beats: list[float] = []
    heartbeat.listen(lambda: beats.append(time.monotonic()))
    try:
        got = bytearray(4)
        with Child(python(code), stall_seconds=3.0) as child:
            assert child.read_into(memoryview(got)) == 4, "it says nothing for more than twice as long"
    finally:
        heartbeat.listen(None)
    assert got == b"here"
    assert len(beats) >= 3


def test_what_must_be_told_in_time_is_not_waited_for_because_it_reads(tmp_path: Path) -> None:
    code = """import time
while True:
    open("/proc/self/stat", "rb").read()
    time.sleep(0.05)"""
    with Child(python(code)) as child, pytest.raises(UnreadableMediaError, match="within 2 s"):
        child.read_all(100, 2.0)


def test_leaving_kills_the_child() -> None:
    with Child(python("import time; time.sleep(60)")) as child:
        pid = child.pid
    assert not Path(f"/proc/{pid}").exists()


def test_endless_output_is_refused() -> None:
    with (
        Child(python("import sys\nwhile True: sys.stdout.write('x' * 4096)")) as child,
        pytest.raises(UnreadableMediaError, match="endlessly"),
    ):
        child.read_all(100_000, 120.0)


def test_stderr_is_kept_bounded_and_logged(tmp_path: Path) -> None:
    log = tmp_path / "ffmpeg.log"
    code = "import sys\nfor i in range(5000): print('[x @ 0x1] [error] broken', i, 'y' * 5000, file=sys.stderr)"
    with Child(python(code), log=log) as child:
        assert child.wait(120) == 0
    assert child.num_errors == 5000
    assert child.reason().startswith("broken 0 ")
    assert len(child.tail) == 60 and max(map(len, child.tail)) <= 2000
    assert log.stat().st_size < 2 << 20
    assert log.read_text().startswith("$ ")


def test_info_lines_go_to_the_listener_even_with_a_complaint_in_them() -> None:
    seen: list[str] = []
    code = "import sys; print('[s @ 0x1] [info] n: 0 [h @ 0x2] [error] bad', file=sys.stderr)"
    with Child(python(code), on_info=seen.append) as child:
        child.wait(120)
    assert len(seen) == 1 and child.num_errors == 1


def test_a_full_disk_is_told_from_other_failures(tmp_path: Path) -> None:
    code = "import sys; print('av_interleaved_write_frame(): No space left on device', file=sys.stderr); sys.exit(1)"
    with Child(python(code)) as child:
        child.wait(120)
    assert isinstance(child.failure("out.mp4: failed"), DiskFullError)
    with Child(python("import sys; sys.exit('boom')")) as child:
        child.wait(120)
    failure = child.failure("out.mp4: failed", FfmpegError, tmp_path)
    assert type(failure) is FfmpegError and str(failure) == "out.mp4: failed: boom"


def test_the_address_space_is_limited() -> None:
    code = "import sys, time; sys.stdin.read(1); x = bytearray(2 << 30); print('got it')"
    with Child(python(code), stdin=True, address_space_bytes=1 << 30) as child:
        child.write(memoryview(b"x"))
        assert child.wait(120) != 0
        assert "MemoryError" in child.reason()


def test_nothing_of_our_environment_crosses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFREPORT", "file=/dev/null")
    with Child(python("import os; print('FFREPORT' in os.environ)")) as child:
        assert child.read_all(100, 120.0) == b"False\n"
