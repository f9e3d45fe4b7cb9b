import pytest

from heygemd.core.clip import ColourTags
from heygemd.media.pixels import at_depth, working_colour, working_format


@pytest.mark.parametrize(
    ("source", "size", "photo", "expected"),
    [
        ("yuv420p", (640, 480), False, "yuv420p"),
        ("yuvj420p", (640, 480), False, "yuv420p"),
        ("nv12", (640, 480), False, "yuv420p"),
        ("p010le", (640, 480), False, "yuv420p10le"),
        ("yuv422p10le", (640, 480), False, "yuv422p10le"),
        ("yuv420p9le", (640, 480), False, "yuv420p10le"),
        ("yuva444p12le", (640, 480), False, "yuv444p12le"),
        ("yuv411p", (640, 480), False, "yuv444p"),
        ("gray", (640, 480), False, "yuv420p"),
        ("gray10le", (640, 480), False, "yuv420p10le"),
        ("rgb24", (640, 480), True, "yuv420p"),
        ("rgba64be", (640, 480), True, "yuv420p"),
        ("gbrp", (640, 480), False, "yuv444p"),
        ("gbrp10le", (640, 480), False, "yuv444p10le"),
        ("yuv420p", (641, 480), False, "yuv444p"),
        ("yuv420p", (640, 481), False, "yuv444p"),
        ("yuv422p", (640, 481), False, "yuv422p"),
        ("yuv422p", (641, 480), False, "yuv444p"),
        ("pal8", (641, 480), True, "yuv444p"),
    ],
)
def test_working_formats(source: str, size: tuple[int, int], photo: bool, expected: str) -> None:
    pix_fmt, depth = working_format(source, *size, photo=photo)
    assert pix_fmt == expected
    assert depth == (int(expected[7:9]) if expected.endswith("le") else 8)


def test_sixteen_bit_goes_to_what_the_encoder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heygemd.media.pixels.hevc_formats", lambda: frozenset({"yuv420p10le"}))
    assert working_format("yuv444p16le", 640, 480, photo=False) == ("yuv444p10le", 10)
    assert at_depth("yuv444p12le", 8) == ("yuv444p", 8)


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="xyz12le"):
        working_format("xyz12le", 640, 480, photo=False)


def test_colour_tags_say_what_the_conversion_did() -> None:
    tags = ColourTags("bt470bg", "smpte170m", "smpte170m", "tv", "left")
    assert working_colour("yuv420p", tags) == tags
    assert working_colour("yuvj420p", tags).range == "pc"
    assert working_colour("rgb24", ColourTags(matrix="gbr", range="pc")).matrix == "bt709"
    assert working_colour("rgb24", ColourTags(matrix="gbr", range="pc")).range == "tv"
